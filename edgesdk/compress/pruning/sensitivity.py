"""How much of each layer may go: less where the model's output was measured to change more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...model.weights import dense
from ...progress import track
from ..allocation import divergence, predictions, prefix_length
from ..kept import kept_json

if TYPE_CHECKING:
    from ...model import Model
    from ..base import Setting
    from .pattern import Pattern

_SEQUENCES = 2
_SPREAD = 0.15  # most that a layer's share differs from the whole
_POWER = 4.0  # how fast divergence grows with the share; see layer_shares


def layer_shares(
    model: Model, names: Mapping[str, int], pattern: Pattern, allocation: str, setting: Setting
) -> list[float]:
    """The share of every layer's weights that becomes zero; over the named matrices (with sizes) it is the pattern's.

    Each layer alone loses the pattern's share by magnitude, and the divergence ``d`` of the output is measured. With
    a divergence of ``d s^4``, the sum is smallest at shares in proportion to ``d^(-1/3)``; none differs from the
    pattern's by more than 0.15 (as in OWL, Yin et al., arXiv 2310.05175).
    """
    layers = range(len(model.spec.layers))
    if allocation == "uniform":
        return [pattern.share for _ in layers]
    found = kept_json(setting.scratch / "layers.json", lambda: _divergences(model, names, pattern, setting))
    sizes = [sum(size for name, size in names.items() if int(name.split(".")[1]) == index) for index in layers]
    wanted = [max(value, 1e-9) ** (-1 / (_POWER - 1)) for value in found]
    low, high = max(0.01, pattern.share - _SPREAD), min(0.99, pattern.share + _SPREAD)
    left, right = 0.0, 1 / min(wanted)
    for _ in range(60):  # the factor at which the clipped shares meet the whole
        factor = (left + right) / 2
        shares = [min(high, max(low, factor * each)) for each in wanted]
        whole = sum(share * size for share, size in zip(shares, sizes, strict=True)) / sum(sizes)
        left, right = (factor, right) if whole < pattern.share else (left, factor)
    return shares


def _divergences(model: Model, names: Mapping[str, int], pattern: Pattern, setting: Setting) -> list[float]:
    """Mean divergence of the output, nats a token, when one layer alone is pruned."""
    import torch

    from ...model.reference import ReferenceModel

    reference = ReferenceModel(model, resident=False)
    ids, front = setting.tokens(model)[:_SEQUENCES], prefix_length(model)
    found = []
    with torch.inference_mode():
        (state,) = reference.embed([ids])
        wanted = predictions(reference, reference.hidden([ids])[0], front)
        for index in track(setting.progress, "Measuring layers", range(len(model.spec.layers))):
            layer = reference.layer(index)
            for name in filter(names.__contains__, model.spec.layer_tensors(index)):
                weight = dense(model.weights.get(name))
                gone = pattern.lowest(weight.abs(), rows=True)
                layer.register_buffer(f"{name.split('.')[2]}_weight", weight.masked_fill(gone, 0))
            (end,) = reference.finish(reference.through(layer, [state]), after=index)
            found.append(divergence(wanted, predictions(reference, end, front)))
            (state,) = reference.through(reference.layer(index), [state])
    return found
