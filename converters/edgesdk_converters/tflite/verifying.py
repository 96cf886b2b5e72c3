"""Whether a ``.tflite`` file holds together, before a reader or a runtime follows its offsets and indices."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from edgesdk.bounds.flatbuffer import FlatbufferError, Table, ascii_text, verified
from edgesdk.errors import BundleError

from .schema import schema_module, tflite_schema

IDENTIFIER = b"TFL3"
_BITS = {
    **dict.fromkeys(("INT2",), 2),
    **dict.fromkeys(("INT4", "UINT4"), 4),
    **dict.fromkeys(("INT8", "UINT8", "BOOL"), 8),
    **dict.fromkeys(("INT16", "UINT16", "FLOAT16", "BFLOAT16"), 16),
    **dict.fromkeys(("INT32", "UINT32", "FLOAT32"), 32),
    **dict.fromkeys(("INT64", "UINT64", "FLOAT64", "COMPLEX64"), 64),
}
_DAMAGED = "the file is damaged, or made to do harm: take it from who made it, or export again"


def check_program(path: Path) -> None:
    """Check every offset, index, buffer and constant of a program.

    Raises:
        BundleError: what does not hold together.
        MissingExtraError: LiteRT is not installed.
    """
    schema = tflite_schema()
    if path.stat().st_size < 2 * len(IDENTIFIER):
        raise BundleError(f"{path}: not a TFLite program", hint=_DAMAGED)
    with ExitStack() as stack:  # boards with Python 3.8 know no parentheses here
        file = stack.enter_context(path.open("rb"))
        mapped = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        view = stack.enter_context(memoryview(mapped))
        if view[4:8] != IDENTIFIER:
            raise BundleError(f"{path}: not a TFLite program", hint=_DAMAGED)
        try:
            _check(verified(view, schema), len(view))
        except FlatbufferError as failure:
            raise BundleError(f"{path}: the program does not hold together: {failure}", hint=_DAMAGED) from None


def _check(model: Table, size: int) -> None:
    buffers = [_bytes(buffer, size) for buffer in model.tables("Buffers")]
    graphs = model.tables("Subgraphs")
    if not graphs:
        raise FlatbufferError("no subgraph")
    for graph in graphs:
        tensors = graph.tables("Tensors")
        for number, tensor in enumerate(tensors):
            _check_tensor(f"tensor {number} ({ascii_text(tensor.get('Name'))})", tensor, buffers)
        _indices("the inputs", graph.numbers("Inputs"), tensors)
        _indices("the outputs", graph.numbers("Outputs"), tensors)
        for number, operator in enumerate(graph.tables("Operators")):
            where = f"operator {number}"
            _indices(where, [operator.get("OpcodeIndex")], model.tables("OperatorCodes"))
            _indices(where, (index for index in operator.numbers("Inputs") if index != -1), tensors)
            _indices(where, (index for index in operator.numbers("Outputs") if index != -1), tensors)
            _indices(where, (index for index in operator.numbers("Intermediates") if index != -1), tensors)
    _indices("the metadata", (entry.get("Buffer") for entry in model.tables("Metadata")), buffers)
    for signature in model.tables("SignatureDefs"):
        _indices("a signature", [signature.get("SubgraphIndex")], graphs)
        tensors = graphs[signature.get("SubgraphIndex")].tables("Tensors")
        for key in ("Inputs", "Outputs"):
            _indices("a signature", (entry.get("TensorIndex") for entry in signature.tables(key)), tensors)


def _bytes(buffer: Table, size: int) -> int | None:
    """Bytes of a buffer, or None for one that is filled when the program runs."""
    offset, length, data = buffer.get("Offset"), buffer.get("Size"), buffer.get("Data")
    if offset > 1:
        if offset + length > size:
            raise FlatbufferError(f"a buffer ends at byte {offset + length} of {size}")
        return int(length)
    return None if data is None or not len(data) else len(data)


def _check_tensor(where: str, tensor: Table, buffers: Sequence[int | None]) -> None:
    shape, index = tensor.numbers("Shape"), tensor.get("Buffer")
    _indices(where, [index], buffers)
    names = {number: name for name, number in vars(schema_module().TensorType).items() if isinstance(number, int)}
    kind = names.get(tensor.get("Type"))
    if kind is None or any(length < 0 for length in shape):
        raise FlatbufferError(f"{where} is of type {tensor.get('Type')} and shape {shape[:8]}")
    held = buffers[index]
    needed = -(-math.prod(shape) * _BITS.get(kind, 0) // 8)
    if held is not None and tensor.get("Sparsity") is None and needed > held:
        raise FlatbufferError(f"{where} takes {needed} bytes, and its buffer holds {held}")


def _indices(where: str, indices: Iterable[int], counted: Sequence[object]) -> None:
    for index in indices:
        if not 0 <= index < len(counted):
            raise FlatbufferError(f"{where}: {index} of {len(counted)}")
