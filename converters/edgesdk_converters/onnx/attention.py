"""Attention as ``GroupQueryAttention``, with rotary positions inside and caches that it updates in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .builder import CONTRIB, onnx_type
from .names import past_names, present_names

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgesdk.model.spec import Attention

    from .blocks import Blocks
    from .positions import Positions


class AttentionBlocks:
    """Adds the attention of layers to a graph."""

    def __init__(self, blocks: Blocks, positions: Positions) -> None:
        self._blocks, self._b, self._positions = blocks, blocks.builder, positions

    def attend(self, index: int, attention: Attention, x: ir.Value) -> ir.Value:
        """What attention gives for the normed stream ``x``, before its output matrix."""
        b, name = self._b, f"layers.{index}"
        if attention.low_rank is None:
            q, k, v = self._blocks.projections(name, x, ["q", "k", "v"])
        else:
            q, k, v = (self._blocks.with_low_rank(name, x, part) for part in "qkv")
        if attention.qk_norm is not None:
            q, k, v = self._normed(name, attention, q, k, v)
        if attention.clip is not None:
            q, k, v = (
                self._clipped(f"{name}.{part}", x, attention.clip) for part, x in zip("qkv", (q, k, v), strict=True)
            )
        shape: list[int | str] = ["batch_size", attention.kv_heads, "past_sequence_length", attention.head_dim]
        past = [b.input(past, onnx_type(b.dtype), shape) for past in past_names(index)]
        inputs: list[ir.Value | None] = [q, k, v, *past, self._positions.seqlens, self._positions.total]
        inputs += [*self._positions.rotary(attention), None, self._positions.biases(attention)]
        attended, *present = b.multi(
            "GroupQueryAttention",
            inputs,
            f"{name}.attended",
            domain=CONTRIB,
            outputs=3,
            num_heads=attention.heads,
            kv_num_heads=attention.kv_heads,
            scale=attention.scale,
            do_rotary=int(attention.rope is not None),
            softcap=attention.softcap or 0.0,
            local_window_size=attention.window or -1,
        )
        for value, output in zip(present, present_names(index), strict=True):
            b.output(
                value,
                output,
                onnx_type(b.dtype),
                ("batch_size", attention.kv_heads, "total_sequence_length", attention.head_dim),
            )
        if attention.gated:
            part = b.op("Sigmoid", [self._blocks.projection(name, x, "q_gate")], f"{name}.q_gate.part")
            attended = b.op("Mul", [attended, part], f"{name}.attended.gated")
        return attended

    def project(self, index: int, attention: Attention, attended: ir.Value) -> ir.Value:
        """The output matrix of attention."""
        name = f"layers.{index}"
        if attention.sub_norm:
            attended = self._blocks.norm(attended, f"{name}.o_norm")
        return self._blocks.projection(name, attended, "o")

    def _normed(
        self, name: str, attention: Attention, q: ir.Value | None, k: ir.Value | None, v: ir.Value | None
    ) -> list[ir.Value | None]:
        """Norms on q and k (GroupQueryAttention has them inside, but not in its CPU kernel)."""
        b = self._b
        if k is None:  # stacked
            sizes = b.constant(f"{name}.qkv.sizes", [attention.q_size, attention.kv_size, attention.kv_size])
            q, k, v = b.multi("Split", [q, sizes], f"{name}.qkv.part", outputs=3, axis=-1)
        normed: list[ir.Value | None] = []
        for part, value, size in (("q", q, attention.q_size), ("k", k, attention.kv_size)):
            assert value is not None
            if attention.qk_norm == "all":
                normed.append(self._blocks.rms_norm(value, f"{name}.{part}_norm"))
                continue
            heads = b.constant(f"heads.{size // attention.head_dim}", [0, 0, -1, attention.head_dim])
            flat = b.constant(f"flat.{size}", [0, 0, size])
            split = b.op("Reshape", [value, heads], f"{name}.{part}.heads")
            if attention.qk_norm == "head":
                turned = self._blocks.rms_norm(split, f"{name}.{part}_norm")
            else:
                turned = self._blocks.head_norms(split, name, part, size // attention.head_dim)
            normed.append(b.op("Reshape", [turned, flat], f"{name}.{part}.normed"))
        return [*normed, v]

    def _clipped(self, name: str, x: ir.Value | None, clip: float) -> ir.Value | None:
        """A projection between two limits; None: it is stacked below another."""
        if x is None:
            return None
        limits = [
            self._b.floats(f"clip.{clip:g}.{end}", torch.tensor(sign * clip))
            for end, sign in (("low", -1), ("high", 1))
        ]
        return self._b.op("Clip", [x, *limits], f"{name}.clipped")
