"""Writes a ``.tflite`` flatbuffer: tensors, operators, and every weight inside the file at a multiple of 16 bytes.

The schema's Python classes come with ``ai-edge-litert``. Buffers are written by hand: the generated code neither aligns
them nor avoids copies. Source: compiler/mlir/lite/schema/schema.fbs (version 3) of LiteRT.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgesdk.errors import TargetError

from .decode import OPERATOR as DECODE

ALIGNMENT = 16
IDENTIFIER = b"TFL3"
_VERSION = 3

#: Names of the schema's tensor types that the writer knows, and what numpy calls them.
KINDS = {
    "FLOAT32": np.float32,
    "INT32": np.int32,
    "INT16": np.int16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
    "FLOAT16": np.float16,
}


@dataclass(frozen=True, eq=False)
class Grid:
    """Quantization of a tensor: ``(value - zero) * scale``.

    Attributes:
        scales: one for the tensor, one for each row, or with ``block`` one for each block: [rows, columns / block].
        zero: the same for all.
        block: columns that share a scale, for 4-bit matrices.
    """

    scales: np.ndarray
    zero: int = 0
    block: int = 0

    @property
    def scale(self) -> float:
        """The only scale of a tensor that has one."""
        return float(self.scales.flat[0])


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph."""

    index: int
    name: str
    shape: tuple[int, ...]
    kind: str
    grid: Grid | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass
class Graph:
    """The only subgraph of a file under construction; operators run in the order in which they are added."""

    tensors: list[Any] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    _operators: list[Any] = field(default_factory=list)
    _codes: dict[str, int] = field(default_factory=dict)
    _buffers: list[np.ndarray | None] = field(default_factory=lambda: [None])
    _stored: dict[tuple[str, bytes], int] = field(default_factory=dict)

    @property
    def operators(self) -> list[str]:
        """Names of the operators used, each once, sorted."""
        return sorted(self._codes)

    def input(self, name: str, shape: Sequence[int], kind: str, grid: Grid | None = None) -> Value:
        """An input of the graph."""
        value = self.tensor(name, shape, kind, grid)
        self.inputs.append(value)
        return value

    def tensor(self, name: str, shape: Sequence[int], kind: str, grid: Grid | None = None, buffer: int = 0) -> Value:
        """A tensor in memory (buffer 0), or over a buffer of the file."""
        blocks = None if grid is None or not grid.block else self._blocks(name, grid)
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name.encode(), np.array(shape, np.int32), buffer
        made.type = getattr(schema.TensorType, kind)
        if blocks is not None:
            made.quantization = blocks
        elif grid is not None:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = np.asarray(grid.scales, np.float32)
            made.quantization.zeroPoint = np.full(len(grid.scales), grid.zero, np.int64)
        self.tensors.append(made)
        return Value(len(self.tensors) - 1, name, tuple(shape), kind, grid)

    def constant(self, name: str, array: np.ndarray, grid: Grid | None = None) -> Value:
        """A constant; equal bytes are stored once, whatever they are called."""
        kind = next(known for known, dtype in KINDS.items() if array.dtype == dtype)
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        key = (kind, flat.tobytes()) if flat.nbytes <= 1 << 16 else (kind, name.encode())
        if key not in self._stored:
            self._stored[key] = self.buffer(flat)
        return self.tensor(name, array.shape, kind, grid, self._stored[key])

    def nibbles(self, name: str, values: np.ndarray, grid: Grid) -> Value:
        """A 4-bit constant [rows, columns], given as int8: two's complement, the first of a pair in the low half."""
        packed = (values[:, 0::2] & 15) | ((values[:, 1::2] & 15) << 4)
        return self.tensor(name, values.shape, "INT4", grid, self.buffer(packed.reshape(-1).view(np.uint8)))

    def buffer(self, content: np.ndarray) -> int:
        """Store bytes; returns their buffer, over which several tensors may lie."""
        self._buffers.append(content)
        return len(self._buffers) - 1

    def alias(self, value: Value, name: str, grid: Grid) -> Value:
        """The bytes of a constant under another quantization."""
        return self.tensor(name, value.shape, value.kind, grid, self.tensors[value.index].buffer)

    def op(self, code: str, inputs: Sequence[Value | None], outputs: Sequence[Value], options: Any = None) -> None:
        """Append an operator; ``options`` is one of the schema's option objects."""
        made = schema.OperatorT()
        made.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        made.inputs = np.array([-1 if value is None else value.index for value in inputs], np.int32)
        made.outputs = np.array([value.index for value in outputs], np.int32)
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._operators.append(made)

    def write(self, path: Path) -> int:
        """Write the file; returns its size in bytes."""
        content = self.serialize()
        path.write_bytes(content)
        return len(content)

    def serialize(self) -> bytes:
        """The finished flatbuffer."""
        room = sum(each.nbytes + 64 for each in self._buffers if each is not None) + 400 * len(self.tensors) + 65536
        builder = flatbuffers.Builder(room)
        buffers = _vector(builder, schema.ModelStartBuffersVector, [_buffer(builder, each) for each in self._buffers])
        codes = _vector(
            builder, schema.ModelStartOperatorCodesVector, [_code(name).Pack(builder) for name in self._codes]
        )
        graphs = _vector(builder, schema.ModelStartSubgraphsVector, [self._subgraph().Pack(builder)])
        description = builder.CreateString("edgesdk")
        schema.ModelStart(builder)
        schema.ModelAddVersion(builder, _VERSION)
        schema.ModelAddOperatorCodes(builder, codes)
        schema.ModelAddSubgraphs(builder, graphs)
        schema.ModelAddDescription(builder, description)
        schema.ModelAddBuffers(builder, buffers)
        builder.Finish(schema.ModelEnd(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _blocks(self, name: str, grid: Grid) -> Any:
        """Quantization with a float16 scale for each block, which is a tensor of its own."""
        halves = grid.scales.astype(np.float16)
        if not np.array_equal(halves.astype(np.float32), grid.scales):
            raise TargetError(f"{name}: scales that float16 does not hold exactly", hint="round it with a pass (rtn)")
        details = schema.BlockwiseQuantizationT()
        details.scales = self.constant(f"{name}.blocks", halves).index
        details.zeroPoints, details.blockSize = -1, grid.block
        made = schema.QuantizationParametersT()
        made.detailsType, made.details = schema.QuantizationDetails.BlockwiseQuantization, details
        return made

    def _subgraph(self) -> Any:
        made = schema.SubGraphT()
        made.name, made.tensors, made.operators = b"decode", self.tensors, self._operators
        made.inputs = np.array([value.index for value in self.inputs], np.int32)
        made.outputs = np.array([value.index for value in self.outputs], np.int32)
        return made


def _code(name: str) -> Any:
    made = schema.OperatorCodeT()
    if name == DECODE:
        made.customCode = name.encode()
    made.builtinCode = getattr(schema.BuiltinOperator, "CUSTOM" if name == DECODE else name)
    made.deprecatedBuiltinCode = min(made.builtinCode, 127)  # codes above a byte are only in the new field
    made.version = 1
    return made


def _buffer(builder: flatbuffers.Builder, content: np.ndarray | None) -> int:
    data = None
    if content is not None and content.nbytes:
        builder.StartVector(1, content.nbytes, ALIGNMENT)
        head = builder.head - content.nbytes
        builder.Bytes[head : head + content.nbytes] = content.data
        builder.head = head
        data = builder.EndVector()
    schema.BufferStart(builder)
    if data is not None:
        schema.BufferAddData(builder, data)
    found: int = schema.BufferEnd(builder)
    return found


def _vector(builder: flatbuffers.Builder, start: Callable[[Any, int], Any], offsets: Sequence[int]) -> int:
    start(builder, len(offsets))
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    found: int = builder.EndVector()
    return found
