"""An encoder, written once: what a spec says in terms of a runtime's own arithmetic.

The torch reference and every converter bring an :class:`Arithmetic`; what a family adds to the spec is interpreted here
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeVar

from ..encoder_spec import (
    Bottleneck,
    Classification,
    EncoderAttention,
    EncoderLayer,
    EncoderSpec,
    Head,
    Normalization,
    Pooling,
)
from ..spec import Activation

V = TypeVar("V")


class Arithmetic(Protocol[V]):
    """A runtime's operations over its own values ``V``; weights are asked for by canonical name.

    Values are [batch, positions, size] unless said otherwise.
    """

    def linear(self, x: V, name: str) -> V:
        """``x @ weight.T``, and the bias where the spec has one."""

    def linears(self, x: V, prefix: str, names: Sequence[str]) -> list[V]:
        """Several products of the same value."""

    def add(self, first: V, second: V) -> V:
        """The sum."""

    def multiply(self, first: V, second: V) -> V:
        """The product, entry by entry."""

    def activate(self, x: V, kind: Activation | Literal["tanh"]) -> V:
        """An activation function."""

    def norm(self, x: V, name: str, norm: Normalization) -> V:
        """A norm over the last axis."""

    def norm_of_sum(self, x: V, added: V, name: str, norm: Normalization) -> tuple[V, V]:
        """The normed sum, and the sum."""

    def attend(self, q: V, k: V, v: V, attention: EncoderAttention) -> V:
        """Attention of all positions to all that are no padding, heads side by side in each value."""


class TextArithmetic(Arithmetic[V], Protocol[V]):
    """What an encoder of texts needs beside: its inputs, and what becomes of its states."""

    def token_rows(self) -> V:
        """The table's row of every token."""

    def trigram_rows(self) -> V:
        """For every token the row of the next one, its own, and that of the one before, side by side; zeros outside."""

    def position_rows(self, first: int) -> V:
        """The row of every position, from ``first`` on."""

    def type_rows(self) -> V:
        """The row of every token's segment."""

    def pool(self, x: V, pooling: Pooling) -> V:
        """One state for each text, [batch, size]."""

    def unit(self, x: V) -> V:
        """Vectors [batch, size] scaled to length 1."""


def embedded(ops: TextArithmetic[V], spec: EncoderSpec) -> V:
    """What the first layer sees."""
    given = spec.embedding
    x = ops.trigram_rows() if given.trigram else ops.token_rows()
    if given.projected:
        x = ops.linear(x, "embed_projection")
    if given.types:
        x = ops.add(x, ops.type_rows())
    if given.positions:
        positions = ops.position_rows(given.first_position)
        if given.normed:
            return ops.norm_of_sum(x, positions, "embed_norm", spec.norm)[0]
        return ops.add(x, positions)
    return ops.norm(x, "embed_norm", spec.norm) if given.normed else x


def states(ops: TextArithmetic[V], spec: EncoderSpec, on_layer: Callable[[], object] = lambda: None) -> V:
    """The last states of every token, [batch, positions, hidden]."""
    x = embedded(ops, spec)
    for index, layer in enumerate(spec.layers):
        x = through(ops, f"{spec.prefix}{index}.", layer, spec.norm, x)
        on_layer()
    return ops.norm(x, "final_norm", spec.norm) if spec.final_norm else x


def answer(ops: TextArithmetic[V], head: Head, norm: Normalization, x: V) -> V:
    """The embedding, or the labels' logits, of texts whose states are given: [batch, size]."""
    pooled = ops.pool(x, head.pooling)
    if not isinstance(head, Classification):
        return ops.unit(pooled) if head.unit else pooled
    if head.dense is not None:
        pooled = ops.activate(ops.linear(pooled, "dense"), head.dense)
    if head.normed:
        pooled = ops.norm(pooled, "dense_norm", norm)
    return ops.linear(pooled, "classifier")


def through(ops: Arithmetic[V], prefix: str, layer: EncoderLayer, norm: Normalization, x: V) -> V:
    """The stream behind one layer; ``prefix`` is that of its weights."""
    if layer.pre_norm:
        normed = ops.norm(x, prefix + "attn_norm", norm) if layer.attn_norm else x
        attended = _self_attention(ops, prefix, layer, normed)
        normed, x = ops.norm_of_sum(x, attended, prefix + "mlp_norm", norm)
        return ops.add(x, feed(ops, prefix, layer, normed, ("gate", "up", "down")))
    if layer.bottleneck is None:
        stream, attended = x, _self_attention(ops, prefix, layer, x)
    else:
        stream, attended = _narrow_attention(ops, prefix, layer, layer.bottleneck, norm, x)
    y = ops.norm_of_sum(stream, attended, prefix + "attn_norm", norm)[0]
    for gate, up, down, mlp_norm in layer.feed_names():
        y = ops.norm_of_sum(y, feed(ops, prefix, layer, y, (gate, up, down)), prefix + mlp_norm, norm)[0]
    if layer.bottleneck is None:
        return y
    return ops.norm_of_sum(x, ops.linear(y, prefix + "wide"), prefix + "wide_norm", norm)[0]


def feed(ops: Arithmetic[V], prefix: str, layer: EncoderLayer, x: V, names: tuple[str, str, str]) -> V:
    """A feed-forward block, whose gate, up and down matrices have these names."""
    gate, up, down = names
    kind = layer.mlp.activation
    if layer.mlp.gated:
        gated, raised = ops.linears(x, prefix, (gate, up))
        inner = ops.multiply(ops.activate(gated, kind), raised)
    else:
        inner = ops.activate(ops.linear(x, prefix + up), kind)
    return ops.linear(inner, prefix + down)


def _self_attention(ops: Arithmetic[V], prefix: str, layer: EncoderLayer, x: V) -> V:
    q, k, v = ops.linears(x, prefix, ("q", "k", "v"))
    return ops.linear(ops.attend(q, k, v, layer.attention), prefix + "o")


def _narrow_attention(
    ops: Arithmetic[V], prefix: str, layer: EncoderLayer, bottleneck: Bottleneck, norm: Normalization, x: V
) -> tuple[V, V]:
    """The narrow stream, and its attention before the residual sum."""
    narrow = ops.norm(ops.linear(x, prefix + "narrow"), prefix + "narrow_norm", norm)
    if not bottleneck.keys:
        return narrow, _self_attention(ops, prefix, layer, narrow)
    keys = ops.norm(ops.linear(x, prefix + "keys"), prefix + "keys_norm", norm)
    q, k = ops.linears(keys, prefix, ("q", "k"))
    v = ops.linear(x, prefix + "v")
    return narrow, ops.linear(ops.attend(q, k, v, layer.attention), prefix + "o")
