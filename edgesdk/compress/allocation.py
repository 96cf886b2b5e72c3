"""Bits for each matrix, chosen so that a size is met and the model's predictions change least.

What it does: each linear matrix in turn is rounded to a lower width with all else in float, and the Kullback-Leibler
divergence of the output from the float model's is measured on calibration text. Bits are then taken where they cost the
least divergence for each byte saved, until the size is met.
When to use it: ``--size``; a target's size limit decides, not a bit width.
What it costs: one forward pass from each matrix to the end of the model over 256 tokens, a few minutes for a model of
100 M parameters, memory of the float model (or of one layer, slower, for larger ones).
Example: ``edgesdk compress MODEL --recipe w4g32-gptq --size 90MB --target android-arm64 --out DIR``.
Source: the sensitivity of Dong et al., HAWQ-V2 (arXiv 1911.03852), measured instead of estimated from a Hessian; the
choice along the convex hull of size against loss is that of Shoham and Gersho (IEEE Trans. ASSP 36(9), 1988).
"""

from __future__ import annotations

import heapq
import json
import math
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import ModelError, RecipeError
from ..model.spec import is_linear
from ..model.weights import dense
from ..progress import track
from .base import dividing
from .rtn import RoundToNearest, round_to_nearest

if TYPE_CHECKING:
    import torch

    from ..model import Model
    from ..model.layers import DecoderLayer
    from ..model.reference import ReferenceModel
    from .base import Setting
    from .recipe import Recipe

_TOKENS = 256
_LARGEST = 1e12
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>bpw|[kMG]?B)", re.IGNORECASE)
_UNITS = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9}


@dataclass(frozen=True)
class Choice:
    """One width for one matrix.

    Attributes:
        bits: of its integers, in groups of the recipe's size, or one scale a row for 8.
        size: bytes on the target.
        divergence: mean KL divergence of the output when only this matrix has it, nats a token.
    """

    bits: int
    size: int
    divergence: float


def parse_size(text: str, parameters: int) -> int:
    """Bytes of ``90MB`` (units of 1000), or of ``4.5bpw`` (bits for each of the model's parameters).

    Raises:
        RecipeError: neither.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or not float(match["number"]):
        raise RecipeError(f"size '{text}' cannot be read", hint="give bytes like 90MB, or bits per weight like 4.5bpw")
    number, unit = float(match["number"]), match["unit"].lower()
    if number > _LARGEST:
        raise RecipeError(f"size '{text[:40]}' is too large")
    return int(number * parameters / 8) if unit == "bpw" else int(number * _UNITS[unit])


def chosen_size(recipe: Recipe, size: str | None, parameters: int) -> int | None:
    """Bytes that the user asked for, or else the recipe, or None.

    Raises:
        RecipeError: the size cannot be read, or the recipe has no pass whose bits could be chosen.
    """
    text = size or recipe.size
    if text is None:
        return None
    rounding_step(recipe)
    return parse_size(text, parameters)


def sized(
    recipe: Recipe, model: Model, size: str | None, size_of: Callable[[Recipe], int], setting: Setting
) -> tuple[Recipe, list[str]]:
    """The recipe with bits for every matrix where a size is asked for, and what to say of them."""
    most = chosen_size(recipe, size, model.spec.parameters)
    if most is None:
        return recipe, []
    room = replace(setting, scratch=setting.scratch / "allocation")
    room.scratch.mkdir(exist_ok=True)
    chosen, note = allocate(recipe, model, most, size_of, room)
    return chosen, [note]


def allocate(
    recipe: Recipe, model: Model, size: int, size_of: Callable[[Recipe], int], setting: Setting
) -> tuple[Recipe, str]:
    """The recipe with bits chosen for every linear matrix so that the result is as good as ``size`` bytes allow.

    Args:
        recipe: has one pass that rounds; its ``bits`` do not matter.
        model: before any pass.
        size: most bytes.
        size_of: bytes of the whole result under a recipe.
        setting: where scratch goes (what was measured there before is used), and the widths that the target stores.

    Returns: the recipe, and a sentence about the choice.

    Raises:
        RecipeError: no choice of bits is that small; the smallest is named. Or the recipe does not round.
    """
    step = rounding_step(recipe)
    names = [name for name in model.spec.tensors() if is_linear(name) and not step.excepted(name)]
    sizes = {bits: size_of(with_bits(recipe, dict.fromkeys(names, bits))) for bits in setting.limits.widths}
    smallest = min(sizes.values())
    if smallest > size:
        tables = "" if step.embedding_bits == 4 else "; a 4-bit embedding (-e4) makes it smaller"
        raise RecipeError(
            f"no choice of bits makes this {size / 1e6:,.1f} MB: the smallest, {setting.limits.widths[0]} bits in "
            f"every layer, has {smallest / 1e6:,.1f} MB{tables}"
        )
    base = max(bits for bits, found in sizes.items() if found <= size)
    smallest, widths = sizes[base], tuple(bits for bits in setting.limits.widths if bits >= base)
    divergences = _measured(model, step, widths, setting)
    choices = {
        name: [Choice(bits, _size(model, name, bits, step), loss) for bits, loss in divergences[name].items()]
        for name in names
    }
    chosen = dict.fromkeys(names, widths[0])
    room = size - smallest
    for name, choice, cost in _upgrades(choices):
        if cost <= room:
            chosen[name] = choice.bits
            room -= cost
    found = with_bits(recipe, chosen)
    while size_of(found) > size:  # the target's own bookkeeping for a width
        name = max((name for name in names if chosen[name] > widths[0]), key=lambda name: -divergences[name][widths[0]])
        chosen[name] = widths[0]
        found = with_bits(recipe, chosen)
    counts = {bits: sum(1 for found in chosen.values() if found == bits) for bits in widths}
    said = ", ".join(f"{count} with {bits} bits" for bits, count in counts.items() if count)
    return found, f"bits for {size / 1e6:,.1f} MB, from the divergence that each matrix was measured to cost: {said}"


def rounding_step(recipe: Recipe) -> RoundToNearest:
    """The one pass of a recipe that rounds.

    Raises:
        RecipeError: there is none, or there are several.
    """
    found = [step for step in recipe.passes if isinstance(step, RoundToNearest)]
    if len(found) != 1:
        raise RecipeError(f"--size chooses the bits of one rounding pass, and recipe {recipe.name} has {len(found)}")
    if found[0].group <= 0:
        raise RecipeError(
            f"--size chooses among widths that share scales in groups, and recipe {recipe.name} has one scale a row",
            hint="start from a recipe with groups, such as w4g32",
        )
    return found[0]


def with_bits(recipe: Recipe, bits: Mapping[str, int]) -> Recipe:
    """The recipe with these bits for the named tensors; the most common one below 8 becomes the pass's own."""
    old = rounding_step(recipe)
    narrow = [width for width in bits.values() if width < 8]
    common = max(sorted(set(narrow)), key=narrow.count) if narrow else old.bits
    chosen = {name.removesuffix(".weight"): width for name, width in bits.items() if width != common}
    new = replace(old, bits=common, exceptions={**old.exceptions, **chosen})
    return replace(recipe, passes=tuple(new if step is old else step for step in recipe.passes))


def _size(model: Model, name: str, bits: int, step: RoundToNearest) -> int:
    rows, columns = model.spec.tensors()[name]
    groups = rows * columns // dividing(columns, 0 if bits == 8 else step.group)
    return rows * columns * bits // 8 + 2 * groups


def _upgrades(choices: Mapping[str, Sequence[Choice]]) -> Iterator[tuple[str, Choice, int]]:
    """Steps to more bits along each matrix's convex hull, the most divergence saved for each byte first."""
    queue: list[tuple[float, str, int, list[Choice]]] = []

    def push(name: str, at: int, hull: list[Choice]) -> None:
        if at + 1 < len(hull):
            here, there = hull[at], hull[at + 1]
            gain = (here.divergence - there.divergence) / (there.size - here.size)
            heapq.heappush(queue, (-gain, name, at + 1, hull))

    for name, options in choices.items():
        push(name, 0, _hull(options))
    while queue:
        _, name, at, hull = heapq.heappop(queue)
        yield name, hull[at], hull[at].size - hull[at - 1].size
        push(name, at, hull)


def _hull(options: Sequence[Choice]) -> list[Choice]:
    """The choices, by rising size, that no line between two others passes below."""
    hull: list[Choice] = []
    for option in sorted(options, key=lambda option: option.size):
        while len(hull) > 1 and _slope(hull[-2], option) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        if not hull or option.divergence < hull[-1].divergence:
            hull.append(option)
    return hull


def _slope(start: Choice, end: Choice) -> float:
    return (end.divergence - start.divergence) / (end.size - start.size)


def _measured(
    model: Model, step: RoundToNearest, widths: tuple[int, ...], setting: Setting
) -> dict[str, dict[int, float]]:
    """Divergence by matrix and width; what an interrupted run measured is in the scratch folder."""
    kept = setting.scratch / f"sensitivity-{widths[0]}.jsonl"
    found: dict[str, dict[int, float]] = {}
    if kept.is_file():
        whole = [line for line in kept.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        kept.write_text("".join(whole), encoding="utf-8")  # without a line that was cut
        for name, losses in map(json.loads, whole):
            found[name] = {int(bits): loss for bits, loss in losses.items()}
    for name, losses in _measure(model, step, widths, setting, frozenset(found)):
        with kept.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps([name, losses]) + "\n")
        found[name] = losses
    return found


def _measure(
    model: Model, step: RoundToNearest, widths: tuple[int, ...], setting: Setting, done: Container[str]
) -> Iterator[tuple[str, dict[int, float]]]:
    """Every linear matrix that is not done, with its divergence at each width.

    The lowest width is measured; the others follow from it by their squared errors, to which small divergences are
    proportional.
    """
    import torch

    from ..model.reference import ReferenceModel
    from ..passages.reference import may_stay

    reference = ReferenceModel(model, resident=may_stay(model))
    ids = setting.tokens(model)
    ids = ids[: max(1, _TOKENS // ids.shape[1])]
    front = prefix_length(model)
    with torch.inference_mode():
        (state,) = reference.embed([ids])
        wanted = predictions(reference, reference.hidden([ids])[0], front)
        for index in track(setting.progress, "Measuring sensitivity", range(len(model.spec.layers))):
            layer = reference.layer(index)
            for name in filter(is_linear, model.spec.layer_tensors(index)):
                if name in done:
                    continue
                rounded = {bits: _rounded(model, name, bits, step, setting) for bits in widths}
                lowest, error = rounded[widths[0]]
                part = name.split(".")[2]
                kept = layer.get_buffer(f"{part}_weight")
                layer.register_buffer(f"{part}_weight", lowest)
                loss = divergence(wanted, predictions(reference, _to_the_end(reference, layer, index, state), front))
                layer.register_buffer(f"{part}_weight", kept)
                yield name, {bits: loss * rounded[bits][1] / error if error else 0.0 for bits in widths}
            (state,) = reference.through(layer, [state])


def _rounded(model: Model, name: str, bits: int, step: RoundToNearest, setting: Setting) -> tuple[torch.Tensor, float]:
    weight = dense(model.weights.get(name))
    group = dividing(weight.shape[1], 0 if bits == 8 else step.group)
    tensor, error = round_to_nearest(weight, bits, group, signed_scales=setting.limits.signed_scales)
    return tensor.dequantize(), error


def _to_the_end(reference: ReferenceModel, layer: DecoderLayer, index: int, state: torch.Tensor) -> torch.Tensor:
    (state,) = reference.through(layer, [state])
    return reference.finish([state], after=index)[0]


def prefix_length(model: Model) -> int:
    """Tokens of the prefix that calibration sequences begin with: what is predicted there is the same in each."""
    return len(model.tokenizer.special.prefix) if model.tokenizer is not None else 0


def predictions(reference: ReferenceModel, hidden: torch.Tensor, front: int) -> torch.Tensor:
    """Log probabilities of every second position behind a prefix of ``front`` tokens, [positions, vocab]."""
    import torch.nn.functional as F

    return F.log_softmax(reference.logits(hidden[:, front::2].flatten(0, 1)), dim=-1)


def divergence(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Mean divergence of log probabilities [positions, vocab], nats.

    Raises:
        ModelError: it is NaN or infinite.
    """
    apart = float((wanted.exp() * (wanted - found)).sum(-1).mean())
    if not math.isfinite(apart):
        raise ModelError("the model gives NaN or infinite predictions on the calibration text")
    return max(0.0, apart)
