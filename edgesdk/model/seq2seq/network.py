"""The decoder of an encoder-decoder, written once in terms of a runtime's arithmetic; see :mod:`..encoders.network`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from ..encoder_spec import EncoderAttention
from ..encoders.network import Arithmetic, feed
from ..seq2seq_spec import Seq2SeqSpec

V = TypeVar("V")


class DecoderArithmetic(Arithmetic[V], Protocol[V]):
    """What a decoder needs beside: a cache of its own keys and values, and the encoder's."""

    def token_rows(self) -> V:
        """The table's row of every new token."""

    def remember(self, index: int, q: V, k: V, v: V, attention: EncoderAttention) -> V:
        """Attention of new tokens to themselves and to all before them, whose keys and values layer ``index`` keeps."""

    def recall(self, index: int, q: V, attention: EncoderAttention) -> V:
        """Attention to the keys and values that layer ``index`` has of the encoder's states."""

    def scale(self, x: V, factor: float) -> V:
        """The product with a number."""

    def head(self, x: V) -> V:
        """Logits of states."""


def source(ops: Arithmetic[V], spec: Seq2SeqSpec, states: V) -> list[tuple[V, V]]:
    """Keys and values of the encoder's states for every layer of the decoder."""
    found = []
    for index in range(len(spec.layers)):
        keys, values = ops.linears(states, spec.prefix(index), ("cross_k", "cross_v"))
        found.append((keys, values))
    return found


def logits(ops: DecoderArithmetic[V], spec: Seq2SeqSpec, on_layer: Callable[[], object] = lambda: None) -> V:
    """Logits after every new token, [batch, tokens, vocab]."""
    x = ops.token_rows()
    for index, layer in enumerate(spec.layers):
        prefix, attention = spec.prefix(index), layer.attention
        q, k, v = ops.linears(ops.norm(x, prefix + "attn_norm", spec.norm), prefix, ("q", "k", "v"))
        attended = ops.linear(ops.remember(index, q, k, v, attention), prefix + "o")
        normed, x = ops.norm_of_sum(x, attended, prefix + "cross_norm", spec.norm)
        looked = ops.recall(index, ops.linear(normed, prefix + "cross_q"), attention)
        normed, x = ops.norm_of_sum(x, ops.linear(looked, prefix + "cross_o"), prefix + "mlp_norm", spec.norm)
        x = ops.add(x, feed(ops, prefix, layer, normed, ("gate", "up", "down")))
        on_layer()
    x = ops.norm(x, "decoder_norm", spec.norm)
    return ops.head(x if spec.output_scale == 1.0 else ops.scale(x, spec.output_scale))
