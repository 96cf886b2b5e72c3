"""The ONNX graphs of an encoder-decoder: one reads a text, the other continues an answer.

``encoder.onnx`` gives keys and values of its states for every layer of the decoder; ``model.onnx`` takes them with the
caches of its own. Names are optimum's: ``past_key_values.N.decoder.key``, ``present.N.encoder.value`` ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import torch

from edgesdk.model.encoders import network as encoding
from edgesdk.model.seq2seq import network

from .arithmetic import OnnxArithmetic
from .builder import CONTRIB
from .encoder import TextGraph, relative_bias
from .linear import embedding, linear, tied_head

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesdk.model.encoder_spec import EncoderAttention
    from edgesdk.model.seq2seq.model import Seq2SeqModel

    from .builder import GraphBuilder
    from .linear import Activations

PARTS = ("key", "value")


def past(layer: int, side: str, part: str) -> str:
    """The name of a cache that goes in; ``side`` is ``decoder`` or ``encoder``."""
    return f"past_key_values.{layer}.{side}.{part}"


def present(layer: int, side: str, part: str) -> str:
    """The name of a cache that comes out."""
    return f"present.{layer}.{side}.{part}"


class AnswerGraph(OnnxArithmetic):
    """Arithmetic over new tokens of one answer; implements :class:`network.DecoderArithmetic`."""

    def __init__(self, builder: GraphBuilder, model: Seq2SeqModel, context: int, activations: Activations) -> None:
        super().__init__(builder, model.weights, list(model.spec.tensors()), activations)
        self._model, self._spec, self._context, self._given = model, model.spec, context, activations
        self._ids = builder.input("input_ids", ir.DataType.INT64, ["batch", "tokens"])
        self._seen: ir.Value | None = None

    def token_rows(self) -> ir.Value:
        return embedding(self.builder, self._ids, "embed", self._model.weights.get("embed.weight"))

    def remember(self, index: int, q: ir.Value, k: ir.Value, v: ir.Value, attention: EncoderAttention) -> ir.Value:
        caches = [self._cache(index, "decoder", part, "past", attention) for part in PARTS]
        if self._seen is None:
            self._seen = self._positions_bias(caches[0])
        attended, *new = self.builder.multi(
            "MultiHeadAttention",
            [q, k, v, None, None, self._seen, *caches],
            self.label("multiheadattention"),
            domain=CONTRIB,
            outputs=3,
            num_heads=attention.heads,
            scale=attention.scale,
        )
        for part, value in zip(PARTS, new, strict=True):
            shape = ("batch", attention.heads, "total", attention.head_dim)
            self.builder.output(value, present(index, "decoder", part), ir.DataType.FLOAT, shape)
        return attended

    def recall(self, index: int, q: ir.Value, attention: EncoderAttention) -> ir.Value:
        keys, values = (self._cache(index, "encoder", part, "positions", attention) for part in PARTS)
        return self.attended(q, keys, values, attention, None, None)

    def scale(self, x: ir.Value, factor: float) -> ir.Value:
        return self.multiply(x, self.builder.floats("output.scale", torch.tensor(factor)))

    def head(self, x: ir.Value) -> ir.Value:
        weight = self._model.weights.get(self._spec.head_name)
        if self._spec.tied:
            return tied_head(self.builder, x, "embed", weight, self._given)
        return linear(self.builder, x, "head", weight, self._given)

    def _cache(self, index: int, side: str, part: str, length: str, attention: EncoderAttention) -> ir.Value:
        shape: list[int | str] = ["batch", attention.heads, length, attention.head_dim]
        return self.builder.input(past(index, side, part), ir.DataType.FLOAT, shape)

    def _positions_bias(self, cache: ir.Value) -> ir.Value:
        """The bias of new tokens' positions, which hides what comes after each."""
        before = self.length(cache, 2)
        new = self.length(self._ids, 1)
        queries, keys = self.positions(new, before), self.positions(self.op("Add", [before, new]))
        return relative_bias(self, self._spec.relative, "decoder_relative.weight", queries, keys, self._context)


def emit_encoder(
    builder: GraphBuilder, model: Seq2SeqModel, context: int, activations: Activations, on_layer: Callable[[], object]
) -> None:
    """Build the graph that reads a text."""
    graph = TextGraph(builder, model.spec.encoder, model.weights, context, activations, list(model.spec.tensors()))
    states = encoding.states(graph, model.spec.encoder, on_layer)
    for index, pair in enumerate(network.source(graph, model.spec, states)):
        attention = model.spec.layers[index].attention
        shape = builder.constant(f"heads.{attention.heads}.{attention.head_dim}", [0, 0, -1, attention.head_dim])
        for part, value in zip(PARTS, pair, strict=True):
            split = graph.op("Transpose", [graph.op("Reshape", [value, shape])], perm=[0, 2, 1, 3])
            dims = ("batch", attention.heads, "positions", attention.head_dim)
            builder.output(split, present(index, "encoder", part), ir.DataType.FLOAT, dims)


def emit_decoder(
    builder: GraphBuilder, model: Seq2SeqModel, context: int, activations: Activations, on_layer: Callable[[], object]
) -> None:
    """Build the graph that continues an answer."""
    graph = AnswerGraph(builder, model, context, activations)
    logits = network.logits(graph, model.spec, on_layer)
    builder.output(logits, "logits", ir.DataType.FLOAT, ["batch", "tokens", model.spec.vocab])
