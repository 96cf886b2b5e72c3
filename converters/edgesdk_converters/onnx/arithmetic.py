"""The arithmetic of encoders in ONNX: each operation as the fastest construct that ONNX Runtime's CPU kernels have.

Implements :class:`edgesdk.model.encoders.network.Arithmetic` over values of a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir
import torch

from edgesdk.model.encoders.reference import HIDDEN
from edgesdk.model.rope import rotary_tables
from edgesdk.model.weights import dense, stack_rows, stackable

from .blocks import activated
from .builder import CONTRIB, GraphBuilder
from .linear import Activations, linear

if TYPE_CHECKING:
    from edgesdk.model import Weights
    from edgesdk.model.encoder_spec import EncoderAttention, Normalization
    from edgesdk.model.spec import Activation, Rope
    from edgesdk.model.weights import Stored

OPSET = 21


class OnnxArithmetic:
    """Operations over values [batch, positions, size] of one graph."""

    def __init__(self, builder: GraphBuilder, weights: Weights, names: Sequence[str], activations: Activations) -> None:
        self.builder, self._weights, self._names = builder, weights, frozenset(names)
        self._activations = activations
        self._count = 0

    def stored(self, name: str) -> Stored:
        """A weight as the model has it."""
        return self._weights.get(name)

    def floats(self, name: str) -> ir.Value:
        """A weight in the program's float type."""
        return self.builder.floats(name, dense(self._weights.get(name)))

    def linear(self, x: ir.Value, name: str) -> ir.Value:
        return linear(
            self.builder, x, name, self._weights.get(f"{name}.weight"), self._activations, self._bias(f"{name}.bias")
        )

    def linears(self, x: ir.Value, prefix: str, names: Sequence[str]) -> list[ir.Value]:
        """One stacked product where the grids agree: the input is rounded once."""
        weights = [self._weights.get(f"{prefix}{name}.weight") for name in names]
        biases = [self._bias(f"{prefix}{name}.bias") for name in names]
        if not stackable(weights):
            return [self.linear(x, prefix + name) for name in names]
        present = [bias for bias in biases if bias is not None]
        label = prefix + "".join(names)
        bias = torch.cat(present) if present else None
        joined = linear(self.builder, x, label, stack_rows(weights), self._activations, bias)
        sizes = self.builder.constant(f"{label}.sizes", [weight.shape[0] for weight in weights])
        return list(self.builder.multi("Split", [joined, sizes], f"{label}.part", outputs=len(names), axis=-1))

    def add(self, first: ir.Value, second: ir.Value) -> ir.Value:
        return self.op("Add", [first, second])

    def multiply(self, first: ir.Value, second: ir.Value) -> ir.Value:
        return self.op("Mul", [first, second])

    def activate(self, x: ir.Value, kind: Activation | Literal["tanh"]) -> ir.Value:
        if kind == "tanh":
            return self.op("Tanh", [x])
        return activated(self.builder, self.label(kind), x, kind)

    def norm(self, x: ir.Value, name: str, norm: Normalization) -> ir.Value:
        weight, bias = self._norm_weights(name)
        if norm.kind == "layer":
            return self.op("LayerNormalization", [x, weight, bias], epsilon=norm.eps, axis=-1)
        if norm.kind == "rms":
            return self.op("SimplifiedLayerNormalization", [x, weight], epsilon=norm.eps, axis=-1, stash_type=1)
        scaled = self.multiply(x, weight)
        return scaled if bias is None else self.add(scaled, bias)

    def norm_of_sum(self, x: ir.Value, added: ir.Value, name: str, norm: Normalization) -> tuple[ir.Value, ir.Value]:
        if norm.kind == "affine":
            total = self.add(x, added)
            return self.norm(total, name, norm), total
        weight, bias = self._norm_weights(name)
        kind = "SkipLayerNormalization" if norm.kind == "layer" else "SkipSimplifiedLayerNormalization"
        inputs = [x, added, weight, bias] if norm.kind == "layer" else [x, added, weight]
        normed, _, _, total = self.builder.multi(
            kind, inputs, self.label(kind), domain=CONTRIB, outputs=4, epsilon=norm.eps
        )
        return normed, total

    def attend(self, q: ir.Value, k: ir.Value, v: ir.Value, attention: EncoderAttention) -> ir.Value:
        """Attention over everything; :meth:`attended` takes masks."""
        return self.attended(q, k, v, attention, None, None)

    def attended(
        self,
        q: ir.Value,
        k: ir.Value,
        v: ir.Value,
        attention: EncoderAttention,
        mask: ir.Value | None,
        bias: ir.Value | None,
    ) -> ir.Value:
        """Attention; ``mask`` is int32 [batch, positions], ``bias`` is added to the scores."""
        return self.op(
            "MultiHeadAttention",
            [q, k, v, None, mask, bias],
            domain=CONTRIB,
            num_heads=attention.heads,
            scale=attention.scale,
            mask_filter_value=HIDDEN,
        )

    def rotated(self, x: ir.Value, rope: Rope, head_dim: int, positions: int, first: ir.Value) -> ir.Value:
        """Rotary embedding of heads side by side, whose first position is ``first`` (int64 [1])."""
        name = f"rope.{rope.theta:g}.{head_dim}"
        tables = zip(("cos", "sin"), rotary_tables(rope, head_dim, positions), strict=True)
        cos, sin = (self.builder.floats(f"{name}.{kind}", table) for kind, table in tables)
        return self.op("RotaryEmbedding", [x, first, cos, sin], domain=CONTRIB)

    def op(self, kind: str, inputs: Sequence[ir.Value | None], **more: object) -> ir.Value:
        """A node with one output, under a name of its own."""
        return self.builder.op(kind, inputs, self.label(kind), **more)

    def label(self, kind: str) -> str:
        """A new name for a node."""
        self._count += 1
        return f"{kind.lower()}.{self._count}"

    def length(self, x: ir.Value, axis: int) -> ir.Value:
        """The length of an axis, int64 [1]."""
        return self.op("Shape", [x], start=axis, end=axis + 1)

    def positions(self, count: ir.Value, first: ir.Value | None = None) -> ir.Value:
        """Numbers of ``count`` positions, int64 [count], from ``first`` on (both int64 [1])."""
        b = self.builder
        zero, one = b.constant("number.zero", 0), b.constant("number.one", 1)
        numbers = self.op("Range", [zero, self.op("Squeeze", [count]), one])
        return numbers if first is None else self.op("Add", [numbers, first])

    def slice(self, x: ir.Value, start: ir.Value, end: ir.Value, axis: int) -> ir.Value:
        return self.op("Slice", [x, start, end, self.builder.constant(f"axis.{axis}", [axis])])

    def cached(self, cache: dict[object, ir.Value], key: object, make: Callable[[], ir.Value]) -> ir.Value:
        """A value that several layers use, made once."""
        if key not in cache:
            cache[key] = make()
        return cache[key]

    def _norm_weights(self, name: str) -> tuple[ir.Value, ir.Value | None]:
        return self.floats(f"{name}.weight"), self.floats(f"{name}.bias") if f"{name}.bias" in self._names else None

    def _bias(self, name: str) -> torch.Tensor | None:
        return dense(self._weights.get(name)) if name in self._names else None
