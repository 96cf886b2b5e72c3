"""Blocks of a layer as nodes of a subgraph: norms, matrices of the model, dense feed-forward blocks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from edgesdk.model.tensors import QuantizedTensor
from edgesdk.model.weights import dense

from .packing import pack_filter
from .subgraph import Subgraph, Value

if TYPE_CHECKING:
    from edgesdk.model import Model
    from edgesdk.model.spec import Activation, Mlp
    from edgesdk.model.weights import Stored

_GELU = 2 * math.sqrt(2 / math.pi)


class Blocks:
    """Adds blocks of one model to subgraphs; constants are named after the model's tensors."""

    def __init__(self, model: Model, float_type: torch.dtype) -> None:
        self.model, self.float_type = model, float_type
        self._tensors = model.spec.tensors()

    def stored(self, name: str) -> Stored:
        """A tensor of the model as it is stored."""
        return self.model.weights.get(name)

    def vector(self, name: str) -> torch.Tensor:
        """A tensor of the model in float."""
        return dense(self.stored(name))

    def optional(self, name: str) -> torch.Tensor | None:
        """As :meth:`vector`, or None where the model has no such tensor."""
        return self.vector(name) if name in self._tensors else None

    def linear(self, graph: Subgraph, x: Value, name: str) -> Value:
        """The product of ``x`` with one matrix of the model, its bias added."""
        return self.product(graph, x, name, self.stored(f"{name}.weight"), self.optional(f"{name}.bias"))

    def product(self, graph: Subgraph, x: Value, name: str, weight: Stored, bias: torch.Tensor | None) -> Value:
        """The same for a matrix that is given."""
        if isinstance(weight, QuantizedTensor):
            return graph.linear(graph.quantize(x), name, pack_filter(name, weight), bias)
        return graph.linear(x, name, dense(weight, self.float_type), bias)

    def raised(self, graph: Subgraph, product: Value, low: Value, name: str) -> Value:
        """A product with what two thin matrices beside its own add; ``low`` is what the first of them gives."""
        return graph.add(product, self.linear(graph, low, f"{name}_high"))

    def wide_linear(self, graph: Subgraph, x: Value, name: str) -> Value:
        """The product with a small matrix that stays in float, in float32."""
        return graph.linear(graph.cast(x, torch.float32), name, self.vector(f"{name}.weight"), None)

    def norm(self, graph: Subgraph, x: Value, name: str) -> Value:
        """The model's kind of norm, over the last axis; in float32, as squares of half floats overflow beyond 256."""
        bias = self.optional(f"{name}.bias")
        if bias is None:
            return self.rms_norm(graph, x, name)
        wide = graph.cast(x, torch.float32)
        normed = self._scaled(graph, graph.subtract(wide, _mean(graph, wide, 0.0)), name)
        return graph.cast(graph.add(normed, graph.constant(f"{name}.bias", bias, torch.float32)), self.float_type)

    def rms_norm(self, graph: Subgraph, x: Value, name: str, eps: float | None = None) -> Value:
        """An RMS norm, over the last axis; where its weight is longer, over each part of the last two.

        With the model's epsilon if none is given.
        """
        return graph.cast(self._scaled(graph, graph.cast(x, torch.float32), name, eps), self.float_type)

    def head_norms(self, graph: Subgraph, x: Value, name: str, part: str) -> Value:
        """A layer norm of its own on each head of [1, tokens, heads, head_dim]."""
        wide = graph.cast(x, torch.float32)
        normed = self._even(graph, graph.subtract(wide, _mean(graph, wide, 0.0)))
        weight, bias = (
            graph.constant(
                f"{name}.{part}_norms.{kind}",
                torch.stack([self.vector(f"{name}.heads.{head}.{part}_norm.{kind}") for head in range(x.shape[2])]),
                torch.float32,
            )
            for kind in ("weight", "bias")
        )
        return graph.cast(graph.add(graph.multiply(normed, weight), bias), self.float_type)

    def mlp(self, graph: Subgraph, x: Value, name: str, mlp: Mlp) -> Value:
        """A dense feed-forward block."""
        products = {
            part: self.linear(graph, x, f"{name}.{part}") for part in (("gate", "up") if mlp.gated else ("up",))
        }
        if mlp.low_rank is not None:
            low = self.linear(graph, x, f"{name}.ffn_low")
            products = {part: self.raised(graph, each, low, f"{name}.{part}") for part, each in products.items()}
        inner = activated(graph, products["gate" if mlp.gated else "up"], mlp.activation)
        if mlp.gated:
            inner = graph.multiply(inner, products["up"])
        if mlp.sub_norm:
            inner = self.norm(graph, inner, f"{name}.down_norm")
        return self.linear(graph, inner, f"{name}.down")

    def _scaled(self, graph: Subgraph, x: Value, name: str, eps: float | None = None) -> Value:
        """``x`` by the root of the mean of its squares, and by the norm's weight."""
        weight = self.vector(f"{name}.weight")
        parts = weight.view(x.shape[-2:]) if weight.numel() > x.shape[-1] else weight
        return graph.multiply(self._even(graph, x, eps), graph.constant(f"{name}.weight", parts, torch.float32))

    def _even(self, graph: Subgraph, x: Value, eps: float | None = None) -> Value:
        """``x`` by the root of the mean of its squares."""
        mean = _mean(graph, graph.unary("XNNSquare", x), self.model.spec.norm_eps if eps is None else eps)
        return graph.multiply(x, graph.unary("XNNReciprocalSquareRoot", mean))


def _mean(graph: Subgraph, x: Value, offset: float) -> Value:
    """The mean over the last axis and an offset; XNNPACK has no mean here, so it is a product with one row."""
    size = x.shape[-1]
    average = torch.full((1, size), 1.0 / size)
    return graph.linear(x, f"mean.{size}.{offset!r}", average, torch.tensor([offset]) if offset else None)


def activated(graph: Subgraph, x: Value, kind: Activation) -> Value:
    """The activation of a feed-forward block."""
    if kind == "silu":
        return graph.multiply(x, graph.unary("XNNSigmoid", x))
    if kind == "relu":
        return graph.relu(x)
    if kind == "relu2":
        return graph.unary("XNNSquare", graph.relu(x))
    if kind == "gelu":
        return graph.unary("XNNGelu", x)
    # The tanh form is x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 * x**3)).
    cubic = graph.multiply(graph.unary("XNNSquare", x), graph.scalar(0.044715 * _GELU))
    inner = graph.multiply(x, graph.add(cubic, graph.scalar(_GELU)))
    return graph.multiply(x, graph.unary("XNNSigmoid", inner))
