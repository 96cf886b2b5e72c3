"""An encoder as an ExecuTorch program: kernels look rows up, one XNNPACK subgraph does the rest.

Two methods share the weights: ``forward(tokens)`` gives a text's embedding or its labels' logits, [1, size];
``states(tokens)`` gives the last states of every token, [1, tokens, hidden]. Where segments count, both take them as a
second argument. One text a call, of any length up to the exported one: nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from edgesdk.model.encoders import network
from edgesdk.model.encoders.reference import HIDDEN, relative_table
from edgesdk.model.rope import rotary_tables
from edgesdk.model.weights import dense

from .arithmetic import XnnArithmetic
from .embedding import embed, swaps_pairs
from .program import Method, Number, ProgramFile, Slot
from .subgraph import Subgraph, Value

if TYPE_CHECKING:
    from edgesdk.model import Weights
    from edgesdk.model.encoder_spec import EncoderAttention, EncoderSpec, Pooling, RelativePositions
    from edgesdk.model.encoders.model import EncoderModel
    from edgesdk.model.spec import Rope

FORWARD, STATES = "forward", "states"


class Text:
    """What a method knows of its text before the subgraph runs: kernels' results, in order of the arguments."""

    def __init__(self, method: Method, spec: EncoderSpec, weights: Weights, context: int) -> None:
        self.method, self.chunk, self.type = method, context, torch.float32
        self.spec, self.weights = spec, weights
        self.tokens = method.input(torch.int64, (1, context), dynamic=True)
        self.types: Slot | None = None
        if spec.embedding.types > 1:
            self.types = method.input(torch.int64, (1, context), dynamic=True)
        self.count = method.variable()
        method.call("aten::sym_size.int", [self.tokens, 1], self.count)

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype | None = None, *, dynamic: bool = True) -> Slot:
        return self.method.tensor(dtype or self.type, shape, dynamic=dynamic)

    def rows_of(self, name: str, table: torch.Tensor, first: int = 0) -> Slot:
        """The first rows of a table, as many as there are tokens."""
        stored = self.method.constant(name, table[first : first + self.chunk].contiguous())
        return self.cut(stored, 0, 0, self.count, (self.chunk, *table.shape[1:]))

    def cut(self, slot: Slot, axis: int, start: int | Number, end: int | Number, shape: tuple[int, ...]) -> Slot:
        out = self.tensor(shape, slot.dtype)
        self.method.call("aten::slice_copy.Tensor_out", [slot, axis, start, end, 1], out)
        return out

    def neighbours(self, rows: Slot) -> tuple[Slot, Slot]:
        """The row behind every row and the one before it, zeros outside."""
        _, most, size = rows.shape
        one_more = self.method.variable()
        self.method.call("executorch_prim::add.Scalar", [self.count, 1], one_more)
        after, before = (self.tensor((1, most + 1, size)) for _ in range(2))
        self.method.call("aten::constant_pad_nd.out", [rows, (0, 0, 0, 1), 0.0], after)
        self.method.call("aten::constant_pad_nd.out", [rows, (0, 0, 1, 0), 0.0], before)
        return self.cut(after, 1, 1, one_more, rows.shape), self.cut(before, 1, 0, self.count, rows.shape)

    def distances(self) -> Slot:
        """Key minus query, int64 [tokens, tokens]."""
        most, whole = self.chunk, torch.int64
        positions, columns = self.tensor((most,), whole), self.tensor((most, 1), whole)
        self.method.call("aten::arange.start_out", [0, self.count, 1], positions)
        self.method.call("aten::unsqueeze_copy.out", [positions, 1], columns)
        found = self.tensor((most, most), whole)
        self.method.call("aten::sub.out", [positions, columns, 1], found)
        return found

    def window(self, distances: Slot, window: int) -> Slot:
        """What hides positions farther than a window, float [tokens, tokens]."""
        call, shape = self.method.call, distances.shape
        near, above, below = (self.tensor(shape, torch.bool) for _ in range(3))
        call("aten::le.Scalar_out", [distances, window], above)
        call("aten::ge.Scalar_out", [distances, -window], below)
        call("aten::logical_and.out", [above, below], near)
        shown = self.method.constant("mask.shown", torch.zeros(1))
        hidden = self.method.constant("mask.hidden", torch.full((1,), HIDDEN))
        mask = self.tensor(shape)
        call("aten::where.self_out", [near, shown, hidden], mask)
        return mask

    def relative(self, distances: Slot, relative: RelativePositions) -> Slot:
        """T5's bias, float [tokens, tokens, heads]."""
        table = relative_table(relative, dense(self.weights.get("relative.weight")), self.chunk)
        stored = self.method.constant("relative.distances", table)
        places, out = self.tensor(distances.shape, torch.int64), self.tensor((*distances.shape, table.shape[1]))
        self.method.call("aten::add.Scalar_out", [distances, self.chunk, 1], places)
        self.method.call("aten::embedding.out", [stored, places, -1, False, False], out)
        return out


class TextGraph(XnnArithmetic):
    """The subgraph over one text; implements :class:`edgesdk.model.encoders.network.TextArithmetic`."""

    def __init__(self, graph: Subgraph, text: Text, names: Sequence[str], tied: bool = False) -> None:
        """``names`` are those of all tensors; ``tied``: a head elsewhere reads the embedding too."""
        super().__init__(graph, text.weights, names)
        self._spec, self._text = text.spec, text
        self.arguments: list[Slot] = []
        spec = text.spec
        rows = embed(text, text.weights.get("embed.weight"), tied)
        neighbours = text.neighbours(rows) if spec.embedding.trigram else None
        self._rows = self._argument(rows)
        self._neighbours = None if neighbours is None else [self._argument(slot) for slot in neighbours]
        self._positions: Value | None = None
        if spec.embedding.positions:
            table = dense(text.weights.get("positions.weight"))
            self._positions = self._argument(text.rows_of("positions", table, spec.embedding.first_position))
        self._types: Value | None = None
        if text.types is not None:
            self._types = self._argument(self._type_rows(text.types))
        self._tables = {key: self._rotary(number, *key) for number, key in enumerate(spec.ropes)}
        self._windows: dict[int, Value] = {}
        self._relative: Value | None = None
        if spec.windows or spec.relative is not None:
            distances = text.distances()
            self._windows = {size: self._argument(text.window(distances, size)) for size in spec.windows}
            if spec.relative is not None:
                self._relative = graph.transpose(self._argument(text.relative(distances, spec.relative)), (2, 0, 1))

    def token_rows(self) -> Value:
        return self._unswapped(self._rows)

    def trigram_rows(self) -> Value:
        assert self._neighbours is not None
        after, before = (self._unswapped(value) for value in self._neighbours)
        return self.graph.concatenate(self.graph.concatenate(after, self.token_rows(), 2), before, 2)

    def position_rows(self, first: int) -> Value:
        assert self._positions is not None
        return self._positions

    def type_rows(self) -> Value:
        return self.weight("types.weight") if self._types is None else self._types

    def attend(self, q: Value, k: Value, v: Value, attention: EncoderAttention) -> Value:
        tables = None if attention.rope is None else self._tables[attention.rope, attention.head_dim]
        bias = self._relative if attention.window is None else self._windows[attention.window]
        return self.attended(q, k, v, attention, bias, tables)

    def pool(self, x: Value, pooling: Pooling) -> Value:
        graph, size = self.graph, x.shape[-1]
        if pooling == "cls":
            first = graph.part(x, 1, 0, 1)
        else:
            first = graph.average(graph.reshape(x, (1, 0, 1, size), (1, x.shape[1], 1, size)))
        return graph.reshape(first, (1, size), (1, size))

    def unit(self, x: Value) -> Value:
        """Scaled to length 1; the mean of squares is a ``size``-th of the squared length."""
        graph, size = self.graph, x.shape[-1]
        squares = graph.multiply(self.mean(graph.unary("XNNSquare", x), 0.0), graph.scalar(float(size)))
        return graph.multiply(x, self.reciprocal_root(graph.add(squares, graph.scalar(1e-24))))

    def _argument(self, slot: Slot) -> Value:
        self.arguments.append(slot)
        return self.graph.input(slot.shape)

    def _type_rows(self, types: Slot) -> Slot:
        table = dense(self._text.weights.get("types.weight"))
        out = self._text.tensor((1, self._text.chunk, table.shape[1]))
        stored = self._text.method.constant("types", table)
        self._text.method.call("aten::embedding.out", [stored, types, -1, False, False], out)
        return out

    def _rotary(self, number: int, rope: Rope, head_dim: int) -> tuple[Value, Value]:
        """Cosines ``[cos, cos]`` and sines ``[-sin, sin]`` of the text's positions, [tokens, 1, head_dim] each."""
        cos, sin = rotary_tables(rope, head_dim, self._text.chunk)
        wide = torch.cat((cos, cos), dim=1), torch.cat((-sin, sin), dim=1)
        names = f"rope.{number}.cos", f"rope.{number}.sin"
        first, second = (
            self._argument(self._text.rows_of(name, table.unsqueeze(1)))
            for name, table in zip(names, wide, strict=True)
        )
        return first, second

    def _unswapped(self, rows: Value) -> Value:
        """Rows as they are in the table: the 4-bit kernel exchanges the entries of each pair."""
        if not swaps_pairs(self._text.weights.get("embed.weight")):
            return rows
        graph, (_, most, size) = self.graph, rows.shape
        pairs = graph.reshape(rows, (0, size // 2, 2), (most, size // 2, 2))
        turned = graph.concatenate(graph.part(pairs, 2, 1, 1), graph.part(pairs, 2, 0, 1), 2)
        return graph.reshape(turned, (1, 0, size), (1, most, size))


def emit(file: ProgramFile, model: EncoderModel, context: int, on_layer: Callable[[], object]) -> None:
    """Build both methods of an encoder."""
    spec = model.spec
    for name in (FORWARD, STATES):
        text = Text(Method(name, file.data), spec, model.weights, context)
        graph = TextGraph(Subgraph(file.data, torch.float32), text, list(spec.tensors()))
        states = network.states(graph, spec, on_layer)
        if name == FORWARD:
            value = network.answer(graph, spec.head, spec.norm, states)
            out = text.tensor((1, spec.size), dynamic=False)
        else:
            value, out = states, text.tensor((1, context, spec.hidden))
        graph.graph.output(value)
        text.method.delegate(file.delegate(graph.graph.document()), [*graph.arguments, out])
        text.method.output(out)
        file.method(text.method)
