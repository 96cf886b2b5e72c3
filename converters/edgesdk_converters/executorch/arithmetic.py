"""The arithmetic of encoders as nodes of one XNNPACK subgraph.

Implements :class:`edgesdk.model.encoders.network.Arithmetic` over values [1, positions, size]; the number of positions
follows the text, so there is no padding and no mask for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch

from edgesdk.model.tensors import QuantizedTensor
from edgesdk.model.weights import dense

from .blocks import activated
from .packing import pack_filter
from .subgraph import Subgraph, Value

if TYPE_CHECKING:
    from edgesdk.model import Weights
    from edgesdk.model.encoder_spec import EncoderAttention, Normalization
    from edgesdk.model.spec import Activation


class XnnArithmetic:
    """Operations of one subgraph over a model's weights."""

    def __init__(self, graph: Subgraph, weights: Weights, names: Sequence[str]) -> None:
        self.graph, self._weights, self._names = graph, weights, frozenset(names)

    def weight(self, name: str) -> Value:
        """A weight as a float constant."""
        return self.graph.constant(name, dense(self._weights.get(name)))

    def linear(self, x: Value, name: str) -> Value:
        weight, bias = self._weights.get(f"{name}.weight"), None
        if f"{name}.bias" in self._names:
            bias = dense(self._weights.get(f"{name}.bias"))
        if isinstance(weight, QuantizedTensor):
            return self.graph.linear(self.graph.quantize(x), name, pack_filter(name, weight), bias)
        return self.graph.linear(x, name, dense(weight), bias)

    def linears(self, x: Value, prefix: str, names: Sequence[str]) -> list[Value]:
        return [self.linear(x, prefix + name) for name in names]  # the input is rounded once all the same

    def add(self, first: Value, second: Value) -> Value:
        return self.graph.add(first, second)

    def multiply(self, first: Value, second: Value) -> Value:
        return self.graph.multiply(first, second)

    def activate(self, x: Value, kind: Activation | Literal["tanh"]) -> Value:
        return self.graph.unary("XNNTanh", x) if kind == "tanh" else activated(self.graph, x, kind)

    def norm(self, x: Value, name: str, norm: Normalization) -> Value:
        """XNNPACK has no mean over the last axis: it is a product with one row."""
        graph = self.graph
        if norm.kind == "layer":
            x = graph.binary("XNNSubtract", x, self.mean(x, 0.0))
        if norm.kind != "affine":
            x = graph.multiply(x, self.reciprocal_root(self.mean(graph.unary("XNNSquare", x), norm.eps)))
        x = graph.multiply(x, self.weight(f"{name}.weight"))
        return graph.add(x, self.weight(f"{name}.bias")) if f"{name}.bias" in self._names else x

    def norm_of_sum(self, x: Value, added: Value, name: str, norm: Normalization) -> tuple[Value, Value]:
        total = self.add(x, added)
        return self.norm(total, name, norm), total

    def attend(self, q: Value, k: Value, v: Value, attention: EncoderAttention) -> Value:
        """Attention over everything; see :meth:`attended`."""
        return self.attended(q, k, v, attention, None, None)

    def attended(
        self,
        q: Value,
        k: Value,
        v: Value,
        attention: EncoderAttention,
        bias: Value | None,
        tables: tuple[Value, Value] | None,
    ) -> Value:
        """Attention of q to k and v; ``bias`` is added to the scores, ``tables`` turn queries and keys."""
        graph = self.graph
        q, k, v = (self._split(x, attention) for x in (q, k, v))
        if tables is not None:
            q, k = (_rotated(graph, x, tables) for x in (q, k))
        q = graph.transpose(q, (0, 2, 1, 3))
        if attention.scale != 1.0:
            q = graph.multiply(q, graph.scalar(attention.scale))
        scores = graph.matmul(q, graph.transpose(k, (0, 2, 3, 1)))
        if bias is not None:
            scores = graph.add(scores, bias)
        mixed = graph.matmul(graph.unary("XNNSoftmax", scores), graph.transpose(v, (0, 2, 1, 3)))
        flat = graph.transpose(mixed, (0, 2, 1, 3))
        return graph.reshape(flat, (1, 0, attention.size), (1, flat.shape[1], attention.size))

    def mean(self, x: Value, offset: float) -> Value:
        """The mean over the last axis plus a number, [..., 1]."""
        size = x.shape[-1]
        average = torch.full((1, size), 1.0 / size)
        return self.graph.linear(x, f"mean.{size}.{offset!r}", average, torch.tensor([offset]))

    def reciprocal_root(self, x: Value) -> Value:
        return self.graph.unary("XNNReciprocalSquareRoot", x)

    def _split(self, flat: Value, attention: EncoderAttention) -> Value:
        """[1, positions, heads * head_dim] as [1, positions, heads, head_dim]."""
        heads, head_dim = attention.heads, attention.head_dim
        return self.graph.reshape(flat, (1, 0, heads, head_dim), (1, flat.shape[1], heads, head_dim))


def _rotated(graph: Subgraph, x: Value, tables: tuple[Value, Value]) -> Value:
    """Rotary embedding of [1, positions, heads, head_dim] by tables [positions, 1, head_dim]."""
    half = x.shape[3] // 2
    turned = graph.concatenate(graph.part(x, 3, half, half), graph.part(x, 3, 0, half), 3)
    return graph.add(graph.multiply(x, tables[0]), graph.multiply(turned, tables[1]))
