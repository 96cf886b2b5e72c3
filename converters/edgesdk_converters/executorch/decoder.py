"""A decoder as an ExecuTorch program: XNNPACK subgraphs between the attention kernels.

Each layer is one subgraph, from the product after its attention to the projections before the next one's, so that a
step calls one delegate and three kernels a layer. Two methods share the subgraphs and their weights: ``forward(tokens,
start)`` gives the logits after the last token, as ExecuTorch's runners expect; ``score`` gives them after every token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edgesdk.model.rope import rotary_tables
from edgesdk.model.spec import Activation, Attention
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.model.weights import dense, stack_rows, stackable

from .attention import Cache, QuantizedCache, Step, capped_attention
from .embedding import embed, swaps_pairs
from .packing import pack_filter
from .program import Method, ProgramFile, Slot
from .sizes import capacity, step_sizes
from .subgraph import Subgraph, Value

if TYPE_CHECKING:
    from edgesdk.converter import ProgramOptions
    from edgesdk.model import Model
    from edgesdk.model.weights import Stored

    Tables = tuple[Value, Value]

_GELU = 2 * math.sqrt(2 / math.pi)


@dataclass(frozen=True)
class _Flow:
    """A method between two subgraphs: hidden states [1, tokens, hidden], and q, k, v [1, tokens, heads, head_dim]."""

    step: Step
    hidden: Slot
    q: Slot
    k: Slot
    v: Slot


class DecoderProgram:
    """Emits a model's decoder into a :class:`ProgramFile`, a layer at a time."""

    def __init__(self, file: ProgramFile, model: Model, options: ProgramOptions) -> None:
        self._file, self._model, self._spec = file, model, model.spec
        self._context, self._type = options.context, getattr(torch, options.float_type)
        self._quantized_caches = options.kv_bits is not None
        self._chunk, self._score_chunk = step_sizes(options.context)
        self._capped_attention: dict[Attention, int] = {}

    def emit(self) -> Iterator[int]:
        """Build the methods, yielding after every layer (for progress)."""
        steps = [
            Step(Method(name, self._file.data), self._context, chunk, self._type)
            for name, chunk in (("forward", self._chunk), ("score", self._score_chunk))
        ]
        flows = self._start(steps)
        for index, layer in enumerate(self._spec.layers):
            attended = [self._attend(flow, layer.attention) for flow in flows]
            if index + 1 < len(self._spec.layers):
                flows = self._middle(flows, attended, index)
            else:
                self._finish(flows, attended, index)
            yield index
        for step in steps:
            self._file.method(step.method)

    def _start(self, steps: Sequence[Step]) -> list[_Flow]:
        """Embedding, rotary tables, and the projections of the first layer."""
        spec, graph = self._spec, Subgraph(self._file.data, self._type)
        embedded = graph.input((1, self._chunk, spec.hidden))
        halves = [
            (graph.input((self._chunk, 1, head_dim // 2)), graph.input((self._chunk, 1, head_dim // 2)))
            for _, head_dim in self._spec.ropes
        ]
        x = _swapped(graph, embedded) if swaps_pairs(self._model.weights.get("embed.weight")) else embedded
        if spec.embedding_scale != 1.0:
            x = graph.multiply(x, graph.scalar(spec.embedding_scale))
        wide = [_widened(graph, *pair) for pair in halves]
        projected = self._projections(graph, x, 0, wide[self._rope(0)])
        for value in (x, *projected, *(table for pair in wide for table in pair)):
            graph.output(value)
        number = self._file.delegate(graph.document())
        flows = []
        for step in steps:
            arguments = [embed(step, self._model.weights.get("embed.weight"), spec.tied), *self._table_rows(step)]
            flow = self._flow(step, projected)
            for _, head_dim in self._spec.ropes:
                step.tables.append((step.tensor((step.chunk, 1, head_dim)), step.tensor((step.chunk, 1, head_dim))))
            results = [flow.hidden, flow.q, flow.k, flow.v, *(table for pair in step.tables for table in pair)]
            step.method.delegate(number, [*arguments, *results])
            flows.append(flow)
        return flows

    def _table_rows(self, step: Step) -> list[Slot]:
        """Cosines and sines of the step's positions, [tokens, 1, head_dim / 2] each."""
        rows = []
        for index, (rope, head_dim) in enumerate(self._spec.ropes):
            for name, table in zip(("cos", "sin"), rotary_tables(rope, head_dim, self._context), strict=True):
                stored = step.method.constant(f"rope.{index}.{name}", table.unsqueeze(1).to(self._type))
                rows.append(step.rows(stored))
        return rows

    def _attend(self, flow: _Flow, attention: Attention) -> Slot:
        if self._quantized_caches:
            rounded = QuantizedCache(flow.step, attention)
            rounded.update(flow.k, flow.v)
            return rounded.attend(flow.q)
        cache = Cache(flow.step, attention)
        cache.update(flow.k, flow.v)
        if attention.softcap is None:
            return cache.attend(flow.q)
        out = flow.step.tensor(flow.q.shape)
        flow.step.method.delegate(self._capped(attention), [flow.q, *cache.contents, out])
        return out

    def _capped(self, attention: Attention) -> int:
        """The delegate for one kind of capped attention; layers and methods share it."""
        if attention not in self._capped_attention:
            graph = Subgraph(self._file.data, self._type)
            capped_attention(graph, attention, self._chunk, capacity(attention.window, self._context))
            self._capped_attention[attention] = self._file.delegate(graph.document())
        return self._capped_attention[attention]

    def _middle(self, flows: Sequence[_Flow], attended: Sequence[Slot], index: int) -> list[_Flow]:
        """The rest of a layer after its attention, and the projections of the next one."""
        graph, head_dim = Subgraph(self._file.data, self._type), self._spec.layers[index + 1].attention.head_dim
        attention_result, residual = graph.input(attended[0].shape), graph.input(flows[0].hidden.shape)
        tables = (graph.input((self._chunk, 1, head_dim)), graph.input((self._chunk, 1, head_dim)))
        x = self._after_attention(graph, attention_result, residual, index)
        projected = self._projections(graph, x, index + 1, tables)
        for value in (x, *projected):
            graph.output(value)
        number = self._file.delegate(graph.document())
        following = []
        for flow, result in zip(flows, attended, strict=True):
            after = self._flow(flow.step, projected)
            cos, sin = flow.step.tables[self._rope(index + 1)]
            arguments = [result, flow.hidden, cos, sin, after.hidden, after.q, after.k, after.v]
            flow.step.method.delegate(number, arguments)
            following.append(after)
        return following

    def _finish(self, flows: Sequence[_Flow], attended: Sequence[Slot], index: int) -> None:
        """The rest of the last layer, the final norm and the head: for the last token alone, or for all."""
        spec, graph = self._spec, Subgraph(self._file.data, self._type)
        attention_result, residual = graph.input(attended[0].shape), graph.input(flows[0].hidden.shape)
        x = self._after_attention(graph, attention_result, residual, index)
        x = self._norm(graph, x, "final_norm")
        logits = self._linear(graph, x, "embed" if spec.tied else "head", self._model.weights.get(spec.head_name))
        if spec.logit_softcap is not None:
            divided = graph.multiply(logits, graph.scalar(1.0 / spec.logit_softcap))
            logits = graph.multiply(graph.unary("XNNTanh", divided), graph.scalar(spec.logit_softcap))
        graph.output(logits)
        number = self._file.delegate(graph.document())
        for flow, result in zip(flows, attended, strict=True):
            step, hidden, every = flow.step, flow.hidden, flow.step.method.name == "score"
            if not every:
                result, hidden = step.last(result), step.last(hidden)
            out = step.tensor((1, hidden.shape[1], spec.vocab), dynamic=every)
            step.method.delegate(number, [result, hidden, out])
            step.method.output(out)

    def _flow(self, step: Step, projected: Sequence[Value]) -> _Flow:
        hidden = step.tensor((1, step.chunk, self._spec.hidden))
        return _Flow(step, hidden, *(step.tensor((1, step.chunk, *value.shape[2:])) for value in projected))

    def _rope(self, index: int) -> int:
        return self._spec.rope_index(self._spec.layers[index].attention)

    def _projections(self, graph: Subgraph, x: Value, index: int, tables: Tables) -> list[Value]:
        """Queries, keys and values of a layer, normed and rotated."""
        attention, name = self._spec.layers[index].attention, f"layers.{index}"
        normed = self._norm(graph, x, f"{name}.attn_norm")
        weights = [self._model.weights.get(f"{name}.{part}.weight") for part in "qkv"]
        heads = (attention.heads, attention.kv_heads, attention.kv_heads)
        if stackable(weights) and not attention.qk_norm:
            return self._stacked(graph, normed, index, stack_rows(weights), tables)
        parts = []
        for part, weight, count in zip("qkv", weights, heads, strict=True):
            flat = self._linear(graph, normed, f"{name}.{part}", weight)
            split = _heads(graph, flat, count, attention.head_dim)
            if part != "v":
                split = self._norm(graph, split, f"{name}.{part}_norm") if attention.qk_norm else split
                split = _rotated(graph, split, tables)
            parts.append(split)
        return parts

    def _stacked(self, graph: Subgraph, x: Value, index: int, weight: Stored, tables: Tables) -> list[Value]:
        """The same by one product and one rotation."""
        attention, name = self._spec.layers[index].attention, f"layers.{index}"
        biases = [self._bias(f"{name}.{part}.bias") for part in "qkv"]
        present = [bias for bias in biases if bias is not None]
        flat = self._product(graph, x, f"{name}.qkv", weight, torch.cat(present) if present else None)
        q, k = attention.heads, attention.kv_heads
        split = _heads(graph, flat, q + 2 * k, attention.head_dim)
        turned = _rotated(graph, graph.part(split, 2, 0, q + k), tables)
        return [graph.part(turned, 2, 0, q), graph.part(turned, 2, q, k), graph.part(split, 2, q + k, k)]

    def _after_attention(self, graph: Subgraph, attended: Value, residual: Value, index: int) -> Value:
        layer, name = self._spec.layers[index], f"layers.{index}"
        flat = graph.reshape(attended, (1, 0, layer.attention.q_size), (1, attended.shape[1], layer.attention.q_size))
        x = self._linear(graph, flat, f"{name}.o", self._model.weights.get(f"{name}.o.weight"))
        if layer.post_norms:
            x = self._norm(graph, x, f"{name}.post_attn_norm")
        x = graph.add(residual, x)
        fed = self._mlp(graph, self._norm(graph, x, f"{name}.mlp_norm"), index)
        if layer.post_norms:
            fed = self._norm(graph, fed, f"{name}.post_mlp_norm")
        return graph.add(x, fed)

    def _mlp(self, graph: Subgraph, x: Value, index: int) -> Value:
        mlp, name, get = self._spec.layers[index].mlp, f"layers.{index}", self._model.weights.get
        up = self._linear(graph, x, f"{name}.up", get(f"{name}.up.weight"))
        if mlp.gated:
            gate = self._linear(graph, x, f"{name}.gate", get(f"{name}.gate.weight"))
            inner = graph.multiply(_activated(graph, gate, mlp.activation), up)
        else:
            inner = _activated(graph, up, mlp.activation)
        return self._linear(graph, inner, f"{name}.down", get(f"{name}.down.weight"))

    def _norm(self, graph: Subgraph, x: Value, name: str) -> Value:
        """RMS norm over the last axis; XNNPACK has no mean, so the mean of squares is a product with one row."""
        size = x.shape[-1]
        average, epsilon = torch.full((1, size), 1.0 / size), torch.tensor([self._spec.norm_eps])
        mean = graph.linear(graph.unary("XNNSquare", x), f"mean.{size}", average, epsilon)
        scaled = graph.multiply(x, graph.unary("XNNReciprocalSquareRoot", mean))
        return graph.multiply(scaled, graph.constant(f"{name}.weight", self._dense(f"{name}.weight")))

    def _linear(self, graph: Subgraph, x: Value, name: str, weight: Stored) -> Value:
        return self._product(graph, x, name, weight, self._bias(f"{name}.bias"))

    def _product(self, graph: Subgraph, x: Value, name: str, weight: Stored, bias: torch.Tensor | None) -> Value:
        if isinstance(weight, QuantizedTensor):
            return graph.linear(graph.quantize(x), name, pack_filter(name, weight), bias)
        return graph.linear(x, name, dense(weight, self._type), bias)

    def _bias(self, name: str) -> torch.Tensor | None:
        return self._dense(name) if name in self._spec.tensors() else None

    def _dense(self, name: str) -> torch.Tensor:
        return dense(self._model.weights.get(name))


def _heads(graph: Subgraph, flat: Value, heads: int, head_dim: int) -> Value:
    """[1, tokens, heads * head_dim] as [1, tokens, heads, head_dim]."""
    return graph.reshape(flat, (1, 0, heads, head_dim), (1, flat.shape[1], heads, head_dim))


def _widened(graph: Subgraph, cos: Value, sin: Value) -> Tables:
    """Half tables as :func:`_rotated` takes them: ``[cos, cos]`` and ``[-sin, sin]``."""
    return graph.concatenate(cos, cos, 2), graph.concatenate(graph.unary("XNNNegate", sin), sin, 2)


def _rotated(graph: Subgraph, x: Value, tables: Tables) -> Value:
    """Rotary embedding of [1, tokens, heads, head_dim] in the half-split layout."""
    half = x.shape[3] // 2
    turned = graph.concatenate(graph.part(x, 3, half, half), graph.part(x, 3, 0, half), 3)
    return graph.add(graph.multiply(x, tables[0]), graph.multiply(turned, tables[1]))


def _swapped(graph: Subgraph, x: Value) -> Value:
    """[1, tokens, hidden] with the two entries of each pair exchanged."""
    tokens, hidden = x.shape[1:]
    pairs = graph.reshape(x, (0, hidden // 2, 2), (tokens, hidden // 2, 2))
    turned = graph.concatenate(graph.part(pairs, 2, 1, 1), graph.part(pairs, 2, 0, 1), 2)
    return graph.reshape(turned, (1, 0, hidden), (1, tokens, hidden))


def _activated(graph: Subgraph, x: Value, kind: Activation) -> Value:
    if kind == "silu":
        return graph.multiply(x, graph.unary("XNNSigmoid", x))
    if kind == "relu":
        return graph.relu(x)
    if kind == "gelu":
        return graph.unary("XNNGelu", x)
    # The tanh form is x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 * x**3)).
    cubic = graph.multiply(graph.unary("XNNSquare", x), graph.scalar(0.044715 * _GELU))
    inner = graph.multiply(x, graph.add(cubic, graph.scalar(_GELU)))
    return graph.multiply(x, graph.unary("XNNSigmoid", inner))
