"""Matrices in an ONNX program: float, or the integers that a pass decided, packed for ``MatMulNBits``.

``MatMulNBits`` and ``GatherBlockQuantized`` are described in onnxruntime's docs/ContribOperators.md. Both take unsigned
integers with an implied zero point of ``2**(bits - 1)``, so a signed grid shifts without rounding. Scales are stored in
the smallest float type that holds them exactly; a Cast that ONNX Runtime folds at load widens them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edgesdk.model.tensors import QuantizedTensor, scale_storage
from edgesdk.model.weights import dense

from .builder import CONTRIB, GraphBuilder, onnx_type

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgesdk.model.weights import Stored

#: Block sizes that the CPU kernels of MatMulNBits are written for.
_BLOCKS = (256, 128, 64, 32, 16)
VALUES, SCALES, ZEROS = ".values", ".scales", ".zeros"


@dataclass(frozen=True)
class Activations:
    """How the program computes with packed weights: ``accuracy_level`` of MatMulNBits (1: float32, 4: int8)."""

    accuracy_level: int


def linear(
    builder: GraphBuilder,
    x: ir.Value,
    name: str,
    weight: Stored,
    activations: Activations,
    bias: torch.Tensor | None = None,
) -> ir.Value:
    """``x @ weight.T + bias``; ``weight`` is [out, in]."""
    added = None if bias is None else builder.floats(f"{name}.bias", bias)
    if isinstance(weight, QuantizedTensor):
        return _packed_linear(builder, x, name, weight, activations, added)
    matrix = builder.floats(f"{name}.weight", dense(weight).t())
    product = builder.op("MatMul", [x, matrix], f"{name}.out")
    return product if added is None else builder.op("Add", [product, added], f"{name}.biased")


def embedding(builder: GraphBuilder, ids: ir.Value, name: str, table: Stored) -> ir.Value:
    """Rows ``ids`` of ``table`` [vocab, hidden]."""
    if not isinstance(table, QuantizedTensor):
        return builder.op("Gather", [builder.floats(f"{name}.weight", dense(table)), ids], f"{name}.out")
    block = block_size(table)
    packed = _values(builder, name, table, block)
    rows = builder.constant(f"{name}.rows", [table.shape[0], -1])
    flat = builder.op("Reshape", [packed, rows], f"{name}.flat")
    whole = table.shape[1] % block == 0
    found = builder.op(
        "GatherBlockQuantized",
        [flat, ids, _scales(builder, name, table, block), _zero_points(builder, name, table, block)],
        f"{name}.out" if whole else f"{name}.padded",
        domain=CONTRIB,
        bits=table.bits,
        block_size=block,
        gather_axis=0,
        quantize_axis=1,
    )
    if whole:
        return found
    cut = [builder.constant(f"{name}.{part}", [value]) for part, value in (("from", 0), ("to", table.shape[1]))]
    return builder.op("Slice", [found, *cut, builder.constant(f"{name}.axis", [-1])], f"{name}.out")


def tied_head(
    builder: GraphBuilder,
    x: ir.Value,
    name: str,
    table: Stored,
    activations: Activations,
    bias: torch.Tensor | None = None,
) -> ir.Value:
    """``x @ table.T + bias`` over the initializers that :func:`embedding` stored under the same name."""
    added = None if bias is None else builder.floats("head.bias", bias)
    if isinstance(table, QuantizedTensor):
        return _packed_linear(builder, x, name, table, activations, added)
    matrix = builder.floats(f"{name}.weight", dense(table))
    if builder.dtype == torch.float32:
        product = builder.op("FusedMatMul", [x, matrix], "head.out", domain=CONTRIB, transB=1)
    else:
        matrix = builder.op("Transpose", [matrix], "head.weight", perm=[1, 0])
        product = builder.op("MatMul", [x, matrix], "head.out")
    return product if added is None else builder.op("Add", [product, added], "head.biased")


def block_size(weight: QuantizedTensor) -> int:
    """The kernel's block for a tensor: its group, or for one scale a channel the largest that divides the row."""
    if weight.group in _BLOCKS:
        return weight.group
    return next((block for block in _BLOCKS if weight.group % block == 0), 32)


def _packed_linear(
    builder: GraphBuilder,
    x: ir.Value,
    name: str,
    weight: QuantizedTensor,
    activations: Activations,
    bias: ir.Value | None,
) -> ir.Value:
    block = block_size(weight)
    packed, scales = _values(builder, name, weight, block), _scales(builder, name, weight, block)
    inputs = [x, packed, scales, _zero_points(builder, name, weight, block), None, bias]
    return builder.op(
        "MatMulNBits",
        inputs,
        f"{name}.product",
        domain=CONTRIB,
        K=weight.shape[1],
        N=weight.shape[0],
        bits=weight.bits,
        block_size=block,
        accuracy_level=activations.accuracy_level,
    )


def _values(builder: GraphBuilder, name: str, weight: QuantizedTensor, block: int) -> ir.Value:
    return builder.weight(name + VALUES, pack(weight, block))


def pack(weight: QuantizedTensor, block: int) -> torch.Tensor:
    """Integers as MatMulNBits wants them: uint8 [out, blocks, block * bits / 8], the first element in the low bits."""
    rows, columns = weight.shape
    padded = -(-columns // block) * block
    half = 1 << (weight.bits - 1)
    unsigned = (weight.values + half).view(torch.uint8) if weight.bits < 8 else weight.values.view(torch.uint8) ^ half
    if padded != columns:
        unsigned = torch.nn.functional.pad(unsigned, (0, padded - columns), value=half)
    return _pack_bits(unsigned, weight.bits).view(rows, padded // block, block * weight.bits // 8)


def _pack_bits(unsigned: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack uint8 values along the last axis, the first one in the low bits of a byte."""
    per_byte = 8 // bits
    lanes = unsigned.view(*unsigned.shape[:-1], -1, per_byte)
    packed = lanes[..., 0]
    for lane in range(1, per_byte):
        packed = packed | (lanes[..., lane] << (bits * lane))
    return packed


def _scales(builder: GraphBuilder, name: str, weight: QuantizedTensor, block: int) -> ir.Value:
    """Scales [out, blocks] in the program's float type, widened and repeated at load where that saves space."""
    scales = wide_scales(builder, name, weight.scales)
    blocks = -(-weight.shape[1] // block)
    if weight.scales.shape[1] != blocks:
        repeat = builder.constant(f"{name}.scales.shape", [weight.shape[0], blocks])
        scales = builder.shared("Expand", [scales, repeat], f"{name}.scales.each")
    return scales


def wide_scales(builder: GraphBuilder, name: str, scales: torch.Tensor) -> ir.Value:
    """Scales in the program's float type, stored in the smallest that holds them."""
    stored = scale_storage(scales)
    value = builder.weight(name + SCALES, scales.to(stored))
    if stored != builder.dtype:
        value = builder.shared("Cast", [value], f"{name}.scales.wide", to=int(onnx_type(builder.dtype)))
    return value


def block_scales(weight: QuantizedTensor, block: int) -> torch.Tensor:
    """The scale of every block: [out, blocks]."""
    return weight.scales.repeat_interleave(weight.group // block, dim=1)


def _zero_points(builder: GraphBuilder, name: str, weight: QuantizedTensor, block: int) -> ir.Value | None:
    """Zero points packed like the values: uint8 [out, ceil(blocks * bits / 8)]."""
    if weight.zero_points is None:
        return None
    half = 1 << (weight.bits - 1)
    unsigned = (weight.zero_points.to(torch.int16) + half).to(torch.uint8)
    blocks = -(-weight.shape[1] // block)
    unsigned = unsigned.expand(weight.shape[0], blocks)
    per_byte = 8 // weight.bits
    unsigned = torch.nn.functional.pad(unsigned, (0, -blocks % per_byte), value=half)
    return builder.weight(name + ZEROS, _pack_bits(unsigned, weight.bits))
