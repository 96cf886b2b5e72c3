"""Mixers that carry a state from position to position, in torch: convolutions, state spaces, delta networks, RWKV-4.

They define the numerics, one position after the other; runtimes have kernels of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .spec import GatedDelta, Mamba, Mamba2, Mixer, Rwkv, ShortConv

if TYPE_CHECKING:
    from .layers import DecoderLayer

#: Beside the squared length of a query or key that is made a unit vector.
UNIT_EPS = 1e-6


class StateCache:
    """The states of one layer by name, float [batch, ...]; zero before the first position."""

    def __init__(self, batch: int, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
        self._held = {name: torch.zeros(batch, *shape, dtype=dtype) for name, shape in shapes.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._held[name]

    def __setitem__(self, name: str, state: Tensor) -> None:
        self._held[name] = state

    def copy(self) -> dict[str, Tensor]:
        """The states as they are now; steps replace tensors and never change them."""
        return dict(self._held)

    def restore(self, saved: Mapping[str, Tensor] | None) -> None:
        """Go back to states that :meth:`copy` gave, or to zero."""
        self._held = {name: saved[name] if saved else torch.zeros_like(held) for name, held in self._held.items()}


def mix(layer: DecoderLayer, mixer: Mixer, x: Tensor, states: StateCache) -> Tensor:
    """What a layer's mixer gives for the normed stream [batch, positions, hidden]; ``states`` go on from the last."""
    if isinstance(mixer, ShortConv):
        return _short_conv(layer, x, states)
    if isinstance(mixer, Mamba):
        return _mamba(layer, mixer, x, states)
    if isinstance(mixer, Mamba2):
        return _mamba2(layer, mixer, x, states)
    if isinstance(mixer, GatedDelta):
        return _gated_delta(layer, mixer, x, states)
    assert isinstance(mixer, Rwkv)
    return _rwkv(layer, x, states)


def channel_mix(layer: DecoderLayer, x: Tensor, states: StateCache) -> Tensor:
    """RWKV's feed-forward block."""
    before = _shifted(x, states, "ffn_shift")
    key, gate = (_blend(layer, x, before, f"ffn_shift.{part}") for part in "kr")
    inner = F.relu(layer.linear(key, "up")).square()
    return torch.sigmoid(layer.linear(gate, "gate")) * layer.linear(inner, "down")


def _short_conv(layer: DecoderLayer, x: Tensor, states: StateCache) -> Tensor:
    b, c, value = layer.linear(x, "in").chunk(3, dim=-1)
    return layer.linear(c * _convolved(layer, b * value, states), "out")


def _mamba(layer: DecoderLayer, mixer: Mamba, x: Tensor, states: StateCache) -> Tensor:
    value, gate = layer.linear(x, "in").chunk(2, dim=-1)
    value = F.silu(_convolved(layer, value, states))
    selected = [_selected(layer, mixer, part, name) for part, name in _mamba_heads(mixer, value)]
    delta, b, c = (torch.cat(parts, dim=-2) for parts in zip(*selected, strict=True))
    delta = delta.flatten(-2).float()
    decay = torch.exp(delta.unsqueeze(-1) * -torch.exp(layer.get_buffer("ssm_a_log").float()))  # [..., inner, state]
    b, read = (_for_channels(part, mixer.inner // mixer.heads) for part in (b, c))
    added = (delta * value).unsqueeze(-1) * b
    out = _scanned(decay.unsqueeze(-1), added.unsqueeze(-1), read, states)
    return layer.linear((out.squeeze(-1) + layer.get_buffer("ssm_d") * value) * F.silu(gate), "out")


def _mamba_heads(mixer: Mamba, value: Tensor) -> Iterator[tuple[Tensor, str]]:
    """The channels of each head, and what its matrices' names begin with."""
    if mixer.heads == 1:
        yield value, ""
        return
    for head, part in enumerate(value.chunk(mixer.heads, dim=-1)):
        yield part, f"heads.{head}."


def _selected(layer: DecoderLayer, mixer: Mamba, value: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Step sizes, B and C of one head, each [..., 1, size]."""
    sizes = [mixer.rank, mixer.state, mixer.state]
    parts: tuple[Tensor, ...] = torch.split(layer.linear(value, f"{name}x"), sizes, dim=-1)
    if mixer.normed:
        names = (name.replace(".", "_") + each for each in ("dt", "b", "c"))
        parts = tuple(layer.norm_rms(part, each, mixer.eps) for part, each in zip(parts, names, strict=True))
    step, b, c = parts
    delta = F.softplus(layer.linear(step, f"{name}dt"))
    return delta.unsqueeze(-2), b.unsqueeze(-2), c.unsqueeze(-2)


def _for_channels(x: Tensor, count: int) -> Tensor:
    """What each head has, [..., heads, size], for each of its channels: [..., heads * count, size]."""
    return x.unsqueeze(-2).expand(*x.shape[:-1], count, x.shape[-1]).flatten(-3, -2)


def _mamba2(layer: DecoderLayer, mixer: Mamba2, x: Tensor, states: StateCache) -> Tensor:
    gate, inner, step = torch.split(layer.linear(x, "in"), [mixer.inner, mixer.conv_size, mixer.heads], dim=-1)
    shared = mixer.groups * mixer.state
    value, b, c = torch.split(F.silu(_convolved(layer, inner, states)), [mixer.inner, shared, shared], dim=-1)
    delta = F.softplus((step + layer.get_buffer("ssm_dt_bias")).float())
    if mixer.limited:
        delta = delta.clamp(mixer.least_step, mixer.most_step)
    decay = torch.exp(delta * -torch.exp(layer.get_buffer("ssm_a_log").float()))
    heads = value.view(*value.shape[:-1], mixer.heads, mixer.head_dim)
    b, c = (
        part.view(*part.shape[:-1], mixer.groups, -1).repeat_interleave(mixer.heads // mixer.groups, dim=-2)
        for part in (b, c)
    )
    added = b.unsqueeze(-1) * (delta.unsqueeze(-1) * heads).unsqueeze(-2)  # [..., heads, state, head_dim]
    out = _scanned(decay[..., None, None], added, c, states) + layer.get_buffer("ssm_d").unsqueeze(-1) * heads
    gated = out.flatten(-2) * F.silu(gate)
    grouped = gated.view(*gated.shape[:-1], mixer.groups, -1).float()
    normed = grouped * torch.rsqrt(grouped.square().mean(-1, keepdim=True) + layer.eps)
    return layer.linear(normed.flatten(-2).to(x.dtype) * layer.get_buffer("out_norm_weight"), "out")


def _gated_delta(layer: DecoderLayer, mixer: GatedDelta, x: Tensor, states: StateCache) -> Tensor:
    inner = torch.cat([layer.linear(x, f"delta.{part}") for part in "qkv"], dim=-1)
    sizes = [mixer.key_size, mixer.key_size, mixer.inner]
    q, k, v = torch.split(F.silu(_convolved(layer, inner, states)).float(), sizes, dim=-1)
    q, k = (part.view(*part.shape[:-1], mixer.key_heads, -1) for part in (q, k))
    q, k = (_for_channels(_unit(part), mixer.heads // mixer.key_heads) for part in (q, k))
    v = v.view(*v.shape[:-1], mixer.heads, -1)
    step = F.linear(x, layer.get_buffer("delta_decay_weight")).float() + layer.get_buffer("ssm_dt_bias").float()
    decay = torch.exp(-torch.exp(layer.get_buffer("ssm_a_log").float()) * F.softplus(step))
    beta = torch.sigmoid(F.linear(x, layer.get_buffer("delta_beta_weight")).float())
    out = _delta_scanned((q * mixer.key_dim**-0.5, k, v), decay, beta, states)
    out = layer.norm_rms(out, "out").to(x.dtype).flatten(-2)
    return layer.linear(out * F.silu(layer.linear(x, "delta.z")), "out")


def _delta_scanned(qkv: tuple[Tensor, Tensor, Tensor], decay: Tensor, beta: Tensor, states: StateCache) -> Tensor:
    """The state fades by ``decay``; of what it then lacks of a value for its key, it takes in the part ``beta``.

    Shapes: q, k and v [batch, positions, heads, size], decay and beta [batch, positions, heads]; returns that of v. The
    state is kept as "delta".
    """
    state, found = states["delta"].float(), []
    for position in range(decay.shape[1]):
        query, key, value = (part[:, position] for part in qkv)
        state = decay[:, position, :, None, None] * state
        missing = value - (state * key.unsqueeze(-2)).sum(-1)
        state = state + (beta[:, position].unsqueeze(-1) * missing).unsqueeze(-1) * key.unsqueeze(-2)
        found.append((state * query.unsqueeze(-2)).sum(-1))
    states["delta"] = state.to(states["delta"].dtype)
    return torch.stack(found, dim=1)


def _unit(x: Tensor) -> Tensor:
    """Vectors of length 1."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + UNIT_EPS)


def _scanned(decay: Tensor, added: Tensor, read: Tensor, states: StateCache) -> Tensor:
    """``state = decay * state + added`` from position to position, and the sum of it over ``read``.

    Shapes: added [batch, positions, heads, state, head_dim], decay broadcasts to it, read lacks the last axis; returns
    [batch, positions, heads, head_dim]. The state is kept as "ssm".
    """
    state, found = states["ssm"].float(), []
    for position in range(added.shape[1]):
        state = decay[:, position] * state + added[:, position].float()
        found.append((state * read[:, position].unsqueeze(-1)).sum(-2))
    states["ssm"] = state.to(states["ssm"].dtype)
    return torch.stack(found, dim=1).to(added.dtype)


def _convolved(layer: DecoderLayer, x: Tensor, states: StateCache) -> Tensor:
    """A causal convolution of each channel of [batch, positions, channels]; what it still needs is kept as "conv"."""
    weight = layer.get_buffer("conv_weight")
    longer = torch.cat((states["conv"].to(x.dtype), x), dim=1)
    states["conv"] = longer[:, longer.shape[1] - weight.shape[1] + 1 :]
    bias = layer.get_buffer("conv_bias") if hasattr(layer, "conv_bias") else None
    return F.conv1d(longer.transpose(1, 2), weight.unsqueeze(1), bias, groups=weight.shape[0]).transpose(1, 2)


def _rwkv(layer: DecoderLayer, x: Tensor, states: StateCache) -> Tensor:
    before = _shifted(x, states, "shift")
    key, value, receptance = (layer.linear(_blend(layer, x, before, f"shift.{part}"), part) for part in "kvr")
    decay, first = -torch.exp(layer.get_buffer("wkv_decay").float()), layer.get_buffer("wkv_first").float()
    above, below, most = states["wkv"].float().unbind(1)  # sums times exp(-most), so that nothing overflows
    found = []
    for position in range(x.shape[1]):
        k, v = key[:, position].float(), value[:, position].float()
        peak = torch.maximum(most, k + first)
        old, new = torch.exp(most - peak), torch.exp(k + first - peak)
        found.append((old * above + new * v) / (old * below + new))
        peak = torch.maximum(most + decay, k)
        old, new = torch.exp(most + decay - peak), torch.exp(k - peak)
        above, below, most = old * above + new * v, old * below + new, peak
    states["wkv"] = torch.stack((above, below, most), dim=1).to(states["wkv"].dtype)
    return layer.linear(torch.sigmoid(receptance) * torch.stack(found, dim=1).to(x.dtype), "o")


def _shifted(x: Tensor, states: StateCache, name: str) -> Tensor:
    """What stood one position before."""
    before = torch.cat((states[name].to(x.dtype), x[:, :-1]), dim=1)
    states[name] = x[:, -1:]
    return before


def _blend(layer: DecoderLayer, x: Tensor, before: Tensor, name: str) -> Tensor:
    part = layer.get_buffer(name.replace(".", "_"))
    return x * part + before * (1 - part)
