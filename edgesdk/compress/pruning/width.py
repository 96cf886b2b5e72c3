"""Attention heads and neurons of the MLP go where they matter least.

What it does: for each neuron, and each group of heads that share keys and values, the error of the layer's output is
computed that its loss leaves after the best update of the rest, relative to the size of the residual stream. Those with
the least error for each parameter go first, over the whole model. Then, layer by layer, the output matrices (``o``,
``down``) are solved again for what is left. The result is an ordinary smaller model whose layers may differ in width.
When to use it: where speed, memory and size must all fall; it costs less quality than ``depth`` before recovery.
Follow it with ``recovery``.
What it costs: two forward passes over the calibration text, two factorizations for each layer.
Example: ``edgesdk compress MODEL --recipe w4g32-width75-heal --out DIR``.
Source: Hassibi and Stork, Optimal Brain Surgeon (NIPS 1992), over groups as in Kurtic et al., ZipLM, arXiv 2302.04089;
whole groups of heads as in Muralidharan et al., Minitron, arXiv 2407.14679.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ...errors import RecipeError
from ...model.features import FOLDED
from ...model.weights import dense
from ...progress import track
from ..base import PassReport, PassResult, Setting, Shapes
from ..kept import kept_json
from ..layerwise import Inputs, batches, observe, walk_changing
from ..spool import Spool
from .sizes import check_keep

if TYPE_CHECKING:
    import torch

    from ...model import Model
    from ...model.spec import DecoderSpec, Layer

_UNIT = 32  # neurons that go together, so that groups of inputs still divide a row
_DAMPING = 0.01


@dataclass(frozen=True)
class Kept:
    """What is left of a layer.

    Attributes:
        groups: of heads that share keys and values, by index.
        neurons: of the MLP, how many.
    """

    groups: tuple[int, ...]
    neurons: int


@dataclass(frozen=True)
class Width(Shapes):
    """Options of the pass.

    Attributes:
        keep: share of the model's parameters that is left at most, embedding and head counted.
        heads: whether heads may go.
        neurons: whether neurons may go.
        least: share of each layer's neurons that stays at least.
    """

    takes: ClassVar[frozenset[str]] = FOLDED - {"alibi", "qk_norm_all"}

    keep: float = 0.75
    heads: bool = True
    neurons: bool = True
    least: float = 0.3

    def __post_init__(self) -> None:
        check_keep("width", self.keep)
        if not (self.heads or self.neurons):
            raise RecipeError("width: with neither 'heads' nor 'neurons' there is nothing to take away")
        if not 0 < self.least < 1:
            raise RecipeError(f"width: 'least' must lie between 0 and 1, found {self.least:g}")

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        kept = self._chosen(model, setting)
        spool = Spool(setting.scratch / "width.bin", model.weights)
        layers = tuple(_narrowed(layer, each) for layer, each in zip(model.spec.layers, kept, strict=True))
        made = replace(model, spec=replace(model.spec, layers=layers), weights=spool)

        def done(index: int) -> bool:
            return spool.entry(f"layers.{index}.down.weight") is not None

        for index, inputs in walk_changing(model, made, setting, "Narrowing layers", done):
            spool.write_together(_cut(model, index, kept[index], inputs))
        return PassResult(made, PassReport("width", True, notes=(_note(model.spec, kept),)))

    def _chosen(self, model: Model, setting: Setting) -> list[Kept]:
        found = kept_json(
            setting.scratch / "kept.json",
            lambda: [(each.groups, each.neurons) for each in self._choose(model, setting)],
        )
        return [Kept(tuple(groups), neurons) for groups, neurons in found]

    def _choose(self, model: Model, setting: Setting) -> list[Kept]:
        """What goes, the cheapest for each parameter first."""
        spec = model.spec
        excess = spec.parameters - int(self.keep * spec.parameters)
        queue: list[tuple[float, int, int, _Part]] = []
        groups = [set(range(layer.attention.kv_heads)) for layer in spec.layers]
        neurons = [layer.mlp.size for layer in spec.layers]
        for index, parts in enumerate(_measured(model, setting)):
            layer, unit = spec.layers[index], parts.unit
            if self.heads:
                for number, part in enumerate(parts.groups):
                    heapq.heappush(queue, (part.price, index, -1 - number, part))
            if self.neurons:
                most = int((1 - self.least) * layer.mlp.size) // unit
                for number, part in enumerate(parts.neurons[:most]):  # by rising price
                    heapq.heappush(queue, (part.price, index, number, part))
        while queue and excess > 0:
            _, index, _, part = heapq.heappop(queue)
            if part.groups:
                if len(groups[index]) <= len(part.groups):
                    continue
                groups[index].difference_update(part.groups)
            else:
                neurons[index] -= part.neurons
            excess -= part.parameters
        if excess > 0:
            raise RecipeError(
                f"width: {self.keep:.0%} of the parameters cannot be reached with one group of heads and "
                f"{self.least:.0%} of the neurons in every layer: {excess / 1e6:.1f} M too many are left",
                hint="keep more, lower 'least', or take 'depth' or 'vocabulary' too",
            )
        return [Kept(tuple(sorted(each)), size) for each, size in zip(groups, neurons, strict=True)]


@dataclass(frozen=True)
class _Part:
    """Something that may go: groups of heads by index, or so many neurons.

    ``price`` is the error that its loss leaves, relative to the residual stream, for each parameter.
    """

    price: float
    parameters: int
    groups: tuple[int, ...] = ()
    neurons: int = 0


@dataclass(frozen=True)
class _Parts:
    """What may go of a layer, by rising price; ``unit`` neurons go together."""

    unit: int
    groups: Sequence[_Part]
    neurons: Sequence[_Part]


def _measured(model: Model, setting: Setting) -> list[_Parts]:
    """What may go of every layer."""
    from ...model.reference import ReferenceModel

    spec, reference = model.spec, ReferenceModel(model, resident=False)
    states = reference.embed(batches(setting.tokens(model)))
    reference.release()
    found = []
    for index in track(setting.progress, "Weighing heads and neurons", range(len(spec.layers))):
        inputs = Inputs(spec, index)
        states = observe(reference, reference.layer(index), index, states, inputs)
        size = sum(float(x.double().square().sum()) for x in states)
        found.append(_parts(model, index, setting, inputs, size))
    return found


def _parts(model: Model, index: int, setting: Setting, inputs: Inputs, size: float) -> _Parts:
    """What may go of a layer; ``size`` is the sum of the squares of the states behind it."""
    layer, hidden, prefix = model.spec.layers[index], model.spec.hidden, f"layers.{index}."
    attention = layer.attention

    def prices(name: str, norm: str, width: int, together: int) -> list[tuple[float, tuple[int, ...]]]:
        weight, sums = dense(model.weights.get(f"{prefix}{name}.weight")), inputs.of(name)
        errors = _losses(weight, sums.products, width)
        if layer.post_norms:  # the norm behind gives the output another size
            before = float(((weight @ sums.products) * weight).sum())
            after = sums.rows * float(dense(model.weights.get(f"{prefix}{norm}.weight")).square().sum())
            errors = errors * (after / max(before, 1e-30))
        rising = errors.argsort()[: len(errors) // together * together].view(-1, together)
        return [(float(errors[indices].sum()) / size, tuple(indices.tolist())) for indices in rising]

    shared = attention.heads // attention.kv_heads * attention.head_dim
    together = _together(attention.q_size, shared, _group(setting, f"{prefix}o.weight"))
    of_groups = together * 2 * hidden * (shared + attention.head_dim)
    unit = max(_UNIT, _group(setting, f"{prefix}down.weight"))
    of_unit = unit * hidden * (3 if layer.mlp.gated else 2)
    return _Parts(
        unit,
        [_Part(it / of_groups, of_groups, groups=them) for it, them in prices("o", "post_attn_norm", shared, together)],
        [_Part(it / of_unit, of_unit, neurons=unit) for it, _ in prices("down", "post_mlp_norm", 1, unit)],
    )


def _group(setting: Setting, name: str) -> int:
    """Inputs of a matrix that will share a scale, or 0."""
    return max(0, (setting.grid(name) or (0, 0))[1])


def _together(whole: int, width: int, group: int) -> int:
    """How many blocks of so many columns must go together for groups to divide what is left, as they do the whole."""
    return math.lcm(width, group) // width if group and whole % group == 0 else 1


def _losses(weight: torch.Tensor, products: torch.Tensor, width: int) -> torch.Tensor:
    """Squared error of ``weight @ inputs`` without each block of ``width`` columns, the rest updated: [in / width].

    For a block B it is trace(W_B inv(inv(H)_BB) W_B^T), where H is the sum of x x^T (Optimal Brain Surgeon).
    """
    import torch

    inverse = torch.linalg.inv(_damped(products))
    if width == 1:
        each: torch.Tensor = weight.double().square().sum(0) / inverse.diagonal()
        return each.float()
    found = []
    for start in range(0, weight.shape[1], width):
        block = slice(start, start + width)
        columns = weight[:, block].double()
        found.append(torch.linalg.solve(inverse[block, block], columns.T).mul(columns.T).sum())
    return torch.stack(found).float()


def _damped(products: torch.Tensor) -> torch.Tensor:
    """H in float64, with a hundredth of its mean diagonal added."""
    import torch

    matrix = products.double()
    mean = float(matrix.diagonal().mean()) or 1.0
    return matrix + _DAMPING * mean * torch.eye(len(matrix), dtype=matrix.dtype)


def _cut(model: Model, index: int, kept: Kept, inputs: Inputs) -> Mapping[str, torch.Tensor]:
    """The tensors of a layer that change."""
    spec, prefix = model.spec.layers[index], f"layers.{index}."
    attention, found = spec.attention, {}
    heads = attention.heads // attention.kv_heads
    keys = _blocks(kept.groups, attention.head_dim)
    queries = _blocks(kept.groups, heads * attention.head_dim)
    down = dense(model.weights.get(f"{prefix}down.weight"))
    losses = _losses(down, inputs.of("down").products, 1)
    neurons = losses.topk(kept.neurons).indices.sort().values
    rows = {"q": queries, "k": keys, "v": keys, "gate": neurons, "up": neurons}
    for name in model.spec.layer_tensors(index):
        part = name.split(".")[2]
        if part in rows:
            found[name] = dense(model.weights.get(name))[rows[part]]
    o = dense(model.weights.get(f"{prefix}o.weight"))
    found[f"{prefix}o.weight"] = _resolved(o, inputs.of("o").products, queries)
    found[f"{prefix}down.weight"] = _resolved(down, inputs.of("down").products, neurons)
    return found


def _blocks(indices: Sequence[int], width: int) -> torch.Tensor:
    import torch

    return torch.cat([torch.arange(index * width, (index + 1) * width) for index in indices])


def _resolved(weight: torch.Tensor, products: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The matrix on the ``kept`` inputs alone that comes nearest to the whole one: [out, kept]."""
    import torch

    if len(kept) == weight.shape[1]:
        return weight
    moments = _damped(products)
    wanted = weight.double() @ moments[:, kept]
    found: torch.Tensor = torch.linalg.solve(moments[kept][:, kept], wanted.T)
    return found.T.float().contiguous()


def _narrowed(layer: Layer, kept: Kept) -> Layer:
    attention = layer.attention
    heads = attention.heads // attention.kv_heads * len(kept.groups)
    return replace(
        layer,
        mixer=replace(attention, heads=heads, kv_heads=len(kept.groups)),
        ffn=replace(layer.mlp, size=kept.neurons),
    )


def _note(spec: DecoderSpec, kept: Sequence[Kept]) -> str:
    heads = sum(layer.attention.kv_heads for layer in spec.layers)
    neurons = sum(layer.mlp.size for layer in spec.layers)
    left = sum(len(each.groups) for each in kept), sum(each.neurons for each in kept)
    return f"of {heads} groups of heads {left[0]} are left, of {neurons} neurons {left[1]}"
