"""Which experts a token goes to, and how much each counts, by the portable kernels; in float32 in every program.

The numerics are those of :func:`edgesdk.model.reference.route`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from edgesdk.model.spec import Moe

    from .attention import Step
    from .program import Slot


def expert_weights(step: Step, logits: Slot, moe: Moe) -> Slot:
    """What each expert counts for a token, float32 [tokens, experts], 0 for those not chosen; logits are alike."""
    if moe.routing == "sparsemixer":
        return _sparse_mixer(step, logits, moe)
    scores = _softmax(step, logits) if moe.routing == "softmax" else logits
    shape = (logits.shape[0], moe.active)
    values, numbers = step.tensor(shape, torch.float32), step.tensor(shape, torch.int64)
    step.method.call("aten::topk.values", [scores, moe.active, -1, True, True], values, numbers)
    if moe.routing == "chosen":
        values = _softmax(step, values)
    return _placed(step, _zeros(step, logits), numbers, values)


def _sparse_mixer(step: Step, logits: Slot, moe: Moe) -> Slot:
    """The best expert, then the best of the rest; each counts as its softmax among those that come close to it."""
    call, tensor, tokens = step.method.call, step.tensor, logits.shape[0]
    never = step.method.constant("experts.never", torch.full((1,), float("-inf")))
    magnitude = tensor(logits.shape, torch.float32)
    call("aten::abs.out", [logits], magnitude)
    weights, left = _zeros(step, logits), logits
    for _ in range(moe.active):
        most, number = tensor((tokens, 1), torch.float32), tensor((tokens, 1), torch.int64)
        call("aten::max.dim_max", [left, -1, True], most, number)
        below, scale, distance = (tensor(logits.shape, torch.float32) for _ in range(3))
        call("aten::sub.out", [most, logits, 1], below)
        call("aten::maximum.out", [magnitude, most], scale)
        call("aten::div.out", [below, scale], distance)
        far, near = tensor(logits.shape, torch.bool), tensor(logits.shape, torch.float32)
        call("aten::gt.Scalar_out", [distance, 2 * moe.jitter], far)
        call("aten::where.self_out", [far, never, left], near)
        part = tensor((tokens, 1), torch.float32)
        call("aten::gather.out", [_softmax(step, near), -1, number, False], part)
        weights = _placed(step, weights, number, part)
        rest = tensor(logits.shape, torch.float32)
        call("aten::scatter.value_out", [left, -1, number, float("-inf")], rest)
        left = rest
    return weights


def _softmax(step: Step, values: Slot) -> Slot:
    out = step.tensor(values.shape, torch.float32)
    step.method.call("aten::_softmax.out", [values, -1, False], out)
    return out


def _zeros(step: Step, like: Slot) -> Slot:
    out = step.tensor(like.shape, torch.float32)
    step.method.call("aten::full_like.out", [like, 0.0, None], out)
    return out


def _placed(step: Step, weights: Slot, numbers: Slot, values: Slot) -> Slot:
    """``weights`` with values at the experts of these numbers."""
    out = step.tensor(weights.shape, torch.float32)
    step.method.call("aten::scatter.src_out", [weights, -1, numbers, values], out)
    return out
