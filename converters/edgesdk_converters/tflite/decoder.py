"""The graph of one decode step, for every arithmetic.

Inputs ``tok[1]`` and ``pos[1]`` (int32), and for each layer ``K[kv, S, d]`` and ``VT[kv, d, S]`` (values transposed);
outputs ``logits[1, V]``, for each layer the new row of K and column of VT, then the caches again: listing them keeps
their memory alive between steps, so that the caller writes one row in place.

The residual stream, norms, rotary positions and gates are float32 whatever the arithmetic: products alone take
integers, with QUANTIZE before and DEQUANTIZE after them (targets have an FPU, and float costs them little there). So
norm weights need not be folded, and every runtime gets the pass's own integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgesdk.model.rope import rotary_tables
from edgesdk.model.spec import Attention, Layer, Rope
from edgesdk.model.weights import dense

from .graph import Graph, Value
from .linear import Linears
from .numerics import KIND, PROBABILITIES, Numerics, lowest
from .ops import Ops

if TYPE_CHECKING:
    from edgesdk.model import Model

_NEVER = -1e9  # a float score whose probability is exactly zero


class DecoderGraph:
    """Emits a model's decode step."""

    def __init__(self, model: Model, context: int, numerics: Numerics) -> None:
        self.graph = Graph()
        self._o, self._model, self._spec = Ops(self.graph), model, model.spec
        self._context, self._numerics = context, numerics
        self._linears = Linears(self._o, model, numerics)
        self._kind = KIND[numerics.attention]
        self._rows: list[Value] = []
        self._masks: dict[tuple[int, int, int | None], Value] = {}
        self._tables: dict[tuple[Rope, int, float], tuple[Value, Value]] = {}

    @property
    def points(self) -> list[Value]:
        """Tensors of a float graph whose ranges a static graph needs."""
        return self._linears.points

    @property
    def scores(self) -> list[Value]:
        """Masked scores of a float graph; of their ranges, a static graph needs what a softmax tells from zero."""
        return self._linears.scores

    def emit(self) -> Iterator[int]:
        """Build the graph, yielding after every layer (for progress)."""
        o, graph, spec = self._o, self.graph, self._spec
        tok, self._pos = graph.input("tok", [1], "INT32"), graph.input("pos", [1], "INT32")
        caches = [self._caches(index, layer.attention) for index, layer in enumerate(spec.layers)]
        x = self._linears.embedding(tok)
        if spec.embedding_scale != 1.0:
            x = o.multiply(x, o.floats("embed.factor", spec.embedding_scale), "embed.scaled")
        if spec.learned_positions:
            table = dense(self._model.weights.get("positions.weight")).numpy()[: self._context]
            x = o.add(x, o.lookup(self._pos, o.floats("positions.table", table), "positions"), "embed.placed")
        for index, layer in enumerate(spec.layers):
            x = self._layer(f"layers.{index}", layer, x, *caches[index])
            yield index
        logits = self._linears.head(self._norm(x, "final_norm"))
        if spec.logit_softcap is not None:
            logits = self._capped(self._linears.floating(logits), spec.logit_softcap, "logits.capped")
        graph.outputs += [logits, *self._rows, *(cache for pair in caches for cache in pair)]

    def _caches(self, index: int, attention: Attention) -> tuple[Value, Value]:
        kv, size, made = attention.kv_heads, attention.head_dim, []
        for part, shape in (("k", (kv, self._context, size)), ("v", (kv, size, self._context))):
            grid = (
                None
                if self._kind == "FLOAT32"
                else self._numerics.grid(f"layers.{index}.{part}", self._kind, symmetric=True)
            )
            made.append(self.graph.input(f"layers.{index}.{part}_cache", shape, self._kind, grid))
        return made[0], made[1]

    def _layer(self, name: str, layer: Layer, x: Value, keys: Value, values: Value) -> Value:
        o = self._o
        attended = self._attention(name, layer.attention, self._norm(x, f"{name}.attn_norm"), keys, values)
        if layer.post_norms:
            attended = self._norm(attended, f"{name}.post_attn_norm")
        x = o.add(x, attended, f"{name}.after_attention")
        fed = self._feed(name, layer, self._norm(x, f"{name}.mlp_norm"))
        if layer.post_norms:
            fed = self._norm(fed, f"{name}.post_mlp_norm")
        return o.add(x, fed, f"{name}.after_mlp")

    def _attention(self, name: str, attention: Attention, x: Value, keys: Value, values: Value) -> Value:
        o, linears = self._o, self._linears
        kv, size, groups = attention.kv_heads, attention.head_dim, attention.heads // attention.kv_heads
        q = o.reshape(linears.product(x, f"{name}.q"), (kv, groups, size), f"{name}.q_heads")
        k = o.reshape(linears.product(x, f"{name}.k"), (kv, 1, size), f"{name}.k_heads")
        both = self._positioned(name, attention, o.concat([q, k], 1, f"{name}.qk"))
        q = linears.measured(o.slice(both, 1, 0, groups, f"{name}.q_turned"), self._kind)
        k = linears.onto(o.slice(both, 1, groups, 1, f"{name}.k"), keys)
        v = linears.onto(o.reshape(linears.product(x, f"{name}.v", values), (kv, size, 1), f"{name}.v"), values)
        self._rows += [k, v]
        scores = self._scores(name, attention, q, o.concat([keys, k], 1, f"{name}.k_all"))
        probabilities = o.softmax(scores, f"{name}.probabilities", PROBABILITIES.get(scores.kind))
        every = o.concat([values, v], 2, f"{name}.v_all")
        attended = linears.batch_matmul(probabilities, every, f"{name}.attended")
        return linears.product(o.reshape(attended, (1, attention.q_size), f"{name}.heads_joined"), f"{name}.o")

    def _positioned(self, name: str, attention: Attention, qk: Value) -> Value:
        """Norms and rotary positions of queries and the key, [kv, groups + 1, d], and the root of the scale on each."""
        o, size = self._o, attention.head_dim
        if attention.qk_norm:
            weights = [dense(self._model.weights.get(f"{name}.{part}_norm.weight")).numpy() for part in "qk"]
            tiled = np.concatenate(
                [np.tile(weights[0], (qk.shape[0], qk.shape[1] - 1, 1)), np.tile(weights[1], (qk.shape[0], 1, 1))], 1
            )
            qk = self._normed(qk, tiled, f"{name}.qk_norm")
        if attention.rope is None:
            return o.multiply(qk, o.floats(f"root.{attention.scale:g}", math.sqrt(attention.scale)), f"{name}.scaled")
        cos, sin = self._turns(attention.rope, attention)
        halves = [o.slice(qk, 2, start, size // 2, f"{name}.half{start}") for start in (size // 2, 0)]
        swapped = o.multiply(o.concat(halves, 2, f"{name}.swapped"), sin, f"{name}.sines")
        return o.add(o.multiply(qk, cos, f"{name}.cosines"), swapped, f"{name}.turned")

    def _turns(self, rope: Rope, attention: Attention) -> tuple[Value, Value]:
        """Cosines, and sines with the sign of the half they meet, at this position: [1, d] each.

        Both carry the root of the attention's scale, so that the product of a query and a key needs no other factor.
        """
        key = (rope, attention.head_dim, attention.scale)
        if key not in self._tables:
            cos, sin = (
                table.numpy() * math.sqrt(attention.scale)
                for table in rotary_tables(rope, attention.head_dim, self._context)
            )
            made = []
            for part, table in (("cos", np.concatenate([cos, cos], 1)), ("sin", np.concatenate([-sin, sin], 1))):
                name = f"rope{len(self._tables)}.{part}"
                made.append(self._o.lookup(self._pos, self._o.floats(f"{name}.table", table), name))
            self._tables[key] = made[0], made[1]
        return self._tables[key]

    def _scores(self, name: str, attention: Attention, q: Value, keys: Value) -> Value:
        """Products of queries and keys, capped and masked: [kv, groups, S + 1], the last column the token itself."""
        o, linears = self._o, self._linears
        if attention.softcap is None:
            scores = linears.batch_matmul(q, keys, f"{name}.scores", f"{name}.masked")
        else:
            wide = linears.floating(linears.batch_matmul(q, keys, f"{name}.uncapped"))
            capped = self._capped(wide, attention.softcap, f"{name}.capped")
            scores = linears.measured(capped, self._kind, f"{name}.masked")
        mask = self._mask(attention, scores)
        if scores.kind == "FLOAT32":
            masked = o.add(scores, mask, f"{name}.masked")
            linears.scores.append(masked)
            return masked
        assert scores.grid is not None
        hidden = self.graph.constant(
            "hidden." + "x".join(map(str, scores.shape)),
            np.full(scores.shape, lowest(scores.kind), np.int8 if scores.kind == "INT8" else np.int16),
            scores.grid,
        )
        return o.select(mask, scores, hidden, f"{name}.masked")

    def _mask(self, attention: Attention, scores: Value) -> Value:
        """Which cached positions count, in the full shape of scores, so that no kernel broadcasts it in every layer.

        For integers whether they count, for floats what to add.
        """
        o = self._o
        key = (scores.shape[0], scores.shape[1], attention.window)
        if key not in self._masks:
            name = f"mask{len(self._masks)}"
            slots = np.arange(self._context + 1)
            slots[-1] = -1  # the token itself counts always
            position = o.add(o.integers(f"{name}.zeros", np.zeros((*scores.shape[:2], 1))), self._pos, f"{name}.pos")
            mask = o.less(o.integers(f"{name}.slots", slots.reshape(1, 1, -1)), position, f"{name}.past")
            if attention.window is not None:
                ends = slots + attention.window
                ends[-1] = np.iinfo(np.int32).max
                inside = o.greater(o.integers(f"{name}.ends", ends.reshape(1, 1, -1)), position, f"{name}.inside")
                mask = o.both(mask, inside, f"{name}.window")
            if scores.kind == "FLOAT32":
                mask = o.select(mask, o.floats("mask.shown", 0.0), o.floats("mask.never", _NEVER), f"{name}.added")
            self._masks[key] = mask
        return self._masks[key]

    def _feed(self, name: str, layer: Layer, x: Value) -> Value:
        mlp, linears = layer.mlp, self._linears
        up = linears.product(x, f"{name}.up")
        if mlp.gated:
            inner = self._o.multiply(
                self._activated(name, layer, linears.product(x, f"{name}.gate")), up, f"{name}.inner"
            )
        else:
            inner = self._activated(name, layer, up)
        return linears.product(inner, f"{name}.down", wide=True)

    def _activated(self, name: str, layer: Layer, x: Value) -> Value:
        o, kind, name = self._o, layer.mlp.activation, f"{name}.activated"
        if kind == "relu":
            return o.unary("RELU", x, name)
        if kind == "gelu":
            return o.unary("GELU", x, name)
        inner = x
        if kind == "gelu_tanh":  # x * logistic(2 u), which is x / 2 * (1 + tanh(u))
            root = 2 * math.sqrt(2 / math.pi)
            square = o.multiply(x, x, f"{name}.square")
            factor = o.add(
                o.multiply(square, o.floats("gelu.cubic", 0.044715 * root), f"{name}.cubic"),
                o.floats("gelu.root", root),
                f"{name}.factor",
            )
            inner = o.multiply(x, factor, f"{name}.twice")
        return o.multiply(x, o.unary("LOGISTIC", inner, f"{name}.gate"), name)

    def _capped(self, x: Value, cap: float, name: str) -> Value:
        o = self._o
        share = o.multiply(x, o.floats(f"cap.{1 / cap:g}", 1 / cap), f"{name}.share")
        return o.multiply(o.unary("TANH", share, f"{name}.tanh"), o.floats(f"cap.{cap:g}", cap), name)

    def _norm(self, x: Value, name: str) -> Value:
        o, weight = self._o, dense(self._model.weights.get(f"{name}.weight")).numpy().reshape(1, -1)
        if self._spec.norm == "rms":
            return self._normed(x, weight, name)
        centred = o.subtract(x, o.mean(x, f"{name}.centre"), f"{name}.centred")
        bias = dense(self._model.weights.get(f"{name}.bias")).numpy().reshape(1, -1)
        return o.add(self._normed(centred, weight, f"{name}.spread"), o.floats(f"{name}.bias", bias), name)

    def _normed(self, x: Value, weight: np.ndarray, name: str) -> Value:
        """Divided by its root mean square over the last axis, and weighed."""
        o = self._o
        mean = o.mean(o.multiply(x, x, f"{name}.square"), f"{name}.mean")
        root = o.unary(
            "RSQRT", o.add(mean, o.floats("norm.eps", self._spec.norm_eps), f"{name}.raised"), f"{name}.root"
        )
        return o.multiply(o.multiply(x, root, f"{name}.even"), o.floats(f"{name}.weight", weight), name)
