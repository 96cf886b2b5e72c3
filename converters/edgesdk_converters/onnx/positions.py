"""Where tokens stand: lengths from the attention mask, rotary tables, ALiBi's biases; nodes are added at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import torch

from edgesdk.model.rope import rotary_tables

from .builder import GraphBuilder, onnx_type

if TYPE_CHECKING:
    from edgesdk.model import DecoderSpec
    from edgesdk.model.spec import Attention


class Positions:
    """Positions of one step, for all layers of a graph.

    Attributes:
        seqlens: index of each sequence's last token, int32 [batch].
        total: tokens that the caches hold behind the step, an int32 scalar.
    """

    def __init__(self, builder: GraphBuilder, spec: DecoderSpec, context: int, ids: ir.Value, mask: ir.Value) -> None:
        self._b, self._spec, self._context, self._ids = builder, spec, context, ids
        b = builder
        valid = b.op("ReduceSum", [mask, b.constant("mask.axis", [1])], "mask.valid", keepdims=0)
        last = b.op("Sub", [valid, b.constant("mask.one", [1])], "mask.last")
        self.seqlens = b.op("Cast", [last], "mask.seqlens_k", to=int(ir.DataType.INT32))
        shape = b.op("Shape", [mask], "mask.shape", start=1, end=2)
        self._length = b.op("Squeeze", [shape], "mask.total")
        self.total = b.op("Cast", [self._length], "mask.total_length", to=int(ir.DataType.INT32))

    @property
    def new(self) -> ir.Value:
        """Positions of the step's tokens, int64 [sequence]."""
        b = self._b
        count = b.shared("Squeeze", [b.shared("Shape", [self._ids], "ids.shape", start=1, end=2)], "ids.count")
        start = b.shared("Sub", [self._length, count], "positions.start")
        return b.shared("Range", [start, self._length, b.constant("positions.step", 1)], "positions.new")

    def rotary(self, attention: Attention) -> list[ir.Value | None]:
        """Cosines and sines [context, head_dim / 2], or nothing where no position turns."""
        if attention.rope is None:
            return [None, None]
        index = self._spec.rope_index(attention)
        name, (rope, head_dim) = f"rope.{index}", self._spec.ropes[index]
        cos, sin = rotary_tables(rope, head_dim, self._context)
        return [self._b.floats(f"{name}.cos", cos), self._b.floats(f"{name}.sin", sin)]

    def biases(self, attention: Attention) -> ir.Value | None:
        """ALiBi's biases [1, heads, sequence, total], or None.

        Only the key's position matters: softmax does not see what all keys of a query have in common.
        """
        if attention.alibi is None:
            return None
        b, name = self._b, f"alibi.{attention.heads}.{attention.alibi:g}"
        slopes = b.floats(f"{name}.slopes", torch.tensor(attention.slopes).view(1, -1, 1, 1))
        zero, one = b.constant("positions.zero", 0), b.constant("positions.step", 1)
        keys = b.shared("Range", [zero, self._length, one], "positions.keys")
        floats = b.shared("Cast", [keys], "positions.floats", to=int(onnx_type(b.dtype)))
        row = b.shared("Mul", [slopes, floats], f"{name}.row")
        ones = b.constant("positions.ones", [1, 1])
        rows = b.shared("Shape", [self._ids], "ids.shape", start=1, end=2)
        shape = b.shared("Concat", [ones, rows, b.constant("positions.last", [1])], "alibi.shape", axis=0)
        return b.shared("Expand", [row, shape], f"{name}.biases")
