"""The ONNX graph of an encoder: padding masked, pooling and head inside.

Inputs and outputs carry the names that optimum and sentence-transformers give theirs: ``input_ids``,
``attention_mask``, ``token_type_ids`` where segments count; ``last_hidden_state``, and ``sentence_embedding`` or
``logits``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import torch

from edgesdk.model.encoder_spec import Classification
from edgesdk.model.encoders import network
from edgesdk.model.encoders.reference import HIDDEN, relative_table
from edgesdk.model.weights import dense

from .arithmetic import OnnxArithmetic
from .builder import GraphBuilder
from .linear import Activations, embedding
from .names import EMBEDDING, LOGITS, STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgesdk.model import Weights
    from edgesdk.model.encoder_spec import EncoderAttention, EncoderSpec, Pooling, RelativePositions
    from edgesdk.model.encoders.model import EncoderModel

_INT64_MAX = 2**63 - 1


class TextGraph(OnnxArithmetic):
    """Arithmetic over one batch of padded texts; implements :class:`.network.TextArithmetic`."""

    def __init__(
        self,
        builder: GraphBuilder,
        spec: EncoderSpec,
        weights: Weights,
        context: int,
        activations: Activations,
        names: Sequence[str],
    ) -> None:
        """``names`` are those of all tensors that there are."""
        super().__init__(builder, weights, names, activations)
        self._spec, self._context = spec, context
        self._ids = builder.input("input_ids", ir.DataType.INT64, ["batch", "positions"])
        self._given_mask = builder.input("attention_mask", ir.DataType.INT64, ["batch", "positions"])
        self._types: ir.Value | None = None
        if spec.embedding.types > 1:
            self._types = builder.input("token_type_ids", ir.DataType.INT64, ["batch", "positions"])
        self._mask = self.op("Cast", [self._given_mask], to=int(ir.DataType.INT32))
        self._made: dict[object, ir.Value] = {}

    def token_rows(self) -> ir.Value:
        return embedding(self.builder, self._ids, "embed", self._weights.get("embed.weight"))

    def trigram_rows(self) -> ir.Value:
        b, shown = self.builder, self._shown()
        rows = self.multiply(self.token_rows(), shown)  # padding is nobody's neighbour
        zero, one = b.constant("axis.start", [0]), b.constant("one", [1])
        last, end = b.constant("minus.one", [-1]), b.constant("end", [_INT64_MAX])
        after = self.op("Pad", [self.slice(rows, one, end, 1), b.constant("pad.after", [0, 0, 0, 0, 1, 0])])
        before = self.op("Pad", [self.slice(rows, zero, last, 1), b.constant("pad.before", [0, 1, 0, 0, 0, 0])])
        return self.op("Concat", [after, rows, before], axis=-1)

    def position_rows(self, first: int) -> ir.Value:
        b = self.builder
        table = self._weights.get("positions.weight")
        assert isinstance(table, torch.Tensor)
        stored = b.floats("positions.weight", table[first : first + self._context].float())
        rows = self.slice(stored, b.constant("axis.start", [0]), self.length(self._ids, 1), 0)
        return self.op("Unsqueeze", [rows, b.constant("axis.start", [0])])

    def type_rows(self) -> ir.Value:
        table = self.floats("types.weight")
        return self.op("Gather", [table, self._types]) if self._types is not None else table

    def attend(self, q: ir.Value, k: ir.Value, v: ir.Value, attention: EncoderAttention) -> ir.Value:
        if attention.rope is not None:
            start = self.builder.constant("axis.start", [0])
            q, k = (self.rotated(x, attention.rope, attention.head_dim, self._context, start) for x in (q, k))
        return self.attended(q, k, v, attention, self._mask, self._bias_of(attention))

    def pool(self, x: ir.Value, pooling: Pooling) -> ir.Value:
        b = self.builder
        if pooling == "cls":
            return self.op("Gather", [x, b.constant("number.zero", 0)], axis=1)
        axis, shown = b.constant("axis.1", [1]), self._shown()
        total = self.op("ReduceSum", [self.multiply(x, shown), axis], keepdims=0)
        return self.op("Div", [total, self.op("ReduceSum", [shown, axis], keepdims=0)])

    def unit(self, x: ir.Value) -> ir.Value:
        return self.op("LpNormalization", [x], axis=-1, p=2)

    def _shown(self) -> ir.Value:
        """1 for every token and 0 for padding, float [batch, positions, 1]."""

        def make() -> ir.Value:
            floats = self.op("Cast", [self._given_mask], to=int(ir.DataType.FLOAT))
            return self.op("Unsqueeze", [floats, self.builder.constant("minus.one", [-1])])

        return self.cached(self._made, "shown", make)

    def _bias_of(self, attention: EncoderAttention) -> ir.Value | None:
        """What is added to the scores, [1, heads or 1, positions, positions]."""
        if self._spec.relative is not None:
            relative = self._spec.relative
            return self.cached(self._made, "relative", lambda: self._relative(relative))
        if attention.window is None:
            return None
        window = attention.window
        return self.cached(self._made, ("window", window), lambda: self._window(window))

    def _window(self, window: int) -> ir.Value:
        b = self.builder
        far = self.op("Greater", [self.op("Abs", [self._distances()]), b.constant(f"window.{window}", [window])])
        hidden, shown = b.floats("hidden", torch.tensor(HIDDEN)), b.floats("shown", torch.tensor(0.0))
        bias = self.op("Where", [far, hidden, shown])
        return self.op("Unsqueeze", [bias, b.constant("axes.0.1", [0, 1])])

    def _relative(self, relative: RelativePositions) -> ir.Value:
        count = self.length(self._ids, 1)
        numbers = self.positions(count)
        return relative_bias(self, relative, "relative.weight", numbers, numbers, self._context)

    def _distances(self) -> ir.Value:
        count = self.length(self._ids, 1)
        return distances(self, self.positions(count), self.positions(count))


def distances(ops: OnnxArithmetic, queries: ir.Value, keys: ir.Value) -> ir.Value:
    """Key minus query for every pair of positions, int64 [queries, keys]."""
    b = ops.builder
    columns = ops.op("Unsqueeze", [keys, b.constant("axis.start", [0])])
    return ops.op("Sub", [columns, ops.op("Unsqueeze", [queries, b.constant("axis.1", [1])])])


def relative_bias(
    ops: OnnxArithmetic, relative: RelativePositions, name: str, queries: ir.Value, keys: ir.Value, context: int
) -> ir.Value:
    """T5's bias [1, heads, queries, keys]: a row for each distance, made from the table of this name."""
    b = ops.builder
    table = b.floats(f"{name}.distances", relative_table(relative, dense(ops.stored(name)), context))
    places = ops.op("Add", [distances(ops, queries, keys), b.constant("relative.start", [context])])
    rows = ops.op("Transpose", [ops.op("Gather", [table, places])], perm=[2, 0, 1])
    return ops.op("Unsqueeze", [rows, b.constant("axis.start", [0])])


def emit(
    builder: GraphBuilder, model: EncoderModel, context: int, activations: Activations, on_layer: Callable[[], object]
) -> None:
    """Build the graph of an encoder."""
    spec: EncoderSpec = model.spec
    graph = TextGraph(builder, spec, model.weights, context, activations, list(spec.tensors()))
    states = network.states(graph, spec, on_layer)
    answer = network.answer(graph, spec.head, spec.norm, states)
    name = LOGITS if isinstance(spec.head, Classification) else EMBEDDING
    builder.output(states, STATES, ir.DataType.FLOAT, ["batch", "positions", spec.hidden])
    builder.output(answer, name, ir.DataType.FLOAT, ["batch", spec.size])
