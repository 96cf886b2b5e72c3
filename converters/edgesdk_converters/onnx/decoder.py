"""The ONNX graph of a decoder: each block as the fastest construct that ONNX Runtime has.

Inputs and outputs carry the names that onnxruntime-genai expects. Keys and values live in caches of fixed capacity that
``GroupQueryAttention`` updates in place when past and present are the same buffer. One more input, ``logits_start``,
has a default (an initializer that callers may override): -1 gives the logits of the last position alone, 0 of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import torch

from edgesdk.model.rope import rotary_tables
from edgesdk.model.spec import Attention, Layer
from edgesdk.model.weights import dense, stack_rows, stackable

from .builder import CONTRIB, GraphBuilder, onnx_type
from .linear import Activations, embedding, linear, tied_head
from .names import LOGITS_START, past_names, present_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesdk.model import Model

OPSET = 21
_INT64_MAX = 2**63 - 1


class DecoderGraph:
    """Emits a model's decoder into a :class:`GraphBuilder`, a layer at a time."""

    def __init__(self, builder: GraphBuilder, model: Model, context: int, activations: Activations) -> None:
        self._b, self._model, self._spec = builder, model, model.spec
        self._context, self._activations = context, activations

    def emit(self) -> Iterator[int]:
        """Build the graph, yielding after every layer (for progress)."""
        b, spec = self._b, self._spec
        float_type = onnx_type(b.dtype)
        ids = b.input("input_ids", ir.DataType.INT64, ["batch_size", "sequence_length"])
        mask = b.input("attention_mask", ir.DataType.INT64, ["batch_size", "total_sequence_length"])
        self._lengths(mask)
        x = embedding(b, ids, "embed", self._model.weights.get("embed.weight"))
        if spec.embedding_scale != 1.0:
            scale = b.floats("embed.scale", torch.tensor(spec.embedding_scale))
            x = b.op("Mul", [x, scale], "embed.scaled")
        added: ir.Value | None = None  # what the last block computed, not yet summed into x
        for index, layer in enumerate(spec.layers):
            x, added = self._layer(index, layer, x, added)
            yield index
        _, last = self._norm_of_sum(x, added, "final_norm")
        if spec.tied:
            logits = tied_head(b, last, "embed", self._model.weights.get("embed.weight"), self._activations)
        else:
            logits = linear(b, last, "head", self._model.weights.get("head.weight"), self._activations)
        if spec.logit_softcap is not None:
            cap = b.floats("head.softcap", torch.tensor(spec.logit_softcap))
            capped = b.op("Tanh", [b.op("Div", [logits, cap], "head.divided")], "head.tanh")
            logits = b.op("Mul", [capped, cap], "head.capped")
        # The length of the default. onnxruntime-genai reads from it that prefill gives one row.
        b.output(logits, "logits", float_type, ["batch_size", 1, spec.vocab])
        b.outputs.insert(0, b.outputs.pop())

    def _lengths(self, mask: ir.Value) -> None:
        """The two lengths that GroupQueryAttention reads, from the attention mask."""
        b = self._b
        valid = b.op("ReduceSum", [mask, b.constant("mask.axis", [1])], "mask.valid", keepdims=0)
        last = b.op("Sub", [valid, b.constant("mask.one", [1])], "mask.last")
        self._seqlens = b.op("Cast", [last], "mask.seqlens_k", to=int(ir.DataType.INT32))
        shape = b.op("Shape", [mask], "mask.shape", start=1, end=2)
        total = b.op("Squeeze", [shape], "mask.total")
        self._total = b.op("Cast", [total], "mask.total_length", to=int(ir.DataType.INT32))

    def _layer(self, index: int, layer: Layer, x: ir.Value, added: ir.Value | None) -> tuple[ir.Value, ir.Value]:
        name = f"layers.{index}"
        x, normed = self._norm_of_sum(x, added, f"{name}.attn_norm")
        attended = self._attention(index, layer, normed)
        if index == len(self._spec.layers) - 1:  # nothing after this reads a position without logits
            x, attended = self._with_logits(x, "last.residual"), self._with_logits(attended, "last.attended")
        attended = self._projection(name, attended, "o")
        if layer.post_norms:
            attended = self._norm(attended, f"{name}.post_attn_norm")
        x, normed = self._norm_of_sum(x, attended, f"{name}.mlp_norm")
        fed = self._mlp(name, layer, normed)
        if layer.post_norms:
            fed = self._norm(fed, f"{name}.post_mlp_norm")
        return x, fed

    def _attention(self, index: int, layer: Layer, x: ir.Value) -> ir.Value:
        b, attention, name = self._b, layer.attention, f"layers.{index}"
        q, k, v = self._projections(name, x, ["q", "k", "v"])
        if attention.qk_norm:
            q, k, v = self._norm_heads(name, layer, q, k, v)
        past = [
            b.input(
                past,
                onnx_type(b.dtype),
                ["batch_size", attention.kv_heads, "past_sequence_length", attention.head_dim],
            )
            for past in past_names(index)
        ]
        inputs: list[ir.Value | None] = [q, k, v, *past, self._seqlens, self._total]
        inputs += self._rotary(attention)
        attended, *present = b.multi(
            "GroupQueryAttention",
            inputs,
            f"{name}.attended",
            domain=CONTRIB,
            outputs=3,
            num_heads=attention.heads,
            kv_num_heads=attention.kv_heads,
            scale=attention.scale,
            do_rotary=1,
            softcap=attention.softcap or 0.0,
            local_window_size=attention.window or -1,
        )
        for value, output in zip(present, present_names(index), strict=True):
            shape = ("batch_size", attention.kv_heads, "total_sequence_length", attention.head_dim)
            b.output(value, output, onnx_type(b.dtype), shape)
        return attended

    def _norm_heads(
        self, name: str, layer: Layer, q: ir.Value | None, k: ir.Value | None, v: ir.Value | None
    ) -> list[ir.Value | None]:
        """RMS norms on the heads of q and k (GroupQueryAttention has them inside, but not in its CPU kernel)."""
        b, attention = self._b, layer.attention
        if k is None:  # stacked
            sizes = b.constant(f"{name}.qkv.sizes", [attention.q_size, attention.kv_size, attention.kv_size])
            q, k, v = b.multi("Split", [q, sizes], f"{name}.qkv.part", outputs=3, axis=-1)
        normed: list[ir.Value | None] = []
        for part, value, size in (("q", q, attention.q_size), ("k", k, attention.kv_size)):
            heads = b.constant(f"heads.{size // attention.head_dim}", [0, 0, -1, attention.head_dim])
            flat = b.constant(f"flat.{size}", [0, 0, size])
            split = b.op("Reshape", [value, heads], f"{name}.{part}.heads")
            normed.append(b.op("Reshape", [self._norm(split, f"{name}.{part}_norm"), flat], f"{name}.{part}.normed"))
        return [*normed, v]

    def _mlp(self, name: str, layer: Layer, x: ir.Value) -> ir.Value:
        b, mlp = self._b, layer.mlp
        if mlp.gated:
            gate, up = self._projection(name, x, "gate"), self._projection(name, x, "up")
            inner = b.op("Mul", [self._activation(name, gate, layer), up], f"{name}.gated")
        else:
            inner = self._activation(name, self._projection(name, x, "up"), layer)
        return self._projection(name, inner, "down")

    def _activation(self, name: str, x: ir.Value, layer: Layer) -> ir.Value:
        b = self._b
        kind, name = layer.mlp.activation, f"{name}.activated"
        if kind == "silu":
            return b.op("QuickGelu", [x], name, domain=CONTRIB, alpha=1.0)
        if kind == "gelu_tanh":
            return b.op("FastGelu", [x], name, domain=CONTRIB)
        if kind == "gelu":
            return b.op("Gelu", [x], name, domain=CONTRIB)
        return b.op("Relu", [x], name)

    def _projection(self, name: str, x: ir.Value, part: str) -> ir.Value:
        """The product of ``x`` with one matrix of a layer."""
        weight, bias = self._model.weights.get(f"{name}.{part}.weight"), self._bias(f"{name}.{part}.bias")
        return linear(self._b, x, f"{name}.{part}", weight, self._activations, bias)

    def _projections(self, name: str, x: ir.Value, parts: list[str]) -> list[ir.Value | None]:
        """Products of ``x`` with several matrices: one stacked product where their grids agree (the rest are None)."""
        weights = [self._model.weights.get(f"{name}.{part}.weight") for part in parts]
        biases = [self._bias(f"{name}.{part}.bias") for part in parts]
        if stackable(weights):
            present = [bias for bias in biases if bias is not None]
            stacked = stack_rows(weights)
            joined = linear(
                self._b,
                x,
                f"{name}.{''.join(parts)}",
                stacked,
                self._activations,
                torch.cat(present) if present else None,
            )
            return [joined, *[None] * (len(parts) - 1)]
        return [self._projection(name, x, part) for part in parts]

    def _bias(self, name: str) -> torch.Tensor | None:
        return dense(self._model.weights.get(name)) if name in self._spec.tensors() else None

    def _norm(self, x: ir.Value, name: str) -> ir.Value:
        weight = self._norm_weight(name)
        return self._b.op(
            "SimplifiedLayerNormalization",
            [x, weight],
            f"{name}.out",
            epsilon=self._spec.norm_eps,
            axis=-1,
            stash_type=1,
        )

    def _norm_of_sum(self, x: ir.Value, added: ir.Value | None, name: str) -> tuple[ir.Value, ir.Value]:
        """The residual sum and its norm."""
        if added is None:
            return x, self._norm(x, name)
        normed, _, _, total = self._b.multi(
            "SkipSimplifiedLayerNormalization",
            [x, added, self._norm_weight(name)],
            f"{name}.out",
            domain=CONTRIB,
            outputs=4,
            epsilon=self._spec.norm_eps,
        )
        return total, normed

    def _norm_weight(self, name: str) -> ir.Value:
        return self._b.floats(f"{name}.weight", dense(self._model.weights.get(f"{name}.weight")))

    def _rotary(self, attention: Attention) -> list[ir.Value | None]:
        index = self._spec.rope_index(attention)
        name, (rope, head_dim) = f"rope.{index}", self._spec.ropes[index]
        cos, sin = rotary_tables(rope, head_dim, self._context)
        return [self._b.floats(f"{name}.cos", cos), self._b.floats(f"{name}.sin", sin)]

    def _with_logits(self, x: ir.Value, name: str) -> ir.Value:
        """The positions of ``x`` whose logits are wanted; the overridable input is an initializer among the inputs."""
        start = self._b.constant(LOGITS_START, [-1])
        if start not in self._b.inputs:
            self._b.inputs.append(start)
        end, axis = self._b.constant("slice.end", [_INT64_MAX]), self._b.constant("slice.axis", [1])
        return self._b.op("Slice", [x, start, end, axis], name)
