"""Checkpoints of torchao as safetensors (``quant_method`` "torchao", transformers 5 and torchao 0.16 on).

The shards' metadata holds, for each weight, the tensor class and its attributes as JSON; the class's tensors lie beside
it as ``module._weight_qdata``, ``module._weight_scale`` and so on. For a matrix [out, in] and ``block_size`` [r, c]:

    Int8Tensor                qdata int8 [out, in], scale [out / r, in / c], zero_point int8 like it, or none
    IntxUnpackedToInt8Tensor  the same, with values of ``target_dtype`` (int4 in 8da4w)
    Int4Tensor                qdata int8 [out, in / 2], the even inputs in the low half; scale and zero_point
                              [in / c, out]; a weight is value * scale + zero_point, the latter a float

Source: torchao 0.18 (prototype/safetensors, quantization/quantize_/workflows), and FBGEMM's int4_row_quantize_zp and
pack_int4 for Int4Tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ...documents import parse_json
from ...errors import EdgeError, ModelError
from ..config import Config
from ..safetensors_file import FLOATS, SafetensorsFolder
from .folder import BITS, DAMAGED, UNQUANTIZED, Matrix, QuantizedFolder, part
from .integers import check_range, on_grid, unpack

if TYPE_CHECKING:
    import torch

    from ..tensors import QuantizedTensor

_SAVE = "save it with IntxWeightOnlyConfig, Int8DynamicActivationIntxWeightConfig or Int8WeightOnlyConfig, or "
_FLOAT_ZEROS = (
    "their zero points are floats in the weight's unit (Int4Tensor), which no grid of integers holds; a recipe rounds "
    "them a second time"
)


def open_torchao(folder: SafetensorsFolder, config: Config) -> QuantizedFolder:
    """Read the metadata of every tensor that is not plain.

    Raises:
        ModelError: no metadata, a class that integers with scales cannot carry, or damaged tensors.
    """
    classes = {name: found for name, text in folder.metadata.items() if (found := _description(text)) is not None}
    matrices, activations, notes = {}, set(), []
    for name, described in classes.items():
        if described["_type"] == "Tensor":
            continue
        where = f"{folder.where}: tensor '{name}'"
        stem = "._".join(name.rsplit(".", 1)) + "_"
        if f"{stem}qdata" not in folder.headers:
            continue  # a tied weight is described twice and stored once
        data = described["_data"]
        if f"{stem}act_pre_scale" in folder.headers:
            raise ModelError(f"{where} scales its input first (act_pre_scale), which no family here does")
        if f"{stem}act_quant_scale" in folder.headers:
            notes = ["the checkpoint's fixed scales of int8 activations are not used: every token gets its own"]
        matrices[name] = _opener(where, described["_type"])(folder, where, stem, data)
        activations.add(8 if data.get("act_quant_kwargs") or data.get("activation_quantization") else None)
    if not matrices:
        raise ModelError(
            f"{folder.where}: the safetensors hold no tensors with metadata of torchao",
            hint="save again with transformers 5 and torchao 0.16 or newer, or " + UNQUANTIZED,
        )
    bits = activations.pop() if len(activations) == 1 else None
    return QuantizedFolder(folder, config, matrices, bits, tuple(notes))


def _opener(where: str, kind: str) -> Callable[[SafetensorsFolder, str, str, dict[str, Any]], Matrix]:
    known = {"Int8Tensor": _int8, "IntxUnpackedToInt8Tensor": _int8, "Int4Tensor": _int4}
    if kind not in known:
        raise ModelError(
            f"{where} is a torchao {kind}, which cannot be carried; {', '.join(known)} can", hint=_SAVE + UNQUANTIZED
        )
    return known[kind]


def _description(text: str) -> dict[str, Any] | None:
    try:
        found = parse_json(text, "torchao's description")
    except EdgeError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("_type"), str):
        return None
    data = found.get("_data")
    return {"_type": found["_type"], "_data": data if isinstance(data, dict) else {}}


def _int8(folder: SafetensorsFolder, where: str, stem: str, data: dict[str, Any]) -> Matrix:
    outputs, inputs = part(folder, f"{stem}qdata", {"I8"})
    bits = _bits(where, data)
    rows, columns = _block(where, data, outputs, inputs)
    shape = (outputs // rows, inputs // columns)
    part(folder, f"{stem}scale", FLOATS, shape)
    if f"{stem}zero_point" in folder.headers:
        part(folder, f"{stem}zero_point", {"I8"}, shape)
    grid = (bits, 0 if columns == inputs else columns)
    return Matrix((outputs, inputs), partial(_read_int8, folder, where, stem, bits, rows), grid)


def _read_int8(folder: SafetensorsFolder, where: str, stem: str, bits: int, rows: int) -> QuantizedTensor:
    values, zeros = folder.read(f"{stem}qdata"), None
    check_range(where, values, bits)
    if f"{stem}zero_point" in folder.headers:
        zeros = folder.read(f"{stem}zero_point").repeat_interleave(rows, 0)
        check_range(f"{where} (zero_point)", zeros, bits)
    return on_grid(values, folder.read(f"{stem}scale").repeat_interleave(rows, 0), zeros, bits)


def _int4(folder: SafetensorsFolder, where: str, stem: str, data: dict[str, Any]) -> Matrix:
    outputs, octets = part(folder, f"{stem}qdata", {"I8", "U8"})
    inputs = 2 * octets
    rows, columns = _block(where, data, outputs, inputs)
    if rows != 1:
        raise ModelError(f"{where} shares scales between {rows} rows, which an Int4Tensor does not")
    for name in ("scale", "zero_point"):
        part(folder, f"{stem}{name}", FLOATS, (inputs // columns, outputs))
    return Matrix((outputs, inputs), partial(_read_int4, folder, stem, columns), None, _FLOAT_ZEROS)


def _read_int4(folder: SafetensorsFolder, stem: str, columns: int) -> torch.Tensor:
    """Float32 [out, in], rounded once from the exact sum."""
    import torch

    octets = folder.read(f"{stem}qdata").view(torch.uint8) ^ 0x88  # two's complement to value + 8
    values = unpack(octets, 4, 2 * octets.shape[1]).double()
    scales, zeros = (folder.read(f"{stem}{name}").double().T for name in ("scale", "zero_point"))
    return (values * scales.repeat_interleave(columns, 1) + zeros.repeat_interleave(columns, 1)).float()


def _bits(where: str, data: dict[str, Any]) -> int:
    named = data.get("target_dtype")
    kind = named.get("_data") if isinstance(named, dict) else "int8"
    known = {f"int{bits}": bits for bits in BITS}
    if kind not in known:
        raise ModelError(f"{where} has values of {kind}; {', '.join(known)} can be carried", hint=UNQUANTIZED)
    return known[kind]


def _block(where: str, data: dict[str, Any], outputs: int, inputs: int) -> tuple[int, int]:
    """Rows and columns that share a scale."""
    block = data.get("block_size")
    if isinstance(block, list) and len(block) == 2 and all(isinstance(size, int) and size > 0 for size in block):
        rows, columns = block
        if outputs % rows == 0 and inputs % columns == 0:
            return rows, columns
    raise ModelError(f"{where} is {outputs} x {inputs}, and its metadata gives the block {block!r}", hint=DAMAGED)
