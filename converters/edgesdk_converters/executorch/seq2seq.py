"""An encoder-decoder as an ExecuTorch program of two methods, each one XNNPACK subgraph between kernels.

``encode(tokens)`` reads a text and gives keys and values of its states for every layer of the decoder, [1, tokens,
size] each. ``decode(token, position, keys and values ...)`` takes one token of the answer and gives the logits after
it; its own keys and values stay in the method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgesdk.model.encoders import network as encoding
from edgesdk.model.encoders.reference import HIDDEN, relative_table
from edgesdk.model.seq2seq import network
from edgesdk.model.weights import dense

from .arithmetic import XnnArithmetic
from .embedding import embed, swaps_pairs
from .encoder import Text, TextGraph
from .program import Method, ProgramFile, Slot
from .subgraph import Subgraph, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesdk.model.encoder_spec import EncoderAttention
    from edgesdk.model.seq2seq.model import Seq2SeqModel

ENCODE, DECODE = "encode", "decode"


class _Token:
    """One token of an answer, as kernels see it before the subgraph runs."""

    def __init__(self, method: Method, model: Seq2SeqModel, context: int) -> None:
        self.method, self.chunk, self.type = method, 1, torch.float32
        self._model, self._context = model, context
        self.tokens = method.input(torch.int64, (1, 1))
        start = method.input(torch.int64, (1,))
        self.position = method.variable()
        method.call("aten::_local_scalar_dense", [start], self.position)

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype | None = None, *, dynamic: bool = False) -> Slot:
        return self.method.tensor(dtype or self.type, shape)

    def bias(self) -> tuple[Slot, torch.Tensor]:
        """What is added to the scores of every entry of the cache, [context, heads], and of the token itself, [heads].

        Entries from the token's own on are hidden: the token's key does not come from the cache.
        """
        most, spec = self._context, self._model.spec
        table = relative_table(spec.relative, dense(self._model.weights.get("decoder_relative.weight")), most)
        own = table[most].clone()
        table[most:] = HIDDEN
        first, last = self.method.variable(), self.method.variable()
        self.method.call("executorch_prim::sub.Scalar", [most, self.position], first)
        self.method.call("executorch_prim::add.Scalar", [first, most], last)
        rows = self.tensor((most, table.shape[1]))
        stored = self.method.constant("decoder.distances", table)
        self.method.call("aten::slice_copy.Tensor_out", [stored, 0, first, last, 1], rows)
        return rows, own


class _AnswerGraph(XnnArithmetic):
    """The subgraph of one token; implements :class:`network.DecoderArithmetic`."""

    def __init__(self, graph: Subgraph, model: Seq2SeqModel, token: _Token, context: int) -> None:
        super().__init__(graph, model.weights, list(model.spec.tensors()))
        self._model, self._spec, self._token, self._context = model, model.spec, token, context
        self.arguments: list[Slot] = []
        self.new: list[tuple[Value, Slot]] = []  # a key or value of this token, and the cache that it goes into
        table = model.weights.get("embed.weight")
        self._rows = self._argument(embed(token, table, model.spec.tied))
        rows, own = token.bias()
        heads = len(own)
        before = graph.reshape(graph.transpose(self._argument(rows), (1, 0)), (heads, 1, context), (heads, 1, context))
        self._bias = graph.concatenate(before, graph.constant("decoder.own", own.view(heads, 1, 1)), 2)
        self._source = [self._cross(layer.attention.size) for layer in model.spec.layers]

    def token_rows(self) -> Value:
        if not swaps_pairs(self._model.weights.get("embed.weight")):
            return self._rows
        graph, size = self.graph, self._spec.hidden
        pairs = graph.reshape(self._rows, (1, size // 2, 2), (1, size // 2, 2))
        turned = graph.concatenate(graph.part(pairs, 2, 1, 1), graph.part(pairs, 2, 0, 1), 2)
        return graph.reshape(turned, (1, 1, size), (1, 1, size))

    def remember(self, index: int, q: Value, k: Value, v: Value, attention: EncoderAttention) -> Value:
        both = []
        for new in (k, v):
            size = attention.size
            cache = self._token.method.state(torch.float32, (1, self._context, 1, size))
            self.new.append((self.graph.reshape(new, (1, 1, 1, size), (1, 1, 1, size)), cache))
            flat = self.graph.reshape(self._argument(cache), (1, self._context, size), (1, self._context, size))
            both.append(self.graph.concatenate(flat, new, 1))
        return self.attended(q, both[0], both[1], attention, self._bias, None)

    def recall(self, index: int, q: Value, attention: EncoderAttention) -> Value:
        keys, values = self._source[index]
        return self.attended(q, keys, values, attention, None, None)

    def scale(self, x: Value, factor: float) -> Value:
        return self.graph.multiply(x, self.graph.scalar(factor))

    def head(self, x: Value) -> Value:
        return self.linear(x, "embed" if self._spec.tied else "head")

    def _cross(self, size: int) -> tuple[Value, Value]:
        method = self._token.method
        keys, values = (method.input(torch.float32, (1, self._context, size), dynamic=True) for _ in range(2))
        return self._argument(keys), self._argument(values)

    def _argument(self, slot: Slot) -> Value:
        self.arguments.append(slot)
        return self.graph.input(slot.shape)


def emit(file: ProgramFile, model: Seq2SeqModel, context: int, on_layer: Callable[[], object]) -> None:
    """Build both methods of an encoder-decoder."""
    _emit_encode(file, model, context, on_layer)
    _emit_decode(file, model, context, on_layer)


def _emit_encode(file: ProgramFile, model: Seq2SeqModel, context: int, on_layer: Callable[[], object]) -> None:
    spec, method = model.spec, Method(ENCODE, file.data)
    text = Text(method, spec.encoder, model.weights, context)
    graph = TextGraph(Subgraph(file.data, torch.float32), text, list(spec.tensors()), spec.tied)
    pairs = network.source(graph, spec, encoding.states(graph, spec.encoder, on_layer))
    results = []
    for pair in pairs:
        for value in pair:
            graph.graph.output(value)
            results.append(text.tensor((1, context, value.shape[-1])))
    method.delegate(file.delegate(graph.graph.document()), [*graph.arguments, *results])
    for slot in results:
        method.output(slot)
    file.method(method)


def _emit_decode(file: ProgramFile, model: Seq2SeqModel, context: int, on_layer: Callable[[], object]) -> None:
    method = Method(DECODE, file.data)
    token = _Token(method, model, context)
    graph = _AnswerGraph(Subgraph(file.data, torch.float32), model, token, context)
    logits = network.logits(graph, model.spec, on_layer)
    out = token.tensor((1, 1, model.spec.vocab))
    graph.graph.output(logits)
    new = []
    for value, _ in graph.new:
        graph.graph.output(value)
        new.append(token.tensor(value.shape))
    method.delegate(file.delegate(graph.graph.document()), [*graph.arguments, out, *new])
    for slot, (_, cache) in zip(new, graph.new, strict=True):
        method.call("llama::update_cache.out", [slot, cache, token.position], token.tensor((1,)))
    method.output(out)
    file.method(method)
