"""Mixers that carry states, as nodes of the subgraphs around them; between these are the :mod:`.recurrences`.

All of them read positions through a convolution of each channel, whose state is the last rows of a stream (RWKV's token
shift is one over two positions). States of convolutions have the program's float type, those of recurrences float32.
Sources: arXiv 2312.00752 (Mamba), 2405.21060 (Mamba-2), 2305.13048 (RWKV-4), 2511.23404 (LFM2).
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch

from edgesdk.model.spec import Mamba, Mamba2, Rwkv, ShortConv

from .sizes import WIDE_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesdk.model.spec import Layer, Mixer

    from .blocks import Blocks
    from .states import Carries, Kept
    from .subgraph import Subgraph, Value

    Recurrent = ShortConv | Mamba | Mamba2 | Rwkv


def kept_states(layers: Sequence[Layer], hidden: int, float_type: torch.dtype) -> dict[str, Kept]:
    """Every state, as the program keeps it; rows of a stream are [1, rows, 1, size]."""
    return {
        f"layers.{index}.{name}": (
            _shape(name, shape, layer.mixer),
            torch.float32 if name in WIDE_STATES else float_type,
        )
        for index, layer in enumerate(layers)
        for name, shape in layer.states(hidden).items()
    }


def before_recurrence(
    blocks: Blocks, graph: Subgraph, x: Value, name: str, mixer: Recurrent, carries: Carries
) -> list[Value]:
    """What :func:`.recur` takes for the normed stream [1, tokens, hidden].

    Where there is a recurrence, float32 rows for it, [1, tokens, 1, ...]; then what :func:`after_recurrence` reads.
    """
    if isinstance(mixer, Mamba):
        return _before_mamba(blocks, graph, x, name, mixer, carries)
    if isinstance(mixer, Mamba2):
        return _before_mamba2(blocks, graph, x, name, mixer, carries)
    if isinstance(mixer, Rwkv):
        longer = carries.behind(f"{name}.shift", x, 1)
        parts = [blocks.linear(graph, _blend(blocks, graph, longer, f"{name}.shift.{part}"), f"{name}.{part}")
                 for part in "kvr"]  # fmt: skip
        return [_rows(graph, parts[:2]), graph.unary("XNNSigmoid", parts[2])]
    b, c, value = graph.split(blocks.linear(graph, x, f"{name}.in"), [x.shape[2]] * 3)
    mixed = _convolved(blocks, graph, graph.multiply(b, value), f"{name}.conv", carries)
    return [graph.multiply(c, mixed)]


def after_recurrence(blocks: Blocks, graph: Subgraph, given: Sequence[Value], name: str, mixer: Recurrent) -> Value:
    """What the mixer adds to the stream, [1, tokens, hidden]; ``given`` came of :func:`before_recurrence`.

    The rows for a recurrence are replaced by what it gave.
    """
    if isinstance(mixer, ShortConv):
        return blocks.linear(graph, given[0], f"{name}.out")
    size = mixer.size if isinstance(mixer, Rwkv) else mixer.inner
    out = graph.cast(graph.reshape(given[0], (1, 0, size), (1, given[0].shape[1], size)), blocks.float_type)
    if isinstance(mixer, Rwkv):
        return blocks.linear(graph, graph.multiply(out, given[1]), f"{name}.o")
    gated = graph.multiply(graph.add(out, given[1]), given[2])
    if isinstance(mixer, Mamba2):
        gated = _grouped_norm(blocks, graph, gated, name, mixer)
    return blocks.linear(graph, gated, f"{name}.out")


def channel_mix(blocks: Blocks, graph: Subgraph, x: Value, name: str, carries: Carries) -> Value:
    """RWKV's feed-forward block."""
    longer = carries.behind(f"{name}.ffn_shift", x, 1)
    key, gate = (_blend(blocks, graph, longer, f"{name}.ffn_shift.{part}") for part in "kr")
    inner = graph.unary("XNNSquare", graph.relu(blocks.linear(graph, key, f"{name}.up")))
    part = graph.unary("XNNSigmoid", blocks.linear(graph, gate, f"{name}.gate"))
    return graph.multiply(part, blocks.linear(graph, inner, f"{name}.down"))


def _shape(name: str, shape: tuple[int, ...], mixer: Mixer) -> tuple[int, ...]:
    if name == "wkv":
        return (1, 1, *shape)
    if name != "ssm":
        rows, size = shape
        return (1, rows, 1, size)
    if isinstance(mixer, Mamba2):
        return (mixer.groups, mixer.heads // mixer.groups, *shape[1:])
    return (1, 1, shape[1], shape[0])


def _before_mamba(blocks: Blocks, graph: Subgraph, x: Value, name: str, mixer: Mamba, carries: Carries) -> list[Value]:
    value, gate = graph.split(blocks.linear(graph, x, f"{name}.in"), [mixer.inner] * 2)
    value = _silu(graph, _convolved(blocks, graph, value, f"{name}.conv", carries))
    parts = graph.split(blocks.linear(graph, value, f"{name}.x"), [mixer.rank, mixer.state, mixer.state])
    if mixer.normed:
        parts = [
            blocks.rms_norm(graph, part, f"{name}.{each}_norm")
            for part, each in zip(parts, ("dt", "b", "c"), strict=True)
        ]
    delta = softplus(graph, graph.cast(blocks.linear(graph, parts[0], f"{name}.dt"), torch.float32))
    added = graph.multiply(delta, graph.cast(value, torch.float32))
    skip = graph.multiply(value, graph.constant(f"{name}.ssm.d", blocks.vector(f"{name}.ssm.d")))
    return [_rows(graph, [delta, added, *parts[1:]]), skip, _silu(graph, gate)]


def _before_mamba2(
    blocks: Blocks, graph: Subgraph, x: Value, name: str, mixer: Mamba2, carries: Carries
) -> list[Value]:
    heads, head_dim, shared = mixer.heads, mixer.head_dim, mixer.groups * mixer.state
    tokens = x.shape[1]
    gate, inner, step = graph.split(blocks.linear(graph, x, f"{name}.in"), [mixer.inner, mixer.conv_size, heads])
    inner = _silu(graph, _convolved(blocks, graph, inner, f"{name}.conv", carries))
    value, b, c = graph.split(inner, [mixer.inner, shared, shared])
    bias = graph.constant(f"{name}.ssm.dt_bias", blocks.vector(f"{name}.ssm.dt_bias"), torch.float32)
    delta = softplus(graph, graph.add(graph.cast(step, torch.float32), bias))
    rate = -torch.exp(blocks.vector(f"{name}.ssm.a_log").float())
    logarithm = graph.multiply(delta, graph.constant(f"{name}.ssm.rate", rate, torch.float32))  # of the decay
    wide = graph.reshape(delta, (0, heads, 1), (tokens, heads, 1))
    split = graph.reshape(graph.cast(value, torch.float32), (0, heads, head_dim), (tokens, heads, head_dim))
    added = graph.reshape(graph.multiply(split, wide), (1, 0, mixer.inner), (1, tokens, mixer.inner))
    skip = blocks.vector(f"{name}.ssm.d").repeat_interleave(head_dim)
    skipped = graph.multiply(value, graph.constant(f"{name}.ssm.skip", skip))
    return [_rows(graph, [logarithm, added, b, c]), skipped, _silu(graph, gate)]


def _grouped_norm(blocks: Blocks, graph: Subgraph, x: Value, name: str, mixer: Mamba2) -> Value:
    """An RMS norm over each group's channels."""
    if mixer.groups == 1:
        return blocks.rms_norm(graph, x, f"{name}.out_norm")
    groups, size, tokens = mixer.groups, mixer.inner // mixer.groups, x.shape[1]
    split = graph.reshape(x, (1, 0, groups, size), (1, tokens, groups, size))
    normed = blocks.rms_norm(graph, split, f"{name}.out_norm")
    return graph.reshape(normed, (1, 0, mixer.inner), (1, tokens, mixer.inner))


def _convolved(blocks: Blocks, graph: Subgraph, x: Value, name: str, carries: Carries) -> Value:
    """A causal convolution of each channel of [1, tokens, size]."""
    weight = blocks.vector(f"{name}.weight")
    longer = carries.behind(name, x, weight.shape[1] - 1)
    out = graph.depthwise(longer, name, weight, blocks.optional(f"{name}.bias"))
    return graph.reshape(out, (1, 0, x.shape[2]), x.shape)


def _blend(blocks: Blocks, graph: Subgraph, longer: Value, name: str) -> Value:
    """Each channel's mean of a token and the one before, with the weight of that name for the token."""
    part, (_, rows, _, size) = blocks.vector(name), longer.shape
    out = graph.depthwise(longer, name, torch.stack((1 - part, part), dim=1), None)
    return graph.reshape(out, (1, 0, size), (1, rows - 1, size))


def _rows(graph: Subgraph, parts: Sequence[Value]) -> Value:
    """Parts [1, tokens, ...] beside one another in float32, [1, tokens, 1, ...]."""
    wide = [graph.cast(part, torch.float32) for part in parts]
    joined = reduce(lambda first, second: graph.concatenate(first, second, 2), wide)
    _, tokens, size = joined.shape
    return graph.reshape(joined, (1, 0, 1, size), (1, tokens, 1, size))


def _silu(graph: Subgraph, x: Value) -> Value:
    return graph.multiply(x, graph.unary("XNNSigmoid", x))


def softplus(graph: Subgraph, x: Value) -> Value:
    """log(1 + exp(x)) of float32 values, as max(x, 0) + log(1 + y) with y = exp(-|x|).

    XNNPACK's logarithm loses digits near 1. So log(1 + y) is twice the area tangent of z = y / (2 + y), at most 1/3, by
    its series up to z to the 13th: what is left out is below 2e-8 of it.
    """
    wide = torch.float32
    y = graph.unary("XNNExp", graph.unary("XNNNegate", graph.unary("XNNAbs", x)))
    z = graph.binary("XNNDiv", y, graph.add(y, graph.scalar(2.0, wide)))
    square, series = graph.unary("XNNSquare", z), graph.scalar(2 / 13, wide)
    for power in (11, 9, 7, 5, 3, 1):
        series = graph.add(graph.multiply(square, series), graph.scalar(2 / power, wide))
    return graph.add(graph.relu(x), graph.multiply(z, series))
