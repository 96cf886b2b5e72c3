"""Where in the stack an error arises: every layer's output in two models, one layer of each in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..compress.quality import rounded
from ..model.reference import ReferenceModel
from ..passages.passage import Batch, batches, counted_states
from .report import LayerError

if TYPE_CHECKING:
    from ..model import Model
    from ..progress import Progress
    from .sides import Passages, Side


def why_no_layers(a: Side, b: Side) -> str | None:
    """Why layers cannot be compared, or None when they can."""
    bundled = [side.about.name for side in (a, b) if side.model is None]
    if a.model is None or b.model is None:
        return f"a program does not show what comes out of its layers: {' and '.join(bundled)}"
    counts = [len(model.spec.layers) for model in (a.model, b.model)]
    if counts[0] != counts[1]:
        return f"{counts[0]} layers against {counts[1]}"
    turned = [side.about.name for side in (a, b) if side.model is not None and _rotated(side.model)]
    if turned:
        return f"the residual stream is rotated in {' and '.join(turned)}"
    widths = [model.spec.hidden for model in (a.model, b.model)]
    return f"hidden states of {widths[0]} channels against {widths[1]}" if widths[0] != widths[1] else None


def _rotated(model: Model) -> bool:
    passes = model.compression.passes if model.compression else ()
    return any(step.get("use") == "rotation" and step.get("hidden") for step in passes)


@torch.inference_mode()
def layer_errors(a: Side, b: Side, texts: Passages, progress: Progress) -> tuple[LayerError, ...]:
    """Relative squared error of every layer's output; memory is a layer of each and the hidden states of the texts."""
    assert a.model is not None
    assert b.model is not None
    left, right = ReferenceModel(a.model, resident=False), ReferenceModel(b.model, resident=False)
    runs = batches(texts)
    ids = [run.ids for run in runs]
    states, others = left.embed(ids), right.embed(ids)
    found = []
    with progress.stage("Comparing layers", len(a.model.spec.layers)) as stage:
        for index in range(len(a.model.spec.layers)):
            layer = right.layer(index)
            others, alone = right.through(layer, others), right.through(layer, states)
            del layer
            states = left.through(left.layer(index), states)
            found.append(LayerError(index, _error(states, others, runs), _error(states, alone, runs)))
            stage.advance()
    return tuple(found)


def _error(wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor], runs: Sequence[Batch]) -> float:
    """Mean of |found - wanted|^2 / |wanted|^2 over the rows that count of batches' states [texts, tokens, channels].

    Row by row, because a few states are larger than all others by orders of magnitude (massive activations, arXiv
    2402.17762), and would hide the rest of a layer.
    """
    x, y = counted_states(wanted, runs), counted_states(found, runs)
    apart, whole = (y - x).double().square().sum(-1), x.double().square().sum(-1)
    ratios = torch.where(apart == 0, 0.0, apart / whole)
    return rounded(float(ratios.mean()))
