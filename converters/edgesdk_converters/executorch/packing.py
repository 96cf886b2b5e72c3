"""Packs quantized tensors the way XNNPACK and the embedding kernels read them, bit for bit."""

from __future__ import annotations

import torch

from edgesdk.compress.base import Limits
from edgesdk.errors import RecipeError
from edgesdk.model.tensors import QuantizedTensor, pack_nibbles, unpack_nibbles

from .subgraph import PackedFilter

#: What XNNPACK cannot hold of the portable grid.
LIMITS = Limits(signed_scales=False, grouped_bytes=False, zero_points=False, fine_scales=False)
GROUPS = (32, 64, 128)


def holds(tensor: QuantizedTensor) -> bool:
    """Whether XNNPACK's linear kernels hold a tensor exactly."""
    return LIMITS.hold(tensor) and _known_grid(tensor)


def pack_filter(name: str, tensor: QuantizedTensor) -> PackedFilter:
    """Pack a matrix.

    Raises:
        RecipeError: XNNPACK cannot hold it exactly.
    """
    if not holds(tensor):
        raise RecipeError(
            f"{name}: XNNPACK cannot hold {tensor.scheme} exactly",
            hint="it holds w8 and w4 with one scale a row, and w4 in groups of 32, 64 or 128; symmetric, with "
            "positive scales",
        )
    values = pack_nibbles(tensor.values) if tensor.bits == 4 else tensor.values
    inputs = tensor.shape[1]
    if tensor.group == inputs:
        scales = tensor.scales.reshape(-1).float()
    else:
        scales = tensor.scales.to(torch.bfloat16)
        if not torch.equal(scales.float(), tensor.scales):
            raise RecipeError(f"{name}: XNNPACK stores the scales of groups in bfloat16, and these need more bits")
    return PackedFilter(values, scales, tensor.bits, inputs, tensor.group)


def unpack_filter(packed: PackedFilter) -> QuantizedTensor:
    """Undo :func:`pack_filter`."""
    values = unpack_nibbles(packed.values) if packed.bits == 4 else packed.values
    scales = packed.scales.float().view(values.shape[0], -1)
    return QuantizedTensor(values, scales, packed.bits, packed.group)


def _known_grid(tensor: QuantizedTensor) -> bool:
    rows_alone = tensor.group == tensor.shape[1]
    if tensor.bits == 8:
        return True
    return tensor.bits == 4 and tensor.shape[1] % 2 == 0 and (rows_alone or tensor.group in GROUPS)
