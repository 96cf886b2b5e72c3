"""The steps of a method, and attention over its caches by the kernels of ExecuTorch's ``llama`` operators.

A cache holds the whole context, or for a sliding window a ring a little larger than the window: token ``p`` lies in
entry ``p % capacity``. What a query may see is then a mask, made once a step for all layers with the same window.
Source: extension/llm/custom_ops of ExecuTorch 1.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from edgesdk.model.spec import Attention

from .program import Method, Slot
from .sizes import capacity, head_width
from .states import Kept, States, fail_where
from .subgraph import Subgraph

_INT8 = 1  # ScalarType::Char


@dataclass(frozen=True)
class _Ring:
    """Where a step's tokens go, int64 [1, tokens], and what they see, float [tokens, capacity]."""

    places: Slot
    mask: Slot


@dataclass(frozen=True)
class _Rounded:
    """int8 values [1, n, heads, head_dim], and their float32 scales and int8 zero points [1, n, heads, 1]."""

    values: Slot
    scales: Slot
    zero_points: Slot


class Step:
    """What all layers of a method share in one step: tokens, embedding, positions, rotary tables, masks, and states.

    A call brings up to ``longest`` tokens. Where a step takes fewer, the method repeats all that is built between here
    and :meth:`close` for every ``chunk`` of them, so that memory is needed for one step only.
    """

    def __init__(
        self,
        method: Method,
        context: int,
        chunk: int,
        longest: int,
        float_type: torch.dtype,
        states: Mapping[str, Kept],
    ) -> None:
        self.method, self.context, self.chunk, self.type = method, context, chunk, float_type
        self.tokens = method.input(torch.int64, (1, longest), dynamic=True)
        self.begin = method.input(torch.int64, (1,))
        self._steps = ExitStack()
        self._place()
        beyond = method.flag()
        method.call("executorch_prim::gt.Scalar", [self._end, context], beyond)
        fail_where(method, beyond, self.begin)  # before a cache changes; kernels would spread what a table ends with
        if longest > chunk:
            self._repeat()
        self.tables: list[tuple[Slot, ...]] = []
        self.embedded: Slot  # [1, tokens, hidden]; comes with the tables
        self._rings: dict[tuple[int, int, torch.dtype], _Ring] = {}
        self.states = States(self, states)

    def close(self) -> None:
        """All of the method is built."""
        self._steps.close()

    def _repeat(self) -> None:
        """From here on, tokens and positions are those of one step."""
        method, given, begin = self.method, self.tokens, self.begin
        at, following = self._steps.enter_context(method.each(self.count, self.chunk))
        self.tokens = self.tensor((1, self.chunk), torch.int64)
        method.call("aten::slice_copy.Tensor_out", [given, 1, at, following, 1], self.tokens)
        self.begin = self.tensor((1,), torch.int64, dynamic=False)
        method.call("aten::add.Scalar_out", [begin, at, 1], self.begin)
        self._place()

    def _place(self) -> None:
        """Where the tokens begin and end, and how many there are."""
        method = self.method
        self.start, self._end, self.count = (method.variable() for _ in range(3))
        method.call("aten::_local_scalar_dense", [self.begin], self.start)
        method.call("aten::sym_size.int", [self.tokens, 1], self.count)
        method.call("executorch_prim::add.Scalar", [self.start, self.count], self._end)

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype | None = None, *, dynamic: bool = True) -> Slot:
        """A tensor in planned memory whose length follows the tokens, unless it is not ``dynamic``."""
        return self.method.tensor(dtype or self.type, shape, dynamic=dynamic)

    def rows(self, table: Slot) -> Slot:
        """The rows of a table for the step's positions."""
        out = self.tensor((self.chunk, *table.shape[1:]), table.dtype)
        self.method.call("aten::slice_copy.Tensor_out", [table, 0, self.start, self._end, 1], out)
        return out

    def last(self, slot: Slot, count: int = 1) -> Slot:
        """The rows of the last tokens of [1, tokens, ...], ``count`` of them or as many as there are."""
        out = self.tensor((1, count, *slot.shape[2:]), slot.dtype, dynamic=count > 1)
        self.method.call("aten::slice_copy.Tensor_out", [slot, 1, -count, 2**63 - 1, 1], out)
        return out

    def ring(self, window: int, entries: int, mask_type: torch.dtype) -> _Ring:
        """Entries and mask for one kind of cache; made once."""
        key = (window, entries, mask_type)
        if key not in self._rings:
            self._rings[key] = self._make_ring(window, entries, mask_type)
        return self._rings[key]

    def store(self, new: Slot, cache: Slot, ring: _Ring | None) -> None:
        """Write the step's rows into a cache."""
        nothing = self.tensor((1,), new.dtype, dynamic=False)
        if ring is None:
            self.method.call("llama::update_cache.out", [new, cache, self.start], nothing)
        else:
            self.method.call("llama::update_cache_with_indices.out", [new, cache, self.start, ring.places], nothing)

    def _make_ring(self, window: int, entries: int, mask_type: torch.dtype) -> _Ring:
        """Entry ``j`` holds position ``last - (last - j) % entries``; a query at ``p`` sees ``p - window < q <= p``."""
        call = self.method.call
        chunk, whole, flag = self.chunk, torch.int64, torch.bool
        positions = self.tensor((chunk,), whole)
        call("aten::arange.start_out", [self.start, self._end, 1], positions)
        wrapped, places = self.tensor((chunk,), whole), self.tensor((1, chunk), whole)
        call("aten::remainder.Scalar_out", [positions, entries], wrapped)
        call("aten::unsqueeze_copy.out", [wrapped, 0], places)

        last = self.method.variable()
        call("executorch_prim::sub.Scalar", [self._end, 1], last)
        held = self.method.constant(f"ring.{entries}", torch.arange(entries))
        for operator, operand in (("rsub", last), ("remainder", entries), ("rsub", last)):
            out = self.tensor((entries,), whole, dynamic=False)
            more = [1] if operator == "rsub" else []
            call(f"aten::{operator}.Scalar_out", [held, operand, *more], out)
            held = out
        filled = self.tensor((entries,), flag, dynamic=False)
        call("aten::ge.Scalar_out", [held, 0], filled)

        rows, age = self.tensor((chunk, 1), whole), self.tensor((chunk, entries), whole)
        call("aten::unsqueeze_copy.out", [positions, 1], rows)
        call("aten::sub.out", [rows, held, 1], age)
        seen = filled
        for comparison, limit in (("ge", 0), ("lt", window)):
            near, both = self.tensor((chunk, entries), flag), self.tensor((chunk, entries), flag)
            call(f"aten::{comparison}.Scalar_out", [age, limit], near)
            call("aten::logical_and.out", [near, seen], both)
            seen = both
        kind = str(mask_type).removeprefix("torch.")
        shown = self.method.constant(f"mask.shown.{kind}", torch.zeros(1, dtype=mask_type))
        hidden = self.method.constant(f"mask.hidden.{kind}", torch.full((1,), float("-inf"), dtype=mask_type))
        mask = self.tensor((chunk, entries), mask_type)
        call("aten::where.self_out", [seen, shown, hidden], mask)
        return _Ring(places, mask)


class Cache:
    """Keys and values of one layer, [1, capacity, kv_heads, :func:`~.sizes.head_width`] each."""

    def __init__(self, step: Step, attention: Attention) -> None:
        self._step, self._attention = step, attention
        entries = capacity(attention.window, step.context)
        shape = (1, entries, attention.kv_heads, head_width(attention))
        self._keys, self._values = (step.method.state(step.type, shape) for _ in range(2))
        window, capped = attention.window or step.context, attention.softcap is not None
        mask_type = step.type if capped else torch.float32  # as a subgraph reads it, or as the kernel does
        self._ring = step.ring(window, entries, mask_type) if capped or window < step.context else None

    def update(self, keys: Slot, values: Slot) -> None:
        """Write the step's keys and values, [1, tokens, kv_heads, head_dim]."""
        step = self._step
        for cache, new in ((self._keys, keys), (self._values, values)):
            step.store(new, cache, self._ring)

    @property
    def contents(self) -> list[Slot]:
        """Keys, values and the mask, for attention by a delegate."""
        assert self._ring is not None
        return [self._keys, self._values, self._ring.mask]

    def attend(self, queries: Slot) -> Slot:
        """The attention of queries [1, tokens, heads, head_dim], in the same shape."""
        step, ring = self._step, self._ring
        out = step.tensor(queries.shape)
        mask, causal = (None, True) if ring is None else (ring.mask, False)
        arguments = [queries, self._keys, self._values, step.start, mask, 0.0, causal, self._attention.scale]
        step.method.call("llama::custom_sdpa.out", arguments, out)
        return out


class QuantizedCache:
    """The same in int8: a scale and a zero point for each token and head, and attention over the integers."""

    def __init__(self, step: Step, attention: Attention) -> None:
        assert attention.softcap is None  # see the converter's check
        assert attention.alibi is None
        self._step, self._attention = step, attention
        entries = capacity(attention.window, step.context)
        window = attention.window or step.context
        self._ring = step.ring(window, entries, torch.float32) if window < step.context else None
        heads = (1, entries, attention.kv_heads)
        self._keys, self._values = (
            _Rounded(
                step.method.state(torch.int8, (*heads, attention.head_dim)),
                step.method.state(torch.float32, (*heads, 1)),
                step.method.state(torch.int8, (*heads, 1)),
            )
            for _ in range(2)
        )

    def update(self, keys: Slot, values: Slot) -> None:
        """Round the step's keys and values, [1, tokens, kv_heads, head_dim], and write them."""
        for cache, new in ((self._keys, self._round(keys)), (self._values, self._round(values))):
            self._step.store(new.values, cache.values, self._ring)
            self._step.store(new.scales, cache.scales, self._ring)
            self._step.store(new.zero_points, cache.zero_points, self._ring)

    def attend(self, queries: Slot) -> Slot:
        """The attention of queries [1, tokens, heads, head_dim], in the same shape."""
        step, ring = self._step, self._ring
        q, out = self._round(queries), step.tensor(queries.shape)
        mask, causal = (None, True) if ring is None else (ring.mask, False)
        arguments = [q.values, self._keys.values, self._values.values, step.start, mask, 0.0, causal]
        arguments.append(self._attention.scale)
        for rounded in (q, self._keys, self._values):
            arguments += [rounded.zero_points, rounded.scales]
        step.method.call("llama::custom_quantized_sdpa.out", [*arguments, False], out)
        return out

    def _round(self, values: Slot) -> _Rounded:
        """Each token's row of each head in int8, with the scale that spans it."""
        step, rows = self._step, (*values.shape[:3], 1)
        wide_scales, wide_zeros = step.tensor(rows, torch.float64), step.tensor(rows, torch.int64)
        choose = "quantized_decomposed::choose_qparams_per_token_asymmetric.out"
        step.method.call(choose, [values, _INT8], wide_scales, wide_zeros)
        rounded = step.tensor(values.shape, torch.int8)
        arguments = [values, wide_scales, wide_zeros, -128, 127, _INT8]
        step.method.call("quantized_decomposed::quantize_per_token.out", arguments, rounded)
        scales, zeros = step.tensor(rows, torch.float32), step.tensor(rows, torch.int8)
        for wide, narrow in ((wide_scales, scales), (wide_zeros, zeros)):
            step.method.call("aten::_to_copy.out", [wide, False, None], narrow)
        return _Rounded(rounded, scales, zeros)


def capped_attention(graph: Subgraph, attention: Attention, chunk: int, entries: int) -> None:
    """Attention with a soft cap on its scores, which the kernel lacks, as a subgraph over the whole cache.

    Arguments: queries [1, tokens, heads, head_dim], keys and values as in :class:`Cache`, and the mask.
    """
    assert attention.softcap is not None
    heads, kv_heads, head_dim = attention.heads, attention.kv_heads, attention.head_dim
    rows = heads // kv_heads * chunk
    queries = graph.input((1, chunk, heads, head_dim))
    keys, values = (graph.input((1, entries, kv_heads, head_dim)) for _ in range(2))
    mask = graph.input((chunk, entries))
    q = graph.reshape(graph.transpose(queries, (0, 2, 1, 3)), (kv_heads, 0, head_dim), (kv_heads, rows, head_dim))
    k_shape, v_shape = (kv_heads, head_dim, entries), (kv_heads, entries, head_dim)
    k = graph.reshape(graph.transpose(keys, (0, 2, 3, 1)), k_shape, k_shape)
    v = graph.reshape(graph.transpose(values, (0, 2, 1, 3)), v_shape, v_shape)
    scores = graph.multiply(graph.matmul(q, k), graph.scalar(attention.scale / attention.softcap))
    scores = graph.multiply(graph.unary("XNNTanh", scores), graph.scalar(attention.softcap))
    scores = graph.add(graph.reshape(scores, (heads, 0, entries), (heads, chunk, entries)), mask)
    weights = graph.reshape(graph.unary("XNNSoftmax", scores), (kv_heads, 0, entries), (kv_heads, rows, entries))
    mixed = graph.reshape(graph.matmul(weights, v), (1, heads, 0, head_dim), (1, heads, chunk, head_dim))
    graph.output(graph.transpose(mixed, (0, 2, 1, 3)))
