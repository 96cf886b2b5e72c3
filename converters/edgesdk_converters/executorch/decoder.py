"""A decoder as an ExecuTorch program: XNNPACK subgraphs between the kernels that mix positions.

Each layer is one subgraph, from the product after its attention to the projections before the next one's, so that a
step calls one delegate and three kernels a layer; a layer with experts ends its subgraph before them. Mixers that carry
states take attention's place (see :mod:`.recurrent`). Two methods share
the subgraphs and their weights: ``forward(tokens, start)`` gives the logits after the last token, as ExecuTorch's
runners expect, of as many tokens as the context has; ``score`` gives them after every token of one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edgesdk.model.spec import Attention, ChannelMix, Moe

from .attention import Cache, QuantizedCache, Step, capped_attention
from .blocks import Blocks
from .embedding import embed, swaps_pairs
from .experts import before_experts, expert_delegates, run_experts
from .positions import way_of, ways
from .program import Method, ProgramFile, Slot
from .projections import attended, projections
from .recurrences import recur, recurrence
from .recurrent import after_recurrence, before_recurrence, channel_mix, kept_states
from .sizes import capacity, step_sizes
from .states import Carries
from .subgraph import Subgraph, Value

if TYPE_CHECKING:
    from edgesdk.converter import ProgramOptions
    from edgesdk.model import Model

    from .positions import Tables


@dataclass(frozen=True)
class _Flow:
    """A method before a layer's mixer: the residual stream [1, tokens, hidden], and what the mixer takes.

    For attention see :func:`.projections`, for others :func:`.before_recurrence`.
    """

    step: Step
    hidden: Slot
    taken: tuple[Slot, ...]


@dataclass(frozen=True)
class _Mixed:
    """A method behind a layer's mixer, or behind its experts: what they gave, and the residual stream before them."""

    step: Step
    results: tuple[Slot, ...]
    hidden: Slot


class DecoderProgram:
    """Emits a model's decoder into a :class:`ProgramFile`, a layer at a time."""

    def __init__(self, file: ProgramFile, model: Model, options: ProgramOptions) -> None:
        self._file, self._model, self._spec = file, model, model.spec
        self._context, self._type = options.context, getattr(torch, options.float_type)
        self._quantized_caches = options.kv_bits is not None
        self._chunks = step_sizes(options.context)
        self._longest = max(self._chunks)  # of a step
        self._blocks, self._ways = Blocks(model, self._type), ways(model.spec)
        self._capped_attention: dict[Attention, int] = {}

    def emit(self) -> Iterator[int]:
        """Build the methods, yielding after every layer (for progress)."""
        states = kept_states(self._spec.layers, self._spec.hidden, self._type)
        steps = [
            Step(Method(name, self._file.data), self._context, chunk, longest, self._type, states)
            for name, chunk, longest in zip(
                ("forward", "score"), self._chunks, (self._context, self._chunks[1]), strict=True
            )
        ]
        flows = self._start(steps)
        for index, layer in enumerate(self._spec.layers):
            last = index + 1 == len(self._spec.layers)
            delegate = recurrence(self._blocks, self._file, f"layers.{index}", layer.mixer)
            mixed = [self._mix(flow, index, delegate) for flow in flows]
            if isinstance(layer.ffn, Moe):
                mixed = self._experts(mixed, index, layer.ffn)
            if last:
                self._finish(mixed, index)
            else:
                flows = self._middle(mixed, index)
            yield index
        for step in steps:
            step.close()
            self._file.method(step.method)

    def _start(self, steps: Sequence[Step]) -> list[_Flow]:
        """Embedding, tables of positions, and the projections of the first layer."""
        spec, graph, blocks = self._spec, self._graph(), self._blocks
        table = blocks.stored("embed.weight")
        embedded = graph.input((1, self._longest, spec.embedding_size))
        stored = [way.rows(self._context) for way in self._ways]
        rows = [[graph.input((self._longest, *each.shape[1:])) for each in parts.values()] for parts in stored]
        x = _swapped(graph, embedded) if swaps_pairs(table) else embedded
        if spec.embedding_scale != 1.0:
            x = graph.multiply(x, graph.scalar(spec.embedding_scale))
        if spec.embedding is not None:
            x = blocks.linear(graph, x, "embed_proj")
        learned = blocks.vector("positions.weight")[: self._context] if spec.learned_positions else None
        if learned is not None:
            x = graph.add(x, graph.input((self._longest, spec.hidden)))
        if spec.embed_norm:
            x = blocks.norm(graph, x, "embed_norm")
        tables = [way.tables(graph, *parts) for way, parts in zip(self._ways, rows, strict=True)]
        first, carries = self._way(0), Carries(graph)
        seen = graph.concatenate(x, x, 2) if spec.layers[0].residual == "aside" else x
        taken = self._before_mixer(graph, seen, 0, () if first is None else tables[first], carries)
        for value in (x, *taken, *(each for parts in tables for each in parts), *carries.longer.values()):
            graph.output(value)
        number = self._file.delegate(graph.document())
        flows = []
        for step in steps:
            arguments = [embed(step, table, spec.tied)]
            for index, parts in enumerate(stored):
                arguments += [self._rows(step, f"tables.{index}.{name}", each) for name, each in parts.items()]
            if learned is not None:
                arguments.append(self._rows(step, "positions.weight", learned))
            flow = self._flow(step, taken)
            step.embedded = flow.hidden
            step.tables.extend(tuple(step.tensor((step.chunk, *shape)) for shape in way.shapes) for way in self._ways)
            results = [flow.hidden, *flow.taken, *(each for parts in step.tables for each in parts)]
            step.states.carry(carries, number, arguments, results, step.chunk)
            flows.append(flow)
        return flows

    def _rows(self, step: Step, name: str, table: torch.Tensor) -> Slot:
        """The rows of a table for the step's positions."""
        return step.rows(step.method.constant(name, table.to(self._type)))

    def _mix(self, flow: _Flow, index: int, delegate: int | None) -> _Mixed:
        """A layer's mixer; for the last layer cut to the tokens that the rest of the method needs.

        ``delegate`` runs its recurrence, where it has one.
        """
        step, hidden, results, layer = flow.step, flow.hidden, flow.taken, self._spec.layers[index]
        if isinstance(layer.mixer, Attention):
            results = (self._attend(step, layer.mixer, *results[:3]), *results[3:])
        elif delegate is not None:
            results = (recur(step, delegate, f"layers.{index}", layer.mixer, results[0]), *results[1:])
        if index + 1 == len(self._spec.layers) and step.method.name != "score":
            needed = 2 if isinstance(layer.ffn, ChannelMix) else 1  # a token shift reads the one before
            hidden, results = step.last(hidden, needed), tuple(step.last(each, needed) for each in results)
        return _Mixed(step, results, hidden)

    def _attend(self, step: Step, attention: Attention, q: Slot, k: Slot, v: Slot) -> Slot:
        if self._quantized_caches:
            rounded = QuantizedCache(step, attention)
            rounded.update(k, v)
            return rounded.attend(q)
        cache = Cache(step, attention)
        cache.update(k, v)
        if attention.softcap is None:
            return cache.attend(q)
        out = step.tensor(q.shape)
        step.method.delegate(self._capped(attention), [q, *cache.contents, out])
        return out

    def _capped(self, attention: Attention) -> int:
        """The delegate for one kind of capped attention; layers and methods share it."""
        if attention not in self._capped_attention:
            graph = self._graph()
            capped_attention(graph, attention, self._longest, capacity(attention.window, self._context))
            self._capped_attention[attention] = self._file.delegate(graph.document())
        return self._capped_attention[attention]

    def _experts(self, mixed: Sequence[_Mixed], index: int, moe: Moe) -> list[_Mixed]:
        """The rest of a layer up to its experts, and the experts."""
        graph, blocks, name = self._graph(), self._blocks, f"layers.{index}"
        added, x = self._after_mixer(graph, *self._inputs(graph, mixed), index)
        taken = before_experts(blocks, graph, x, name, moe)
        for value in (added, *taken):
            graph.output(value)
        delegate = self._file.delegate(graph.document())
        experts = expert_delegates(blocks, self._file, name, moe, self._longest)
        found = []
        for each in mixed:
            step, count = each.step, each.hidden.shape[1]
            hidden, shape = step.tensor(each.hidden.shape), (1, count, 1, self._spec.hidden)
            tokens, logits = step.tensor(shape), step.tensor((count, moe.experts), torch.float32)
            shared = None if moe.shared is None else step.tensor(shape)
            results = [hidden, tokens, logits, *([] if shared is None else [shared])]
            step.method.delegate(delegate, [*each.results, each.hidden, *results])
            fed = run_experts(step, moe, experts, tokens, logits, shared)
            found.append(_Mixed(step, (fed,), hidden))
        return found

    def _middle(self, mixed: Sequence[_Mixed], index: int) -> list[_Flow]:
        """The rest of a layer after its mixer, and what the next one's takes."""
        graph = self._graph()
        mixings, hidden = self._inputs(graph, mixed)
        number, carries = self._way(index + 1), Carries(graph)
        shapes = [] if number is None else self._ways[number].shapes
        tables = tuple(graph.input((self._longest, *shape)) for shape in shapes)
        beside = self._spec.layers[index + 1].residual == "aside"
        embedded = [graph.input(hidden.shape)] if beside else []
        x, seen = self._end(graph, mixings, hidden, index, carries)
        for value in embedded:
            seen = graph.concatenate(x, value, 2)
        taken = self._before_mixer(graph, seen, index + 1, tables, carries)
        for value in (x, *taken, *carries.longer.values()):
            graph.output(value)
        delegate = self._file.delegate(graph.document())
        following = []
        for each in mixed:
            flow = self._flow(each.step, taken)
            given = () if number is None else each.step.tables[number]
            arguments = [*each.results, each.hidden, *given, *([each.step.embedded] if beside else [])]
            each.step.states.carry(carries, delegate, arguments, [flow.hidden, *flow.taken], each.step.chunk)
            following.append(flow)
        return following

    def _finish(self, mixed: Sequence[_Mixed], index: int) -> None:
        """The rest of the last layer, the final norm and the head."""
        spec, graph, blocks = self._spec, self._graph(), self._blocks
        carries, (results, residual) = Carries(graph), self._inputs(graph, mixed)
        x, _ = self._end(graph, results, residual, index, carries)
        x = blocks.norm(graph, x, "final_norm")
        if spec.embedding is not None:
            x = blocks.linear(graph, x, "head_proj")
        name = "embed" if spec.tied else "head"
        logits = blocks.product(graph, x, name, blocks.stored(spec.head_name), blocks.optional("head.bias"))
        if spec.logit_softcap is not None:
            divided = graph.multiply(logits, graph.scalar(1.0 / spec.logit_softcap))
            logits = graph.multiply(graph.unary("XNNTanh", divided), graph.scalar(spec.logit_softcap))
        for value in (logits, *carries.longer.values()):
            graph.output(value)
        number = self._file.delegate(graph.document())
        for each in mixed:
            step, tokens = each.step, each.hidden.shape[1]
            out = step.tensor((1, tokens, spec.vocab), dynamic=tokens > 1)
            step.states.carry(carries, number, [*each.results, each.hidden], [out], tokens)
            step.method.output(out if step.method.name == "score" or tokens == 1 else step.last(out))

    def _graph(self) -> Subgraph:
        return Subgraph(self._file.data, self._type)

    @staticmethod
    def _inputs(graph: Subgraph, mixed: Sequence[_Mixed]) -> tuple[list[Value], Value]:
        """Arguments of a subgraph behind a mixer, as long as the longest method's."""
        longest = max(mixed, key=lambda each: each.hidden.shape[1])
        results = [graph.input(slot.shape, slot.dtype) for slot in longest.results]
        return results, graph.input(longest.hidden.shape)

    def _flow(self, step: Step, taken: Sequence[Value]) -> _Flow:
        hidden = step.tensor((1, step.chunk, self._spec.hidden))
        slots = tuple(step.tensor((1, step.chunk, *value.shape[2:]), value.dtype) for value in taken)
        return _Flow(step, hidden, slots)

    def _way(self, index: int) -> int | None:
        """Which of the tables a layer reads."""
        mixer = self._spec.layers[index].mixer
        way = way_of(mixer) if isinstance(mixer, Attention) else None
        return None if way is None else self._ways.index(way)

    def _before_mixer(self, graph: Subgraph, x: Value, index: int, tables: Tables, carries: Carries) -> list[Value]:
        """What a layer's mixer takes of what it sees, which is ``x``."""
        layer, name = self._spec.layers[index], f"layers.{index}"
        normed = self._blocks.norm(graph, x, f"{name}.attn_norm") if layer.pre_norms else x
        if isinstance(layer.mixer, Attention):
            return projections(self._blocks, graph, normed, name, layer.mixer, tables)
        return before_recurrence(self._blocks, graph, normed, name, layer.mixer, carries)

    def _after_mixer(
        self, graph: Subgraph, results: Sequence[Value], residual: Value, index: int
    ) -> tuple[Value, Value]:
        """The residual sum behind a layer's mixer, and what its feed-forward block takes."""
        layer, name, blocks = self._spec.layers[index], f"layers.{index}", self._blocks
        x = self._mixed(graph, results, index)
        if layer.post_norms:
            x = blocks.norm(graph, x, f"{name}.post_attn_norm")
        added = graph.add(residual, x)
        if layer.sum_norms:
            added = blocks.norm(graph, added, f"{name}.attn_sum_norm")
        x = added if layer.residual == "serial" else residual
        if layer.pre_norms:
            x = blocks.norm(graph, x, f"{name}.{'attn' if layer.residual == 'shared' else 'mlp'}_norm")
        return added, x

    def _mixed(self, graph: Subgraph, results: Sequence[Value], index: int) -> Value:
        """What a layer's mixer adds to the stream."""
        mixer, name = self._spec.layers[index].mixer, f"layers.{index}"
        if isinstance(mixer, Attention):
            return attended(self._blocks, graph, results, name, mixer)
        return after_recurrence(self._blocks, graph, results, name, mixer)

    def _end(
        self, graph: Subgraph, results: Sequence[Value], hidden: Value, index: int, carries: Carries
    ) -> tuple[Value, Value]:
        """The residual stream behind a layer, and what the next one's mixer sees of it."""
        if self._spec.layers[index].residual == "aside":
            return hidden, graph.add(hidden, self._aside(graph, results, index))
        x = self._added(graph, results, hidden, index, carries)
        return x, x

    def _aside(self, graph: Subgraph, results: Sequence[Value], index: int) -> Value:
        """What a layer beside the stream gives."""
        name, blocks = f"layers.{index}", self._blocks
        x = blocks.norm(graph, self._mixed(graph, results, index), f"{name}.mlp_norm")
        return blocks.linear(graph, blocks.mlp(graph, x, name, self._spec.layers[index].mlp), f"{name}.aside")

    def _added(self, graph: Subgraph, results: Sequence[Value], hidden: Value, index: int, carries: Carries) -> Value:
        """The residual stream with what a layer adds to it."""
        layer, name = self._spec.layers[index], f"layers.{index}"
        if layer.ffn is None:
            return graph.add(hidden, self._mixed(graph, results, index))
        if isinstance(layer.ffn, Moe):
            added, size = hidden, self._spec.hidden
            fed = graph.reshape(results[0], (1, 0, size), (1, results[0].shape[1], size))
        else:
            added, x = self._after_mixer(graph, results, hidden, index)
            if isinstance(layer.ffn, ChannelMix):
                fed = channel_mix(self._blocks, graph, x, name, carries)
            else:
                fed = self._blocks.mlp(graph, x, name, layer.mlp)
        if layer.post_norms:
            fed = self._blocks.norm(graph, fed, f"{name}.post_mlp_norm")
        summed = graph.add(added, fed)
        return self._blocks.norm(graph, summed, f"{name}.mlp_sum_norm") if layer.sum_norms == "both" else summed


def _swapped(graph: Subgraph, x: Value) -> Value:
    """[1, tokens, hidden] with the two entries of each pair exchanged."""
    tokens, hidden = x.shape[1:]
    pairs = graph.reshape(x, (0, hidden // 2, 2), (tokens, hidden // 2, 2))
    turned = graph.concatenate(graph.part(pairs, 2, 1, 1), graph.part(pairs, 2, 0, 1), 2)
    return graph.reshape(turned, (1, 0, hidden), (1, tokens, hidden))
