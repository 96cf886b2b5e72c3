"""Layers that change their input least are dropped.

What it does: the influence of a layer is one minus the cosine between the states that enter and leave it, averaged over
calibration tokens. The least influential layer is dropped, the others are measured again without it, and so on until
the model has the wanted share of its parameters. The result is an ordinary smaller model.
When to use it: where speed, memory and size must all fall; follow it with ``recovery``, without which a small model is
of no use afterwards. Key-value caches shrink with the layers.
What it costs: one forward pass over a part of the calibration text for each layer dropped.
Example: ``edgesdk compress MODEL --recipe w4g32-depth75-heal --out DIR``.
Source: Men et al., ShortGPT, arXiv 2403.03853 (block influence); dropping one after the other is that of Kim et al.,
Shortened LLaMA, arXiv 2402.02834.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ...errors import RecipeError
from ...model.features import ALL
from ..base import PassReport, PassResult, Setting, Shapes
from ..kept import kept_json
from ..layerwise import batches
from .sizes import check_keep, parameters_of

if TYPE_CHECKING:
    import torch

    from ...model import Model
    from ...model.reference import ReferenceModel
    from ...model.weights import Stored, Weights

_SEQUENCES = 16


@dataclass(frozen=True)
class Depth(Shapes):
    """Options of the pass.

    Attributes:
        keep: share of the model's parameters that is left at most, embedding and head counted.
        protect_first: layers at the beginning that stay.
        protect_last: layers at the end that stay.
    """

    takes: ClassVar[frozenset[str]] = ALL - {"aside", "sum_norm"}

    keep: float = 0.75
    protect_first: int = 1
    protect_last: int = 1

    def __post_init__(self) -> None:
        check_keep("depth", self.keep)
        if self.protect_first < 0 or self.protect_last < 0:
            raise RecipeError("depth: 'protect_first' and 'protect_last' must be 0 or more")

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        left = kept_json(setting.scratch / "layers.json", lambda: self._choose(model, setting))
        dropped = [index for index in range(len(model.spec.layers)) if index not in left]
        spec = replace(model.spec, layers=tuple(model.spec.layers[index] for index in left))
        made = replace(model, spec=spec, weights=Renumbered(model.weights, left))
        note = f"dropped {len(dropped)} of {len(model.spec.layers)} layers: {', '.join(map(str, dropped))}"
        return PassResult(made, PassReport("depth", True, notes=(note,)))

    def _choose(self, model: Model, setting: Setting) -> list[int]:
        from ...model.reference import ReferenceModel
        from ...passages.reference import may_stay

        wanted = int(self.keep * model.spec.parameters)
        sizes = [parameters_of(model.spec.layer_tensors(index)) for index in range(len(model.spec.layers))]
        free = range(self.protect_first, len(sizes) - self.protect_last)
        excess = model.spec.parameters - wanted
        if sum(sizes[index] for index in free) < excess:
            raise RecipeError(
                f"depth: all layers but the {self.protect_first} first and {self.protect_last} last together have "
                f"{sum(sizes[index] for index in free) / 1e6:.1f} M of {model.spec.parameters / 1e6:.1f} M parameters, "
                f"too few to leave {self.keep:.0%}",
                hint="keep more, or prune the vocabulary too",
            )
        reference = ReferenceModel(model, resident=may_stay(model))
        left = list(range(len(sizes)))
        states = reference.embed(batches(setting.tokens(model)[:_SEQUENCES]))
        with setting.progress.stage("Dropping layers", -(-excess // max(sizes))) as stage:
            while excess > 0:
                influence = influences(reference, left, states)
                least = min((index for index in left if index in free), key=influence.__getitem__)
                left.remove(least)
                excess -= sizes[least]
                stage.advance()
        return left


def influences(reference: ReferenceModel, left: list[int], states: list[torch.Tensor]) -> dict[int, float]:
    """One minus the mean cosine of the states before and after each layer, when only these layers run, in order.

    ``states`` are what the first of them sees, each [batch, positions, hidden].
    """
    import torch.nn.functional as F

    found = {}
    layers = dict(enumerate(reference.layers())) if reference.resident else {}
    for index in left:
        after = reference.through(layers.get(index) or reference.layer(index), states)
        cosines = [F.cosine_similarity(x, y, dim=-1).flatten() for x, y in zip(states, after, strict=True)]
        total = sum(len(each) for each in cosines)
        found[index] = 1 - sum(float(each.sum()) for each in cosines) / total
        states = after
    return found


class Renumbered:
    """Weights in which layer ``i`` is layer ``order[i]`` of others."""

    def __init__(self, base: Weights, order: list[int]) -> None:
        self._base, self._order = base, order

    def get(self, name: str) -> Stored:
        if not name.startswith("layers."):
            return self._base.get(name)
        _, index, rest = name.split(".", 2)
        return self._base.get(f"layers.{self._order[int(index)]}.{rest}")
