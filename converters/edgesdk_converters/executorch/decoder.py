"""A decoder as an ExecuTorch program: XNNPACK subgraphs between the kernels that mix positions.

Each layer is one subgraph, from the product after its attention to the projections before the next one's, so that a
step calls one delegate and three kernels a layer; a layer with experts ends its subgraph before them. Two methods share
the subgraphs and their weights: ``forward(tokens, start)`` gives the logits after the last token, as ExecuTorch's
runners expect; ``score`` gives them after every token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edgesdk.model.spec import Moe

from .attention import Cache, QuantizedCache, Step, capped_attention
from .blocks import Blocks
from .embedding import embed, swaps_pairs
from .experts import before_experts, expert_delegates, run_experts
from .positions import way_of, ways
from .program import Method, ProgramFile, Slot
from .projections import attended, projections
from .sizes import capacity, step_sizes
from .subgraph import Subgraph, Value

if TYPE_CHECKING:
    from edgesdk.converter import ProgramOptions
    from edgesdk.model import Model
    from edgesdk.model.spec import Attention, Layer

    from .positions import Tables


@dataclass(frozen=True)
class _Flow:
    """A method before a layer's mixer: the residual stream [1, tokens, hidden], and what the mixer takes.

    Attention takes q, k and v, [1, tokens, heads, head_dim] each.
    """

    step: Step
    hidden: Slot
    taken: tuple[Slot, ...]


@dataclass(frozen=True)
class _Mixed:
    """A method behind a layer's mixer, or behind its experts: what they gave, and the residual stream before them."""

    step: Step
    result: Slot
    hidden: Slot


class DecoderProgram:
    """Emits a model's decoder into a :class:`ProgramFile`, a layer at a time."""

    def __init__(self, file: ProgramFile, model: Model, options: ProgramOptions) -> None:
        self._file, self._model, self._spec = file, model, model.spec
        self._context, self._type = options.context, getattr(torch, options.float_type)
        self._quantized_caches = options.kv_bits is not None
        self._chunks = step_sizes(options.context)
        self._longest = max(self._chunks)
        self._blocks, self._ways = Blocks(model, self._type), ways(model.spec)
        self._capped_attention: dict[Attention, int] = {}

    def emit(self) -> Iterator[int]:
        """Build the methods, yielding after every layer (for progress)."""
        steps = [
            Step(Method(name, self._file.data), self._context, chunk, self._type)
            for name, chunk in zip(("forward", "score"), self._chunks, strict=True)
        ]
        flows = self._start(steps)
        for index, layer in enumerate(self._spec.layers):
            last = index + 1 == len(self._spec.layers)
            mixed = [self._mix(flow, layer, last) for flow in flows]
            if isinstance(layer.ffn, Moe):
                mixed = self._experts(mixed, index, layer.ffn)
            if last:
                self._finish(mixed, index)
            else:
                flows = self._middle(mixed, index)
            yield index
        for step in steps:
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
        first = self._way(0)
        taken = self._before_mixer(graph, x, 0, () if first is None else tables[first])
        for value in (x, *taken, *(each for parts in tables for each in parts)):
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
            step.tables.extend(tuple(step.tensor((step.chunk, *shape)) for shape in way.shapes) for way in self._ways)
            results = [flow.hidden, *flow.taken, *(each for parts in step.tables for each in parts)]
            step.method.delegate(number, [*arguments, *results])
            flows.append(flow)
        return flows

    def _rows(self, step: Step, name: str, table: torch.Tensor) -> Slot:
        """The rows of a table for the step's positions."""
        return step.rows(step.method.constant(name, table.to(self._type)))

    def _mix(self, flow: _Flow, layer: Layer, last: bool) -> _Mixed:
        """A layer's mixer; for the last layer cut to the tokens whose logits the method gives."""
        step, hidden = flow.step, flow.hidden
        q, k, v = flow.taken
        result = self._attend(step, layer.attention, q, k, v)
        if last and step.method.name != "score":
            result, hidden = step.last(result), step.last(hidden)
        return _Mixed(step, result, hidden)

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
            step.method.delegate(delegate, [each.result, each.hidden, *results])
            found.append(_Mixed(step, run_experts(step, moe, experts, tokens, logits, shared), hidden))
        return found

    def _middle(self, mixed: Sequence[_Mixed], index: int) -> list[_Flow]:
        """The rest of a layer after its mixer, and what the next one's takes."""
        graph = self._graph()
        result, hidden = self._inputs(graph, mixed)
        number = self._way(index + 1)
        shapes = [] if number is None else self._ways[number].shapes
        tables = tuple(graph.input((self._longest, *shape)) for shape in shapes)
        x = self._end(graph, result, hidden, index)
        taken = self._before_mixer(graph, x, index + 1, tables)
        for value in (x, *taken):
            graph.output(value)
        delegate = self._file.delegate(graph.document())
        following = []
        for each in mixed:
            flow = self._flow(each.step, taken)
            given = () if number is None else each.step.tables[number]
            each.step.method.delegate(delegate, [each.result, each.hidden, *given, flow.hidden, *flow.taken])
            following.append(flow)
        return following

    def _finish(self, mixed: Sequence[_Mixed], index: int) -> None:
        """The rest of the last layer, the final norm and the head."""
        spec, graph, blocks = self._spec, self._graph(), self._blocks
        x = self._end(graph, *self._inputs(graph, mixed), index)
        x = blocks.norm(graph, x, "final_norm")
        if spec.embedding is not None:
            x = blocks.linear(graph, x, "head_proj")
        name = "embed" if spec.tied else "head"
        logits = blocks.product(graph, x, name, blocks.stored(spec.head_name), blocks.optional("head.bias"))
        if spec.logit_softcap is not None:
            divided = graph.multiply(logits, graph.scalar(1.0 / spec.logit_softcap))
            logits = graph.multiply(graph.unary("XNNTanh", divided), graph.scalar(spec.logit_softcap))
        graph.output(logits)
        number = self._file.delegate(graph.document())
        for each in mixed:
            step, tokens = each.step, each.hidden.shape[1]
            out = step.tensor((1, tokens, spec.vocab), dynamic=step.method.name == "score")
            step.method.delegate(number, [each.result, each.hidden, out])
            step.method.output(out)

    def _graph(self) -> Subgraph:
        return Subgraph(self._file.data, self._type)

    @staticmethod
    def _inputs(graph: Subgraph, mixed: Sequence[_Mixed]) -> tuple[Value, Value]:
        """Arguments of a subgraph behind a mixer, as long as the longest method's."""
        longest = max(mixed, key=lambda each: each.hidden.shape[1])
        return graph.input(longest.result.shape), graph.input(longest.hidden.shape)

    def _flow(self, step: Step, taken: Sequence[Value]) -> _Flow:
        hidden = step.tensor((1, step.chunk, self._spec.hidden))
        return _Flow(step, hidden, tuple(step.tensor((1, step.chunk, *value.shape[2:])) for value in taken))

    def _way(self, index: int) -> int | None:
        """Which of the tables a layer reads."""
        way = way_of(self._spec.layers[index].attention)
        return None if way is None else self._ways.index(way)

    def _before_mixer(self, graph: Subgraph, x: Value, index: int, tables: Tables) -> list[Value]:
        """What a layer's mixer takes of the residual stream."""
        layer, name = self._spec.layers[index], f"layers.{index}"
        normed = self._blocks.norm(graph, x, f"{name}.attn_norm") if layer.pre_norms else x
        return projections(self._blocks, graph, normed, name, layer.attention, tables)

    def _after_mixer(self, graph: Subgraph, mixed: Value, residual: Value, index: int) -> tuple[Value, Value]:
        """The residual sum behind a layer's mixer, and what its feed-forward block takes."""
        layer, name, blocks = self._spec.layers[index], f"layers.{index}", self._blocks
        x = attended(blocks, graph, mixed, name, layer.attention)
        if layer.post_norms:
            x = blocks.norm(graph, x, f"{name}.post_attn_norm")
        added = graph.add(residual, x)
        if layer.sum_norms:
            added = blocks.norm(graph, added, f"{name}.attn_sum_norm")
        x = added if layer.residual == "serial" else residual
        if layer.pre_norms:
            x = blocks.norm(graph, x, f"{name}.{'attn' if layer.residual == 'shared' else 'mlp'}_norm")
        return added, x

    def _end(self, graph: Subgraph, result: Value, hidden: Value, index: int) -> Value:
        """The residual stream behind a layer."""
        layer, name = self._spec.layers[index], f"layers.{index}"
        if isinstance(layer.ffn, Moe):
            added, size = hidden, self._spec.hidden
            fed = graph.reshape(result, (1, 0, size), (1, result.shape[1], size))
        else:
            added, x = self._after_mixer(graph, result, hidden, index)
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
