"""Writes one XNNPACK subgraph: the graph that a delegate of the program runs.

Nodes are added in order of execution; shapes are upper bounds, and XNNPACK follows the real sizes of the inputs at run
time. Constants are named, and live once in the program's data; see :mod:`.program`.
Source: the serialization schema and XNNCompiler.cpp of ExecuTorch 1.5, xnnpack.h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

#: Endings of the names of a matrix's data.
WEIGHT, VALUES, SCALES = ".weight", ".values", ".scales"
_INTERNAL = (1 << 32) - 1  # XNN_INVALID_VALUE_ID
_NAMED = (1 << 64) - 1  # an offset that says: look the name up
_INPUT, _OUTPUT = 1, 2  # XNN_VALUE_FLAG_EXTERNAL_INPUT, _OUTPUT
_FLOATS = {torch.float32: "xnn_datatype_fp32", torch.float16: "xnn_datatype_fp16"}


class Constants(Protocol):
    """Where constants go."""

    def add(self, name: str, tensor: torch.Tensor) -> int:
        """Store a tensor under a name, once; return its bytes."""


@dataclass(frozen=True)
class Value:
    """A value of a subgraph; ``shape`` is its upper bound, ``dtype`` the type that it computes in."""

    id: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class PackedFilter:
    """Weights of a fully connected node as XNNPACK reads them.

    Attributes:
        values: [out, in], int8; or uint8 [out, in / 2], value + 8 in each half, the first in the low one.
        scales: bfloat16 [out, in / group], or float32 [out] for one scale a row; all positive.
        bits: 4 or 8.
        inputs: length of a row.
        group: inputs that share a scale.
    """

    values: torch.Tensor
    scales: torch.Tensor
    bits: int
    inputs: int
    group: int


class Subgraph:
    """One subgraph over values of one float type, or of a wider one where :meth:`cast` says so."""

    def __init__(self, constants: Constants, float_type: torch.dtype) -> None:
        self._constants, self.float_type = constants, float_type
        self._nodes: list[Any] = []
        self._values: list[Any] = []
        self._data: list[dict[str, Any]] = [{}]  # number 0 means: not a constant
        self._inputs: list[int] = []
        self._outputs: list[int] = []
        self._stored: dict[str, Value] = {}
        self._rounded: dict[int, Value] = {}

    def input(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Value:
        """An argument of the delegate; arguments come first, in this order."""
        value = self._float(shape, dtype or self.float_type, external=len(self._inputs), flags=_INPUT)
        self._inputs.append(value.id)
        return value

    def output(self, value: Value) -> None:
        """Make a value a result of the delegate; results follow the arguments, in this order."""
        if value.id in self._inputs:
            value = self.unary("XNNCopy", value)
        described = self._values[value.id]["xvalue_union"]
        described["external_id"] = len(self._inputs) + len(self._outputs)
        described["flags"] = _OUTPUT
        self._outputs.append(value.id)

    def constant(self, name: str, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> Value:
        """A float tensor, stored under ``name``; a name has one type in all subgraphs."""
        if name not in self._stored:
            stored = tensor.to(dtype or self.float_type).contiguous()
            self._stored[name] = self._float(tuple(stored.shape), stored.dtype, buffer=self._buffer(name, stored))
        return self._stored[name]

    def scalar(self, number: float, dtype: torch.dtype | None = None) -> Value:
        """A constant with one element."""
        kind = str(dtype or self.float_type).removeprefix("torch.")
        return self.constant(f"scalar.{number!r}.{kind}", torch.tensor([number]), dtype)

    def binary(self, kind: str, first: Value, second: Value) -> Value:
        """An elementwise node of two values, which broadcast."""
        result = self._float(np.broadcast_shapes(first.shape, second.shape), first.dtype)
        self._node(kind, {"input1_id": first.id, "input2_id": second.id, "output_id": result.id})
        return result

    def add(self, first: Value, second: Value) -> Value:
        return self.binary("XNNAdd", first, second)

    def subtract(self, first: Value, second: Value) -> Value:
        return self.binary("XNNSubtract", first, second)

    def multiply(self, first: Value, second: Value) -> Value:
        return self.binary("XNNMultiply", first, second)

    def unary(self, kind: str, value: Value, limits: tuple[float, float] | None = None) -> Value:
        """An elementwise node of one value; ``limits`` clamp what it gives."""
        result = self._float(value.shape, value.dtype)
        self._node(kind, {"input_id": value.id, "output_id": result.id}, limits)
        return result

    def cast(self, value: Value, dtype: torch.dtype) -> Value:
        """The value in another float type."""
        if value.dtype == dtype:
            return value
        result = self._float(value.shape, dtype)
        self._node("XNNConvert", {"input_id": value.id, "output_id": result.id})
        return result

    def relu(self, value: Value) -> Value:
        return self.unary("XNNClamp", value, (0.0, float("inf")))

    def average(self, value: Value) -> Value:
        """The mean over both middle axes of [n, height, width, channels], each of length 1 then."""
        result = self._float((value.shape[0], 1, 1, value.shape[3]), value.dtype)
        self._node("XNNGlobalAvgPooling2d", {"input_id": value.id, "output_id": result.id})
        return result

    def reshape(self, value: Value, shape: Sequence[int], bound: Sequence[int]) -> Value:
        """``shape`` with 0 for the one length that follows from the input; ``bound`` is its upper bound."""
        result = self._float(bound, value.dtype)
        self._node(
            "XNNStaticReshape",
            {"num_dims": len(shape), "new_shape": list(shape), "input_id": value.id, "output_id": result.id},
        )
        return result

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        result = self._float([value.shape[axis] for axis in order], value.dtype)
        ids = {"input_id": value.id, "output_id": result.id}
        self._node("XNNStaticTranspose", {"num_dims": len(order), "perm": list(order), **ids})
        return result

    def matmul(self, first: Value, second: Value) -> Value:
        """[batch, n, k] times [batch, k, m]."""
        result = self._float((*first.shape[:-1], second.shape[-1]), first.dtype)
        self._node("XNNBatchMatrixMultiply", {"input1_id": first.id, "input2_id": second.id, "output_id": result.id})
        return result

    def part(self, value: Value, axis: int, start: int, length: int) -> Value:
        """``length`` entries of an axis, from ``start``; the other axes whole."""
        offsets, sizes, shape = [0] * len(value.shape), [0] * len(value.shape), list(value.shape)
        offsets[axis], sizes[axis], shape[axis] = start, length, length
        result = self._float(shape, value.dtype)
        ids = {"input_id": value.id, "output_id": result.id}
        self._node("XNNStaticSlice", {"num_dims": len(shape), "offsets": offsets, "sizes": sizes, **ids})
        return result

    def split(self, value: Value, sizes: Sequence[int]) -> list[Value]:
        """Parts of the last axis."""
        return [self.part(value, len(value.shape) - 1, sum(sizes[:index]), size) for index, size in enumerate(sizes)]

    def concatenate(self, first: Value, second: Value, axis: int) -> Value:
        shape = list(first.shape)
        shape[axis] += second.shape[axis]
        result = self._float(shape, first.dtype)
        self._node(
            "XNNConcatenate2", {"axis": axis, "input1_id": first.id, "input2_id": second.id, "output_id": result.id}
        )
        return result

    def pad(self, value: Value, around: Sequence[tuple[int, int]]) -> Value:
        """Zeros before and after the entries of each axis."""
        before, after = ([pair[side] for pair in around] for side in (0, 1))
        result = self._float([sum(sizes) for sizes in zip(value.shape, before, after, strict=True)], value.dtype)
        paddings = {"pre_paddings": before, "post_paddings": after, "padding_value": 0.0}
        self._node("XNNStaticConstantPad", {**paddings, "input_id": value.id, "output_id": result.id})
        return result

    def quantize(self, value: Value) -> Value:
        """Round to int8 with a scale and zero point for each token, as packed weights take."""
        if value.id not in self._rounded:
            params = ("PerTokenDynamicQuant", {"num_nonbatch_dims": 1})
            dynamic = self._define("xnn_datatype_qdint8", value.shape, value.dtype, params=params)
            self._node("XNNConvert", {"input_id": value.id, "output_id": dynamic.id})
            self._rounded[value.id] = dynamic
        return self._rounded[value.id]

    def linear(self, value: Value, name: str, weight: torch.Tensor | PackedFilter, bias: torch.Tensor | None) -> Value:
        """A fully connected node; packed weights take a :meth:`quantize`-d value."""
        if isinstance(weight, PackedFilter):
            rows, matrix, added = weight.values.shape[0], self._packed(name, weight), torch.float32
        else:
            rows, matrix, added = weight.shape[0], self.constant(name + WEIGHT, weight, value.dtype), value.dtype
        offset = _INTERNAL if bias is None else self._bias(f"{name}.bias", bias, added).id
        result = self._float((*value.shape[:-1], rows), value.dtype)
        ids = {"input1_id": value.id, "filter_id": matrix.id, "bias_id": offset, "output_id": result.id}
        self._node("XNNFullyConnected", ids)
        return result

    def depthwise(self, value: Value, name: str, weight: torch.Tensor, bias: torch.Tensor | None) -> Value:
        """Each channel of [1, n, 1, channels] with its row of ``weight`` [channels, k]: [1, n - k + 1, 1, channels]."""
        channels, size = weight.shape
        taps = self.constant(name + WEIGHT, weight.t().reshape(1, size, 1, channels), value.dtype)
        offset = _INTERNAL if bias is None else self._bias(f"{name}.bias", bias, value.dtype).id
        result = self._float((1, value.shape[1] - size + 1, 1, channels), value.dtype)
        window = {"kernel_height": size, "kernel_width": 1, "groups": channels}
        window |= dict.fromkeys(("subsampling_height", "subsampling_width", "dilation_height", "dilation_width"), 1)
        window |= dict.fromkeys(("group_input_channels", "group_output_channels"), 1)
        ids = {"input1_id": value.id, "filter_id": taps.id, "bias_id": offset, "output_id": result.id}
        self._node("XNNDepthwiseConv2d", window | ids)
        return result

    def document(self) -> dict[str, Any]:
        """The subgraph as a document of the delegate's schema."""
        return {
            "version": "0",
            "xnodes": self._nodes,
            "xvalues": self._values,
            "num_externs": len(self._inputs) + len(self._outputs),
            "input_ids": self._inputs,
            "output_ids": self._outputs,
            "constant_data": self._data,
        }

    def _packed(self, name: str, weight: PackedFilter) -> Value:
        rows = weight.values.shape[0]
        values = self._buffer(name + VALUES, weight.values)
        scales, count = self._buffer(name + SCALES, weight.scales), weight.scales.numel()
        shared = {"channel_dim": 0, "scale_buffer_idx": scales, "num_scales": count}
        if weight.group == weight.inputs:
            kind, params = f"xnn_datatype_qcint{weight.bits}", ("PerChannelQuant", shared)
        else:
            kind, params = "xnn_datatype_qbint4", ("PerChannelGroupQuant", {**shared, "group_size": weight.group})
        return self._define(kind, (rows, weight.inputs), self.float_type, buffer=values, params=params)

    def _bias(self, name: str, bias: torch.Tensor, dtype: torch.dtype) -> Value:
        """Nodes with packed weights add a float32 bias whatever the float type."""
        stored = bias.to(dtype).contiguous()
        return self._float(tuple(stored.shape), dtype, buffer=self._buffer(name, stored))

    def _buffer(self, name: str, tensor: torch.Tensor) -> int:
        size = self._constants.add(name, tensor)
        self._data.append({"offset": _NAMED, "size": size, "named_key": name})
        return len(self._data) - 1

    def _float(
        self, shape: Sequence[int], dtype: torch.dtype, external: int = _INTERNAL, flags: int = 0, buffer: int = 0
    ) -> Value:
        return self._define(_FLOATS[dtype], shape, dtype, external, flags, buffer)

    def _define(
        self,
        kind: str,
        shape: Sequence[int],
        dtype: torch.dtype,
        external: int = _INTERNAL,
        flags: int = 0,
        buffer: int = 0,
        params: tuple[str, dict[str, Any]] | None = None,
    ) -> Value:
        value = Value(len(self._values), tuple(shape), dtype)
        described: dict[str, Any] = {
            "datatype": kind,
            "num_dims": len(shape),
            "dims": list(shape),
            "constant_buffer_idx": buffer,
            "external_id": external,
            "flags": flags,
            "id_out": value.id,
        }
        union = "XNNTensorValue"
        if params is not None:
            union = "XNNQuantizedTensorValue"
            described = {"tensor_value": described, "quant_params_type": params[0], "quant_params": params[1]}
        self._values.append({"xvalue_union_type": union, "xvalue_union": described})
        return value

    def _node(self, kind: str, fields: dict[str, Any], limits: tuple[float, float] | None = None) -> None:
        node = {"xnode_union_type": kind, "xnode_union": fields, "debug_handle": len(self._nodes)}
        if limits is not None:
            low, high = limits
            node["output_min_max"] = {"output_min": _number(low), "output_max": _number(high)}
        self._nodes.append(node)


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)  # the flatbuffer compiler's spelling
