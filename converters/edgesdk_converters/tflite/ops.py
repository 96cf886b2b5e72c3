"""The operators that a decoder needs, as functions from tensors to tensors; shapes are checked by what they compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .decode import OPERATOR as DECODE
from .decode import ancillary, packed
from .graph import Graph, Grid, Value


class Ops:
    """Appends operators to a graph. Names of results must be unique; ranges are measured by them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._table: Value | None = None

    def floats(self, name: str, values: Any) -> Value:
        """A float constant of rank 1 or more."""
        return self.graph.constant(name, np.atleast_1d(np.asarray(values, np.float32)))

    def integers(self, name: str, values: Any) -> Value:
        """An int32 constant of rank 1 or more."""
        return self.graph.constant(name, np.atleast_1d(np.asarray(values, np.int32)))

    def add(self, a: Value, b: Value, name: str) -> Value:
        return self._pair("ADD", a, b, name, schema.AddOptionsT())

    def subtract(self, a: Value, b: Value, name: str) -> Value:
        return self._pair("SUB", a, b, name, schema.SubOptionsT())

    def multiply(self, a: Value, b: Value, name: str) -> Value:
        return self._pair("MUL", a, b, name, schema.MulOptionsT())

    def less(self, a: Value, b: Value, name: str) -> Value:
        return self._pair("LESS", a, b, name, schema.LessOptionsT(), "BOOL")

    def greater(self, a: Value, b: Value, name: str) -> Value:
        return self._pair("GREATER", a, b, name, schema.GreaterOptionsT(), "BOOL")

    def both(self, a: Value, b: Value, name: str) -> Value:
        return self._pair("LOGICAL_AND", a, b, name, schema.LogicalAndOptionsT())

    def unary(self, code: str, x: Value, name: str, options: Any = None) -> Value:
        """An operator from one tensor to one of the same shape and type: LOGISTIC, TANH, RSQRT, RELU, GELU."""
        return self._result(code, [x], name, x.shape, x.kind, None, options)

    def mean(self, x: Value, name: str) -> Value:
        """Mean over the last axis, which stays with length 1."""
        options = schema.ReducerOptionsT()
        options.keepDims = True
        axis = self.integers("axis.last", [len(x.shape) - 1])
        return self._result("MEAN", [x, axis], name, (*x.shape[:-1], 1), x.kind, None, options)

    def lookup(self, ids: Value, table: Value, name: str) -> Value:
        """Float rows ``ids`` [n] of a table [rows, width]; an int8 table is multiplied by its one scale."""
        return self._result("EMBEDDING_LOOKUP", [ids, table], name, (ids.shape[0], table.shape[1]), "FLOAT32", None)

    def reshape(self, x: Value, shape: Sequence[int], name: str) -> Value:
        options = schema.ReshapeOptionsT()
        options.newShape = np.array(shape, np.int32)
        wanted = self.integers(f"shape.{'x'.join(map(str, shape))}", shape)
        return self._result("RESHAPE", [x, wanted], name, shape, x.kind, x.grid, options)

    def slice(self, x: Value, axis: int, start: int, count: int, name: str) -> Value:
        begin, size = [0] * len(x.shape), list(x.shape)
        begin[axis], size[axis] = start, count
        bounds = [self.integers(f"{name}.begin", begin), self.integers(f"{name}.size", size)]
        return self._result("SLICE", [x, *bounds], name, size, x.kind, x.grid, schema.SliceOptionsT())

    def concat(self, parts: Sequence[Value], axis: int, name: str) -> Value:
        """Parts one after the other; they share a type and a quantization."""
        options = schema.ConcatenationOptionsT()
        options.axis = axis
        shape = list(parts[0].shape)
        shape[axis] = sum(part.shape[axis] for part in parts)
        return self._result("CONCATENATION", parts, name, shape, parts[0].kind, parts[0].grid, options)

    def select(self, condition: Value, yes: Value, no: Value, name: str) -> Value:
        """``yes`` where the condition holds, ``no`` elsewhere; the result has the quantization of ``yes``."""
        return self._result(
            "SELECT_V2", [condition, yes, no], name, condition.shape, yes.kind, yes.grid, schema.SelectV2OptionsT()
        )

    def softmax(self, x: Value, name: str, grid: Grid | None) -> Value:
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        return self._result("SOFTMAX", [x], name, x.shape, x.kind, grid, options)

    def fully_connected(self, x: Value, weight: Value, name: str, grid: Grid | None = None) -> Value:
        """``x @ weight.T``: x is [rows, in], weight [out, in]."""
        shape = (*x.shape[:-1], weight.shape[0])
        return self._result(
            "FULLY_CONNECTED", [x, weight, None], name, shape, x.kind, grid, schema.FullyConnectedOptionsT()
        )

    def decode(self, values: np.ndarray, name: str, grid: Grid) -> Value:
        """Integers of 4 bits, in the file as such, decoded to int8; only the next operator may read them."""
        data = self.graph.constant(f"{name}.indices", packed(values))
        if self._table is None:
            self._table = self.graph.constant("decode.table", ancillary())
        return self._result(DECODE, [data, self._table], name, values.shape, "INT8", grid)

    def batch_matmul(self, a: Value, b: Value, name: str, grid: Grid | None = None) -> Value:
        """``a @ b^T`` for every index of the first axis: a is [n, rows, in], b [n, out, in]."""
        options = schema.BatchMatMulOptionsT()
        options.adjY = True  # a b that is not transposed costs TFLM a permanent copy of it
        return self._result("BATCH_MATMUL", [a, b], name, (*a.shape[:-1], b.shape[1]), a.kind, grid, options)

    def quantize(self, x: Value, kind: str, name: str, grid: Grid) -> Value:
        return self._result("QUANTIZE", [x], name, x.shape, kind, grid, schema.QuantizeOptionsT())

    def dequantize(self, x: Value, name: str) -> Value:
        return self._result("DEQUANTIZE", [x], name, x.shape, "FLOAT32", None, schema.DequantizeOptionsT())

    def _pair(self, code: str, a: Value, b: Value, name: str, options: Any, kind: str | None = None) -> Value:
        shape = np.broadcast_shapes(a.shape, b.shape)
        return self._result(code, [a, b], name, shape, kind or a.kind, None, options)

    def _result(
        self,
        code: str,
        inputs: Sequence[Value | None],
        name: str,
        shape: Sequence[int],
        kind: str,
        grid: Grid | None,
        options: Any = None,
    ) -> Value:
        assert math.prod(shape) > 0, name
        made = self.graph.tensor(name, shape, kind, grid)
        self.graph.op(code, inputs, [made], options)
        return made
