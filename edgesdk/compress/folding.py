"""Channels of a layer that can be scaled without changing what it computes.

Where a norm, or a linear map, feeds a matrix channel by channel, the channels can be divided there and multiplied in
the matrix. Nothing is left for the runtime to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model.weights import dense

if TYPE_CHECKING:
    import torch

    from ..model import DecoderSpec, Model


@dataclass(frozen=True)
class Fold:
    """One set of channels.

    Attributes:
        layer: whose they are.
        sources: canonical tensors whose rows (or elements) make the channels.
        consumers: canonical matrices whose columns take them.
        heads: how often each block of ``head_dim`` channels repeats in the consumers (grouped-query attention).
        head_dim: see ``heads``.
        norm: the source is a norm.
    """

    layer: int
    sources: tuple[str, ...]
    consumers: tuple[str, ...]
    heads: int = 1
    head_dim: int = 1
    norm: bool = True

    def per_source(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the consumers' channels [in], reduced to those of the source by their largest."""
        return values.view(-1, self.heads, self.head_dim).amax(1).flatten() if self.heads > 1 else values

    def per_consumer(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the source's channels, repeated as the consumers see them."""
        if self.heads == 1:
            return values
        return values.view(-1, 1, self.head_dim).expand(-1, self.heads, -1).flatten()

    def apply(self, model: Model, scale: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """The changed tensors, when the consumers' columns are multiplied by ``scale`` (per source channel)."""
        for name in self.sources:
            tensor = dense(model.weights.get(name))
            yield name, tensor / (scale.unsqueeze(1) if tensor.dim() == 2 else scale)
        for name in self.consumers:
            yield name, dense(model.weights.get(name)) * self.per_consumer(scale)


def folds(spec: DecoderSpec, index: int) -> list[Fold]:
    """The channels of one layer that can be scaled."""
    layer, prefix = spec.layers[index], f"layers.{index}."
    attention, mlp = layer.attention, layer.mlp
    norms = ("weight", "bias") if spec.norm == "layer" else ("weight",)

    def named(*parts: str) -> tuple[str, ...]:
        return tuple(prefix + part for part in parts)

    values = ("v.weight", "v.bias") if attention.qkv_bias else ("v.weight",)
    upper = ("up.weight", "up.bias") if mlp.bias else ("up.weight",)
    feeding = ("gate.weight", "up.weight") if mlp.gated else ("up.weight",)
    repeats = attention.heads // attention.kv_heads
    found = [
        Fold(index, named(*(f"attn_norm.{kind}" for kind in norms)), named("q.weight", "k.weight", "v.weight")),
        Fold(index, named(*values), named("o.weight"), repeats, attention.head_dim, norm=False),
        Fold(index, named(*(f"mlp_norm.{kind}" for kind in norms)), named(*feeding)),
    ]
    if mlp.gated or mlp.activation == "relu":  # what a scale passes through unchanged
        found.append(Fold(index, named(*upper), named("down.weight"), norm=False))
    return found


def key_fold(spec: DecoderSpec, index: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tensors of one layer whose rows (or elements) are channels of the keys, and of the queries that meet them.

    Norms of each head come last before the cache; without them, the rows of ``k`` and ``q`` (and their biases) do.
    """
    attention, prefix = spec.layers[index].attention, f"layers.{index}."
    if attention.qk_norm:
        return (f"{prefix}k_norm.weight",), (f"{prefix}q_norm.weight",)
    kinds = ("weight", "bias") if attention.qkv_bias else ("weight",)
    return tuple(f"{prefix}k.{kind}" for kind in kinds), tuple(f"{prefix}q.{kind}" for kind in kinds)
