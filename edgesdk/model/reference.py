"""The torch reference model: interprets a spec, defines the numerics.

Calibration, quality and parity are measured against it, and it is what ``torch.export`` sees. Layers are built one at a
time from the weights; a resident model keeps them, a streamed one drops each after use, so that its memory is that of
the largest tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelError
from ..session import refuse_rewind
from .rope import rotary_tables
from .spec import Activation, Attention, Layer, Mlp, Moe, Norm, Rope
from .weights import dense

if TYPE_CHECKING:
    from . import Model

Tables = tuple[Tensor, Tensor]  # cosines and sines, each [positions, head_dim / 2]


class LayerCache:
    """Keys and values of one layer: float [batch, kv_heads, capacity, head_dim], filled from the front."""

    def __init__(self, batch: int, attention: Attention, capacity: int, dtype: torch.dtype) -> None:
        shape = (batch, attention.kv_heads, capacity, attention.head_dim)
        self.keys, self.values = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)

    def update(self, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new positions at ``start`` and return all positions up to their end."""
        end = start + keys.shape[2]
        self.keys[:, :, start:end], self.values[:, :, start:end] = keys, values
        return self.keys[:, :, :end], self.values[:, :, :end]


class DecoderLayer(nn.Module):
    """One decoder layer over float weights, as described by its :class:`Layer`."""

    def __init__(self, layer: Layer, norm: Norm, eps: float, tensors: dict[str, Tensor]) -> None:
        """``tensors`` holds the layer's weights by canonical name without the layer prefix."""
        super().__init__()
        self.layer, self.norm, self.eps = layer, norm, eps
        self.observe: Callable[[str, Tensor], None] | None = (
            None  # told the input of every matrix, and the keys, by name
        )
        for name, tensor in tensors.items():
            self.register_buffer(name.replace(".", "_"), tensor)

    def forward(self, x: Tensor, tables: Tables | None, cache: LayerCache | None, start: int) -> Tensor:
        """Hidden states [batch, positions, hidden] of positions ``start`` onwards, through the layer.

        ``tables`` are cosines and sines of just these positions (None: no RoPE); without a cache, ``start`` must be 0.
        """
        normed = self._norm(x, "attn_norm") if self.layer.pre_norms else x
        return self._after_attention(x, normed, self._attend(normed, tables, cache, start))

    def _after_attention(self, x: Tensor, normed: Tensor, attended: Tensor) -> Tensor:
        """The residual sums and the MLP, for the residual stream, what attention saw of it and what it gave."""
        if self.layer.post_norms:
            attended = self._norm(attended, "post_attn_norm")
        added = x + attended
        if self.layer.residual == "serial":
            x = added
        if self.layer.residual != "shared":
            normed = self._norm(x, "mlp_norm") if self.layer.pre_norms else x
        fed = self._feed(normed)
        if self.layer.post_norms:
            fed = self._norm(fed, "post_mlp_norm")
        return added + fed

    def _norm(self, x: Tensor, name: str) -> Tensor:
        stem = name.replace(".", "_")
        weight = self.get_buffer(f"{stem}_weight")
        return normalize(x, weight, self.get_buffer(f"{stem}_bias") if self.norm == "layer" else None, self.eps)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        if self.observe is not None:
            self.observe(name, x)
        stem = name.replace(".", "_")
        bias = self.get_buffer(f"{stem}_bias") if hasattr(self, f"{stem}_bias") else None
        return F.linear(x, self.get_buffer(f"{stem}_weight"), bias)

    def _attend(self, x: Tensor, tables: Tables | None, cache: LayerCache | None, start: int) -> Tensor:
        attention = self.layer.attention
        q, k, v = (self._linear(x, name) for name in "qkv")
        if attention.qk_norm == "all":
            q, k = self._norm_rms(q, "q"), self._norm_rms(k, "k")
        q, k, v = (part.view(*part.shape[:-1], -1, attention.head_dim).transpose(1, 2) for part in (q, k, v))
        if attention.qk_norm == "head":
            q, k = self._norm_rms(q, "q"), self._norm_rms(k, "k")
        if tables is not None:
            q, k = rotate(q, *tables), rotate(k, *tables)
        if self.observe is not None:
            self.observe("keys", k.transpose(1, 2).flatten(-2))
        if cache is not None:
            k, v = cache.update(start, k, v)
        attended = attend(q, k, v, attention).transpose(1, 2).flatten(-2)
        return self._linear(self._norm(attended, "o_norm") if attention.sub_norm else attended, "o")

    def _norm_rms(self, x: Tensor, name: str) -> Tensor:
        return rms_norm(x, self.get_buffer(f"{name}_norm_weight"), self.eps)

    def _feed(self, x: Tensor) -> Tensor:
        ffn = self.layer.ffn
        return self._mlp(x, ffn, "") if isinstance(ffn, Mlp) else self._experts(x, ffn)

    def _mlp(self, x: Tensor, mlp: Mlp, prefix: str) -> Tensor:
        up = self._linear(x, f"{prefix}up")
        if mlp.gated:
            inner = activate(self._linear(x, f"{prefix}gate"), mlp.activation) * up
        else:
            inner = activate(up, mlp.activation)
        return self._linear(self._norm(inner, f"{prefix}down_norm") if mlp.sub_norm else inner, f"{prefix}down")

    def _experts(self, x: Tensor, moe: Moe) -> Tensor:
        """Each expert sees the tokens that go to it, and no others."""
        flat = x.reshape(-1, x.shape[-1])
        weights, chosen = route(F.linear(flat, self.get_buffer("router_weight")), moe)
        found = torch.zeros_like(flat)
        for expert in range(moe.experts):
            rows, places = (chosen == expert).nonzero(as_tuple=True)
            if len(rows):
                fed = self._mlp(flat[rows], moe.expert, f"experts.{expert}.")
                found = found.index_add(0, rows, fed * weights[rows, places].unsqueeze(1).to(fed.dtype))
        if moe.shared is not None:
            shared = self._mlp(flat, moe.shared, "shared.")
            if moe.shared_gate:
                shared = torch.sigmoid(F.linear(flat, self.get_buffer("shared_router_weight"))) * shared
            found = found + shared
        return found.view(x.shape)


def normalize(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """A layer norm where there is a bias, an RMS norm otherwise."""
    return rms_norm(x, weight, eps) if bias is None else F.layer_norm(x, weight.shape, weight, bias, eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis (arXiv 1910.07467), computed in float32."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * weight.float()).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate [..., positions, head_dim] by half-split pairs; tables are [positions, head_dim / 2]."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, attention: Attention) -> Tensor:
    """Causal attention of the last ``q.shape[2]`` of ``k.shape[2]`` positions, windowed and capped as described.

    Shapes: q [batch, heads, new, head_dim], k and v [batch, kv_heads, all, head_dim]; returns the shape of q.
    """
    new, total = q.shape[2], k.shape[2]
    whole = attention.window is None or total <= attention.window
    if attention.softcap is None and attention.alibi is None and new == total and whole:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=attention.scale, enable_gqa=True)
    rows = torch.arange(total - new, total).unsqueeze(1)
    columns = torch.arange(total).unsqueeze(0)
    mask = columns <= rows
    if attention.window is not None:
        mask &= columns > rows - attention.window
    if attention.alibi is not None:  # a bias that only the key's position decides: softmax ignores the query's part
        slopes = torch.tensor(attention.slopes, dtype=q.dtype).view(-1, 1, 1)
        biases = (slopes * columns).masked_fill(~mask, float("-inf"))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=biases, scale=attention.scale, enable_gqa=True)
    if attention.softcap is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=attention.scale, enable_gqa=True)
    groups = attention.heads // attention.kv_heads
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = attention.softcap * torch.tanh((q @ k.transpose(-1, -2)) * attention.scale / attention.softcap)
    return torch.softmax(scores.masked_fill(~mask, float("-inf")).float(), dim=-1).to(q.dtype) @ v


def activate(x: Tensor, kind: Activation) -> Tensor:
    """The activation of an MLP."""
    if kind == "silu":
        return F.silu(x)
    if kind == "relu":
        return F.relu(x)
    if kind == "relu2":
        return F.relu(x).square()
    return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


def route(logits: Tensor, moe: Moe) -> tuple[Tensor, Tensor]:
    """Weights and numbers of the experts that each token goes to, both [tokens, active], from router logits."""
    logits = logits.float()
    if moe.routing == "sparsemixer":
        return _sparse_mixer(logits, moe.jitter)
    if moe.routing == "softmax":
        best = torch.softmax(logits, dim=-1).topk(moe.active, dim=-1)
        return best.values, best.indices
    best = logits.topk(moe.active, dim=-1)
    return torch.softmax(best.values, dim=-1), best.indices


def _sparse_mixer(logits: Tensor, jitter: float) -> tuple[Tensor, Tensor]:
    """Two experts; the weight of each is its softmax among those that come close to it (arXiv 2409.12136)."""
    weights, numbers, left = [], [], logits
    for _ in range(2):
        most, number = left.max(dim=-1, keepdim=True)
        far = (most - logits) / logits.abs().clamp(min=most) > 2 * jitter
        weights.append(torch.softmax(left.masked_fill(far, float("-inf")), dim=-1).gather(-1, number))
        numbers.append(number)
        left = left.scatter(-1, number, float("-inf"))
    return torch.cat(weights, dim=-1), torch.cat(numbers, dim=-1)


class ReferenceModel:
    """A model's spec and weights, run in torch.

    Args:
        model: any model, compressed or not; quantized tensors are dequantized exactly.
        dtype: of weights and activations; float32 is the reference, bfloat16 is for sampling text quickly.
        resident: keep every layer in memory (fast) or read each again when it is needed (small).
    """

    def __init__(self, model: Model, *, dtype: torch.dtype = torch.float32, resident: bool = True) -> None:
        self.model, self.spec, self.dtype, self.resident = model, model.spec, dtype, resident
        self._kept: dict[str, DecoderLayer | Tensor] = {}
        self._head: Tensor | None = None
        self._tables = lru_cache(maxsize=None)(self._make_tables)

    def caches(self, batch: int, capacity: int) -> list[LayerCache]:
        """Empty caches, one a layer."""
        return [LayerCache(batch, layer.attention, capacity, self.dtype) for layer in self.spec.layers]

    @torch.inference_mode()
    def hidden(
        self, batches: Sequence[Tensor], caches: Sequence[LayerCache] | None = None, start: int = 0
    ) -> list[Tensor]:
        """Final hidden states of id batches [batch, positions], each [batch, positions, hidden].

        Layers are the outer loop, so a streamed model reads its weights once however many batches there are. With
        ``caches`` there must be one batch, and its positions begin at ``start``.
        """
        states = self.embed(batches, start)
        for index, layer in enumerate(self.layers()):
            cache = caches[index] if caches is not None else None
            for number, x in enumerate(states):
                tables = self._positions(layer.layer.attention, start, x.shape[1])
                states[number] = layer(x, tables, cache, start)
        return self._final_norm(states)

    @torch.inference_mode()
    def finish(self, states: Sequence[Tensor], after: int) -> list[Tensor]:
        """Final hidden states of states that left layer ``after`` at position 0 on, through the layers that follow."""
        found = list(states)
        for layer in self.layers(after + 1):
            found = self.through(layer, found)
        return self._final_norm(found)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] of final hidden states [..., hidden], in float32."""
        if self._head is None:
            self._head = self._matrix(self.spec.head_name)
        bias = self._matrix("head.bias") if self.spec.head_bias else None
        found = F.linear(hidden, self._head, bias).float()
        cap = self.spec.logit_softcap
        return found if cap is None else cap * torch.tanh(found / cap)

    @torch.inference_mode()
    def through(self, layer: DecoderLayer, states: Sequence[Tensor]) -> list[Tensor]:
        """Hidden states from position 0 on, each [batch, positions, hidden], through one layer."""
        return self.differentiable(layer, states)

    def differentiable(self, layer: DecoderLayer, states: Sequence[Tensor]) -> list[Tensor]:
        """As :meth:`through`, with gradients where the caller asks for them."""
        return [layer(x, self._positions(layer.layer.attention, 0, x.shape[1]), None, 0) for x in states]

    def release(self) -> None:
        """Drop every weight that is kept; they are read again when needed."""
        self._kept.clear()
        self._head = None

    def layers(self, first: int = 0) -> Iterator[DecoderLayer]:
        """The layers in order from one on, each built when it is reached."""
        for index in range(first, len(self.spec.layers)):
            key = f"layers.{index}"
            kept = self._kept.get(key)
            layer = kept if isinstance(kept, DecoderLayer) else self.layer(index)
            if self.resident:
                self._kept[key] = layer
            yield layer

    def layer(self, index: int) -> DecoderLayer:
        """One layer, read from the weights."""
        prefix = f"layers.{index}."
        tensors = {
            name.removeprefix(prefix): dense(self.model.weights.get(name), self.dtype)
            for name in self.spec.layer_tensors(index)
        }
        return DecoderLayer(self.spec.layers[index], self.spec.norm, self.spec.norm_eps, tensors)

    def _final_norm(self, states: Sequence[Tensor]) -> list[Tensor]:
        return self.normalized(states, {name: self._vector(name) for name in self._norm_names("final_norm")})

    def normalized(self, states: Sequence[Tensor], norm: Mapping[str, Tensor]) -> list[Tensor]:
        """States behind the final norm, whose tensors are given by canonical name."""
        weight, bias = norm["final_norm.weight"], norm.get("final_norm.bias")
        return [normalize(x, weight, bias, self.spec.norm_eps) for x in states]

    def _norm_names(self, norm: str) -> list[str]:
        return [f"{norm}.{kind}" for kind in (("weight", "bias") if self.spec.norm == "layer" else ("weight",))]

    def _vector(self, name: str) -> Tensor:
        return dense(self.model.weights.get(name), self.dtype)

    def _matrix(self, name: str) -> Tensor:
        kept = self._kept.get(name)
        matrix = kept if isinstance(kept, Tensor) else dense(self.model.weights.get(name), self.dtype)
        if self.resident:
            self._kept[name] = matrix
        return matrix

    @torch.inference_mode()
    def embed(self, batches: Sequence[Tensor], start: int = 0) -> list[Tensor]:
        """What the first layer sees of id batches [batch, positions], each [batch, positions, hidden]."""
        matrix = self._matrix("embed.weight")
        scale = torch.tensor(self.spec.embedding_scale, dtype=self.dtype)
        found = [F.embedding(ids, matrix) * scale for ids in batches]
        if self.spec.learned_positions:
            positions = self._matrix("positions.weight")
            found = [x + positions[start : start + x.shape[1]] for x in found]
        if self.spec.embed_norm:
            weight, *bias = (self._vector(name) for name in self._norm_names("embed_norm"))
            found = [normalize(x, weight, bias[0] if bias else None, self.spec.norm_eps) for x in found]
        return found

    def _positions(self, attention: Attention, start: int, count: int) -> Tables | None:
        if attention.rope is None:
            return None
        needed = max(64, 1 << (start + count - 1).bit_length())
        cos, sin = self._tables(attention.rope, attention.head_dim, needed)
        return cos[start : start + count], sin[start : start + count]

    @staticmethod
    def _make_tables(rope: Rope, head_dim: int, positions: int) -> Tables:
        with torch.inference_mode(False):  # what training may keep
            return rotary_tables(rope, head_dim, positions)


class ReferenceSession:
    """The reference model behind the :class:`~edgesdk.session.Session` interface."""

    def __init__(self, model: Model, context: int | None = None) -> None:
        self._reference = ReferenceModel(model)
        self.context = context or model.spec.context
        self.vocab = model.spec.vocab
        self.reset()

    def reset(self) -> None:
        self.position = 0
        self._caches = self._reference.caches(1, 0)
        self._capacity = 0

    def rewind(self, count: int) -> None:
        refuse_rewind(self, count)
        self.position -= count

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        hidden = self._advance(ids)
        return self._reference.logits(hidden[-1]).numpy()

    def decode(self, token: int) -> np.ndarray:
        return self.prefill([token])

    def score(self, ids: Sequence[int]) -> np.ndarray:
        return self._reference.logits(self._advance(ids)).numpy()

    def _advance(self, ids: Sequence[int]) -> Tensor:
        if not ids:
            raise ModelError("no tokens to run")
        if self.position + len(ids) > self.context:
            raise ModelError(f"{self.position + len(ids)} tokens exceed the context of {self.context}")
        self._reserve(self.position + len(ids))
        (hidden,) = self._reference.hidden([torch.tensor([list(ids)])], self._caches, self.position)
        self.position += len(ids)
        return hidden[0]

    def _reserve(self, positions: int) -> None:
        """Grow the caches by doubling."""
        if positions <= self._capacity:
            return
        self._capacity = min(self.context, max(64, 2 * positions))
        grown = self._reference.caches(1, self._capacity)
        for old, new in zip(self._caches, grown, strict=True):
            new.update(0, old.keys, old.values)
        self._caches = grown
