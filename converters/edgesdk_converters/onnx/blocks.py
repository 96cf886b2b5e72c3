"""Blocks of a layer as nodes: norms, matrices of the model, feed-forward blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgesdk.model.weights import dense, stack_rows, stackable

from .builder import CONTRIB, GraphBuilder
from .linear import Activations, linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from edgesdk.model import Model
    from edgesdk.model.spec import Activation, Mlp


class Blocks:
    """Adds blocks of one model to a graph; every node is named after the weights that it uses."""

    def __init__(self, builder: GraphBuilder, model: Model, activations: Activations) -> None:
        self.builder, self.model, self.activations = builder, model, activations
        self._tensors = model.spec.tensors()

    def vector(self, name: str) -> torch.Tensor:
        """A tensor of the model in float."""
        return dense(self.model.weights.get(name))

    def optional(self, name: str) -> torch.Tensor | None:
        """As :meth:`vector`, or None where the model has no such tensor."""
        return self.vector(name) if name in self._tensors else None

    def projection(self, name: str, x: ir.Value, part: str) -> ir.Value:
        """The product of ``x`` with one matrix of the model, its bias added."""
        weight = self.model.weights.get(f"{name}.{part}.weight")
        return linear(self.builder, x, f"{name}.{part}", weight, self.activations, self.optional(f"{name}.{part}.bias"))

    def with_low_rank(self, name: str, x: ir.Value, part: str) -> ir.Value:
        """As :meth:`projection`, with what the two thin matrices beside it add."""
        return self._higher(name, self.projection(name, x, part), self.projection(name, x, f"{part}_low"), part)

    def _higher(self, name: str, product: ir.Value, low: ir.Value, part: str) -> ir.Value:
        return self.builder.op("Add", [product, self.projection(name, low, f"{part}_high")], f"{name}.{part}.sum")

    def projections(self, name: str, x: ir.Value, parts: Sequence[str]) -> list[ir.Value | None]:
        """Products of ``x`` with several matrices: one stacked product where their grids agree (the rest are None)."""
        weights = [self.model.weights.get(f"{name}.{part}.weight") for part in parts]
        if not stackable(weights):
            return [self.projection(name, x, part) for part in parts]
        biases = [bias for part in parts if (bias := self.optional(f"{name}.{part}.bias")) is not None]
        joined = linear(
            self.builder,
            x,
            f"{name}.{''.join(parts)}",
            stack_rows(weights),
            self.activations,
            torch.cat(biases) if biases else None,
        )
        return [joined, *[None] * (len(parts) - 1)]

    def norm(self, x: ir.Value, name: str) -> ir.Value:
        """The model's kind of norm, over the last axis."""
        bias = self._norm_bias(name)
        if bias is None:
            return self.rms_norm(x, name)
        return self.builder.op(
            "LayerNormalization",
            [x, self._norm_weight(name), bias],
            f"{name}.out",
            epsilon=self.model.spec.norm_eps,
            axis=-1,
            stash_type=1,
        )

    def rms_norm(self, x: ir.Value, name: str, eps: float | None = None) -> ir.Value:
        """An RMS norm, over the last axis, with the model's epsilon if none is given."""
        return self.builder.op(
            "SimplifiedLayerNormalization",
            [x, self._norm_weight(name)],
            f"{name}.out",
            epsilon=self.model.spec.norm_eps if eps is None else eps,
            axis=-1,
            stash_type=1,
        )

    def head_norms(self, x: ir.Value, name: str, part: str, heads: int) -> ir.Value:
        """A layer norm of its own on each head of [batch, positions, heads, head_dim]."""
        b, eps = self.builder, self.model.spec.norm_eps
        weight, bias = (
            torch.stack([self.vector(f"{name}.heads.{head}.{part}_norm.{kind}") for head in range(heads)])
            for kind in ("weight", "bias")
        )
        ones = b.floats(f"ones.{weight.shape[1]}", torch.ones(weight.shape[1]))
        even = b.op("LayerNormalization", [x, ones], f"{name}.{part}_norms.even", epsilon=eps, axis=-1, stash_type=1)
        scaled = b.op("Mul", [even, b.floats(f"{name}.{part}_norms.weight", weight)], f"{name}.{part}_norms.scaled")
        return b.op("Add", [scaled, b.floats(f"{name}.{part}_norms.bias", bias)], f"{name}.{part}_norms.out")

    def norm_of_sum(self, x: ir.Value, added: ir.Value | None, name: str) -> tuple[ir.Value, ir.Value]:
        """The residual sum and its norm."""
        if added is None:
            return x, self.norm(x, name)
        bias = self._norm_bias(name)
        normed, _, _, total = self.builder.multi(
            "SkipSimplifiedLayerNormalization" if bias is None else "SkipLayerNormalization",
            [x, added, self._norm_weight(name), bias],
            f"{name}.out",
            domain=CONTRIB,
            outputs=4,
            epsilon=self.model.spec.norm_eps,
        )
        return total, normed

    def mlp(self, name: str, mlp: Mlp, x: ir.Value) -> ir.Value:
        """A dense feed-forward block."""
        products = {part: self.projection(name, x, part) for part in (("gate", "up") if mlp.gated else ("up",))}
        if mlp.low_rank is not None:
            low = self.projection(name, x, "ffn_low")
            products = {part: self._higher(name, product, low, part) for part, product in products.items()}
        inner = self.activated(name, products["gate" if mlp.gated else "up"], mlp.activation)
        if mlp.gated:
            inner = self.builder.op("Mul", [inner, products["up"]], f"{name}.gated")
        if mlp.sub_norm:
            inner = self.norm(inner, f"{name}.down_norm")
        return self.projection(name, inner, "down")

    def activated(self, name: str, x: ir.Value, kind: Activation) -> ir.Value:
        """The activation of a feed-forward block."""
        return activated(self.builder, f"{name}.activated", x, kind)

    def _norm_weight(self, name: str) -> ir.Value:
        return self.builder.floats(f"{name}.weight", self.vector(f"{name}.weight"))

    def _norm_bias(self, name: str) -> ir.Value | None:
        bias = self.optional(f"{name}.bias")
        return None if bias is None else self.builder.floats(f"{name}.bias", bias)


def activated(builder: GraphBuilder, name: str, x: ir.Value, kind: Activation) -> ir.Value:
    """An activation as one node (squared ReLU: two)."""
    if kind == "silu":
        return builder.op("QuickGelu", [x], name, domain=CONTRIB, alpha=1.0)
    if kind == "gelu_tanh":
        return builder.op("FastGelu", [x], name, domain=CONTRIB)
    if kind == "gelu":
        return builder.op("Gelu", [x], name, domain=CONTRIB)
    positive = builder.op("Relu", [x], name)
    return positive if kind == "relu" else builder.op("Mul", [positive, positive], f"{name}.squared")
