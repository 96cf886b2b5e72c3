"""One decoder layer in torch, over float weights: attention, feed-forward blocks, norms, as its spec describes them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .mixers import StateCache, channel_mix, mix
from .spec import Activation, Attention, ChannelMix, Layer, Mlp, Moe, Norm

Tables = tuple[Tensor, Tensor]  # cosines and sines, each [positions, head_dim / 2]


class LayerCache:
    """Keys and values of a layer, float [batch, kv_heads, capacity, head_dim], from the front; and its states."""

    def __init__(self, batch: int, layer: Layer, hidden: int, capacity: int, dtype: torch.dtype) -> None:
        self.states = StateCache(batch, layer.states(hidden), dtype)
        self.keys = self.values = torch.zeros(0)
        if isinstance(layer.mixer, Attention):
            shape = (batch, layer.mixer.kv_heads, capacity, layer.mixer.head_dim)
            self.keys, self.values = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)

    def update(self, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write new positions at ``start`` and return all positions up to their end."""
        end = start + keys.shape[2]
        self.keys[:, :, start:end], self.values[:, :, start:end] = keys, values
        return self.keys[:, :, :end], self.values[:, :, :end]

    def take(self, other: LayerCache) -> None:
        """Take over what a smaller cache holds."""
        if self.keys.numel():
            self.update(0, other.keys, other.values)
        self.states = other.states


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

    def forward(
        self, x: Tensor, tables: Tables | None, cache: LayerCache | None, start: int, aside: Tensor | None = None
    ) -> Tensor:
        """Hidden states [batch, positions, hidden] of positions ``start`` onwards, through the layer.

        A layer aside takes the embedding behind them, [batch, positions, 2 * hidden], and gives what it adds to what
        the next one sees: that one's ``aside``. ``tables`` are cosines and sines of just these positions (None: no
        RoPE); without a cache, ``start`` must be 0.
        """
        seen = x if aside is None else x + aside
        normed = self._norm(seen, "attn_norm") if self.layer.pre_norms else seen
        states = cache.states if cache is not None else StateCache(x.shape[0], self.layer.states(x.shape[-1]), x.dtype)
        if isinstance(self.layer.mixer, Attention):
            mixed = self._attend(normed, tables, cache, start)
        else:
            mixed = mix(self, self.layer.mixer, normed, states)
        return self._after_attention(x, normed, mixed, states)

    def _after_attention(self, x: Tensor, normed: Tensor, attended: Tensor, states: StateCache | None = None) -> Tensor:
        """The residual sums and the MLP, for the residual stream, what attention saw of it and what it gave."""
        if self.layer.residual == "aside":
            return self.linear(self._feed(self._norm(attended, "mlp_norm"), states), "aside")
        if self.layer.ffn is None:
            return x + attended
        if self.layer.post_norms:
            attended = self._norm(attended, "post_attn_norm")
        added = x + attended
        if self.layer.sum_norms:
            added = self._norm(added, "attn_sum_norm")
        if self.layer.residual == "serial":
            x = added
        if self.layer.residual != "shared":
            normed = self._norm(x, "mlp_norm") if self.layer.pre_norms else x
        fed = self._feed(normed, states)
        if self.layer.post_norms:
            fed = self._norm(fed, "post_mlp_norm")
        return self._norm(added + fed, "mlp_sum_norm") if self.layer.sum_norms == "both" else added + fed

    def _norm(self, x: Tensor, name: str) -> Tensor:
        stem = name.replace(".", "_")
        weight = self.get_buffer(f"{stem}_weight")
        return normalize(x, weight, self.get_buffer(f"{stem}_bias") if self.norm == "layer" else None, self.eps)

    def linear(self, x: Tensor, name: str) -> Tensor:
        """The product of ``x`` with a matrix of the layer, its bias added; whoever observes is told ``x``."""
        if self.observe is not None:
            self.observe(name, x)
        stem = name.replace(".", "_")
        bias = self.get_buffer(f"{stem}_bias") if hasattr(self, f"{stem}_bias") else None
        return F.linear(x, self.get_buffer(f"{stem}_weight"), bias)

    def _attend(self, x: Tensor, tables: Tables | None, cache: LayerCache | None, start: int) -> Tensor:
        attention = self.layer.attention
        q, k, v = self._placed(x, tables)
        if self.observe is not None:
            self.observe("keys", k.transpose(1, 2).flatten(-2))
        if cache is not None:
            k, v = cache.update(start, k, v)
        attended = attend(q, k, v, attention).transpose(1, 2).flatten(-2)
        if attention.gated:
            attended = attended * torch.sigmoid(self.linear(x, "q_gate"))
        return self.linear(self._norm(attended, "o_norm") if attention.sub_norm else attended, "o")

    def _placed(self, x: Tensor, tables: Tables | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [batch, heads, positions, head_dim] of the normed stream, normed and turned."""
        attention = self.layer.attention
        q, k, v = (self.linear(x, name) for name in "qkv")
        if attention.low_rank is not None:
            lows = [self.linear(x, f"{name}_low") for name in "qkv"]
            added = (self.linear(low, f"{name}_high") for name, low in zip("qkv", lows, strict=True))
            q, k, v = (product + more for product, more in zip((q, k, v), added, strict=True))
        if attention.qk_norm == "all":
            q, k = self.norm_rms(q, "q"), self.norm_rms(k, "k")
        if attention.clip is not None:
            q, k, v = (part.clamp(-attention.clip, attention.clip) for part in (q, k, v))
        q, k, v = (part.view(*part.shape[:-1], -1, attention.head_dim).transpose(1, 2) for part in (q, k, v))
        if attention.qk_norm == "head":
            q, k = self.norm_rms(q, "q"), self.norm_rms(k, "k")
        elif attention.qk_norm == "layer":
            q, k = self._norm_heads(q, "q"), self._norm_heads(k, "k")
        if tables is not None:
            q, k = rotate(q, *tables), rotate(k, *tables)
        return q, k, v

    def _norm_heads(self, x: Tensor, name: str) -> Tensor:
        """A layer norm of its own on each head of [batch, heads, positions, head_dim]."""
        weight, bias = (
            torch.stack([self.get_buffer(f"heads_{head}_{name}_norm_{kind}") for head in range(x.shape[1])])
            for kind in ("weight", "bias")
        )
        return F.layer_norm(x, x.shape[-1:], eps=self.eps) * weight.unsqueeze(1) + bias.unsqueeze(1)

    def norm_rms(self, x: Tensor, name: str, eps: float | None = None) -> Tensor:
        """An RMS norm with the weight of that name, and with the model's epsilon if none is given."""
        return rms_norm(x, self.get_buffer(f"{name}_norm_weight"), self.eps if eps is None else eps)

    def _feed(self, x: Tensor, states: StateCache | None) -> Tensor:
        ffn = self.layer.ffn
        if isinstance(ffn, Mlp):
            return self._mlp(x, ffn, "")
        if isinstance(ffn, Moe):
            return self._experts(x, ffn)
        assert isinstance(ffn, ChannelMix)
        assert states is not None
        return channel_mix(self, x, states)

    def _mlp(self, x: Tensor, mlp: Mlp, prefix: str) -> Tensor:
        products = {part: self.linear(x, f"{prefix}{part}") for part in (("gate", "up") if mlp.gated else ("up",))}
        if mlp.low_rank is not None:
            low = self.linear(x, f"{prefix}ffn_low")
            for part in products:
                products[part] = products[part] + self.linear(low, f"{prefix}{part}_high")
        inner = activate(products["gate" if mlp.gated else "up"], mlp.activation)
        if mlp.gated:
            inner = inner * products["up"]
        return self.linear(self._norm(inner, f"{prefix}down_norm") if mlp.sub_norm else inner, f"{prefix}down")

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
    """Attention of the last ``q.shape[2]`` of ``k.shape[2]`` positions, masked, windowed and capped as described.

    Shapes: q [batch, heads, new, head_dim], k and v [batch, kv_heads, all, head_dim]; returns the shape of q.
    """
    new, total = q.shape[2], k.shape[2]
    whole = attention.window is None or total <= attention.window
    if attention.softcap is None and attention.alibi is None and new == total and whole and attention.causal:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=attention.scale, enable_gqa=True)
    rows = torch.arange(total - new, total).unsqueeze(1)
    columns = torch.arange(total).unsqueeze(0)
    mask = columns <= rows if attention.causal else torch.ones(new, total, dtype=torch.bool)
    if attention.window is not None:
        mask &= columns > rows - attention.window
        mask &= columns < rows + attention.window
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
