"""The ONNX graph of a decoder: each block as the fastest construct that ONNX Runtime has.

Inputs and outputs carry the names that onnxruntime-genai expects. Keys and values live in caches of fixed capacity that
``GroupQueryAttention`` updates in place when past and present are the same buffer. One more input, ``logits_start``,
has a default (an initializer that callers may override): -1 gives the logits of the last position alone, 0 of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import torch

from edgesdk.model.spec import Attention, ChannelMix, Layer, Mlp, Moe

from .attention import AttentionBlocks
from .blocks import Blocks
from .builder import GraphBuilder, onnx_type
from .experts import experts
from .linear import Activations, embedding, linear, tied_head
from .names import LOGITS_START
from .positions import Positions
from .recurrent import RecurrentBlocks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesdk.model import Model

OPSET = 21
_INT64_MAX = 2**63 - 1


class DecoderGraph:
    """Emits a model's decoder into a :class:`GraphBuilder`, a layer at a time."""

    def __init__(self, builder: GraphBuilder, model: Model, context: int, activations: Activations) -> None:
        self._b, self._model, self._spec = builder, model, model.spec
        self._context = context
        self._blocks = Blocks(builder, model, activations)

    def emit(self) -> Iterator[int]:
        """Build the graph, yielding after every layer (for progress)."""
        b, spec = self._b, self._spec
        ids = b.input("input_ids", ir.DataType.INT64, ["batch_size", "sequence_length"])
        mask = b.input("attention_mask", ir.DataType.INT64, ["batch_size", "total_sequence_length"])
        positions = Positions(b, spec, self._context, ids, mask)
        self._attention = AttentionBlocks(self._blocks, positions)
        self._recurrent = RecurrentBlocks(self._blocks)
        x = self._embedded = self._embedding(ids, positions)
        self._aside: ir.Value | None = None  # what the next layer's mixer sees beside the stream
        added: ir.Value | None = None  # what the last block computed, not yet summed into x
        for index, layer in enumerate(spec.layers):
            x, added = self._layer(index, layer, x, added)
            yield index
        _, last = self._blocks.norm_of_sum(x, added, "final_norm")
        # The length of the default. onnxruntime-genai reads from it that prefill gives one row.
        b.output(self._logits(last), "logits", onnx_type(b.dtype), ["batch_size", 1, spec.vocab])
        b.outputs.insert(0, b.outputs.pop())

    def _embedding(self, ids: ir.Value, positions: Positions) -> ir.Value:
        b, spec = self._b, self._spec
        x = embedding(b, ids, "embed", self._model.weights.get("embed.weight"))
        if spec.embedding_scale != 1.0:
            scale = b.floats("embed.scale", torch.tensor(spec.embedding_scale))
            x = b.op("Mul", [x, scale], "embed.scaled")
        if spec.embedding is not None:
            x = linear(b, x, "embed_proj", self._model.weights.get("embed_proj.weight"), self._blocks.activations)
        if spec.learned_positions:
            table = b.floats("positions.weight", self._blocks.vector("positions.weight"))
            x = b.op("Add", [x, b.op("Gather", [table, positions.new], "positions.out")], "embed.placed")
        return self._blocks.norm(x, "embed_norm") if spec.embed_norm else x

    def _logits(self, last: ir.Value) -> ir.Value:
        b, spec, activations = self._b, self._spec, self._blocks.activations
        bias = self._blocks.optional("head.bias")
        if spec.embedding is not None:
            last = linear(b, last, "head_proj", self._model.weights.get("head_proj.weight"), activations)
        if spec.tied:
            logits = tied_head(b, last, "embed", self._model.weights.get("embed.weight"), activations, bias)
        else:
            logits = linear(b, last, "head", self._model.weights.get("head.weight"), activations, bias)
        if spec.logit_softcap is not None:
            cap = b.floats("head.softcap", torch.tensor(spec.logit_softcap))
            capped = b.op("Tanh", [b.op("Div", [logits, cap], "head.divided")], "head.tanh")
            logits = b.op("Mul", [capped, cap], "head.capped")
        return logits

    def _entered(self, layer: Layer, x: ir.Value, added: ir.Value | None, name: str) -> tuple[ir.Value, ir.Value]:
        """The residual stream in one, and what the layer's mixer sees of it."""
        if self._aside is not None:
            x = self._summed(x, added, name)
            (_, normed), self._aside = self._blocks.norm_of_sum(x, self._aside, f"{name}.attn_norm"), None
            return x, normed
        if layer.pre_norms:
            return self._blocks.norm_of_sum(x, added, f"{name}.attn_norm")
        x = self._summed(x, added, name)
        return x, x

    def _summed(self, x: ir.Value, added: ir.Value | None, name: str) -> ir.Value:
        return x if added is None else self._b.op("Add", [x, added], f"{name}.sum")

    def _beside(self, index: int, layer: Layer, x: ir.Value) -> ir.Value:
        """What a layer aside of the stream gives."""
        name, blocks = f"layers.{index}", self._blocks
        both = self._b.op("Concat", [x, self._embedded], f"{name}.both", axis=-1)
        mixed = self._mixed(index, layer, blocks.norm(both, f"{name}.attn_norm"), early=False)
        return blocks.projection(name, self._feed(index, layer, blocks.norm(mixed, f"{name}.mlp_norm")), "aside")

    def _layer(self, index: int, layer: Layer, x: ir.Value, added: ir.Value | None) -> tuple[ir.Value, ir.Value | None]:
        """The residual stream behind a layer, in two parts: what it was, and what is to be added."""
        name, blocks, last = f"layers.{index}", self._blocks, index == len(self._spec.layers) - 1
        if layer.residual == "aside":
            x = self._summed(x, added, name)
            self._aside = self._beside(index, layer, x)
            return x, None
        x, normed = self._entered(layer, x, added, name)
        early = last and not isinstance(layer.ffn, ChannelMix)  # nothing after this reads a position without logits
        mixed = self._mixed(index, layer, normed, early)
        if early:
            x = self._with_logits(x, "last.residual")
            normed = self._with_logits(normed, "last.normed") if layer.residual == "shared" else normed
        if layer.ffn is None:
            return x, mixed
        if layer.residual != "serial":
            if layer.residual == "parallel":
                normed = blocks.norm(x, f"{name}.mlp_norm")
            return x, self._b.op("Add", [mixed, self._feed(index, layer, normed)], f"{name}.both")
        return self._fed(index, layer, x, mixed, late=last and not early)

    def _mixed(self, index: int, layer: Layer, x: ir.Value, early: bool) -> ir.Value:
        """What the layer's mixer adds; ``early``: at the positions whose logits are wanted alone."""
        if isinstance(layer.mixer, Attention):
            attended = self._attention.attend(index, layer.mixer, x)
            attended = self._with_logits(attended, "last.attended") if early else attended
            mixed = self._attention.project(index, layer.mixer, attended)
        else:
            mixed = self._recurrent.mix(index, layer, x)
            mixed = self._with_logits(mixed, "last.mixed") if early else mixed
        return self._blocks.norm(mixed, f"layers.{index}.post_attn_norm") if layer.post_norms else mixed

    def _fed(
        self, index: int, layer: Layer, x: ir.Value, mixed: ir.Value, late: bool
    ) -> tuple[ir.Value, ir.Value | None]:
        """The stream with what the mixer added, and what the feed-forward block adds to it."""
        name = f"layers.{index}"
        if layer.pre_norms:
            x, normed = self._blocks.norm_of_sum(x, mixed, f"{name}.mlp_norm")
        elif layer.sum_norms:
            x = normed = self._blocks.norm_of_sum(x, mixed, f"{name}.attn_sum_norm")[1]
        else:
            x = normed = self._b.op("Add", [x, mixed], f"{name}.attended_sum")
        fed = self._feed(index, layer, normed)
        if layer.sum_norms == "both":
            return self._blocks.norm_of_sum(x, fed, f"{name}.mlp_sum_norm")[1], None
        return (self._with_logits(x, "last.residual"), self._with_logits(fed, "last.fed")) if late else (x, fed)

    def _feed(self, index: int, layer: Layer, x: ir.Value) -> ir.Value:
        name = f"layers.{index}"
        if isinstance(layer.ffn, Mlp):
            fed = self._blocks.mlp(name, layer.ffn, x)
        elif isinstance(layer.ffn, Moe):
            fed = experts(self._blocks, name, layer.ffn, x)
        else:
            fed = self._recurrent.channel_mix(index, x)
        return self._blocks.norm(fed, f"{name}.post_mlp_norm") if layer.post_norms else fed

    def _with_logits(self, x: ir.Value, name: str) -> ir.Value:
        """The positions of ``x`` whose logits are wanted; the overridable input is an initializer among the inputs."""
        start = self._b.constant(LOGITS_START, [-1])
        if start not in self._b.inputs:
            self._b.inputs.append(start)
        end, axis = self._b.constant("slice.end", [_INT64_MAX]), self._b.constant("slice.axis", [1])
        return self._b.op("Slice", [x, start, end, axis], name)
