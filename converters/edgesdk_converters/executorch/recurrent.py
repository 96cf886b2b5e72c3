"""Mixers that carry states, as nodes of the subgraphs around them and as a recurrence between these.

All of them read positions through a convolution of each channel, whose state is the last rows of a stream (RWKV's token
shift is one over two positions). State spaces and RWKV's time mixing then go from token to token: a loop of the method
calls one subgraph for each, which takes the state and gives it back in the same memory. Recurrences are computed in
float32, their states kept in it.
Sources: arXiv 2312.00752 (Mamba), 2405.21060 (Mamba-2), 2305.13048 (RWKV-4), 2511.23404 (LFM2).
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch

from edgesdk.model.spec import Mamba, Mamba2, Rwkv, ShortConv

from .subgraph import Subgraph, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesdk.model.spec import Layer, Mixer

    from .attention import Step
    from .blocks import Blocks
    from .program import ProgramFile, Slot
    from .states import Carries, States

    Recurrent = ShortConv | Mamba | Mamba2 | Rwkv

_TINY = 1e-30


def state_shapes(
    layers: Sequence[Layer], hidden: int, float_type: torch.dtype
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of every state, as the program keeps it; rows of a stream are [1, rows, 1, size]."""
    found: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    for index, layer in enumerate(layers):
        for name, shape in layer.states(hidden).items():
            if name == "ssm":
                kept = (1, 1, shape[1], shape[0]) if isinstance(layer.mixer, Mamba) else (1, *shape)
            else:
                kept = (1, 1, *shape) if name == "wkv" else (1, shape[0], 1, shape[1])
            found[f"layers.{index}.{name}"] = kept, torch.float32 if name in ("ssm", "wkv") else float_type
    return found


def before_recurrence(
    blocks: Blocks, graph: Subgraph, x: Value, name: str, mixer: Recurrent, carries: Carries
) -> list[Value]:
    """What :func:`recur` takes for the normed stream [1, tokens, hidden].

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
    b, c, value = _split(graph, blocks.linear(graph, x, f"{name}.in"), [x.shape[2]] * 3)
    mixed = _convolved(blocks, graph, graph.multiply(b, value), f"{name}.conv", carries)
    return [graph.multiply(c, mixed)]


def recurrence(blocks: Blocks, file: ProgramFile, name: str, mixer: Mixer) -> int | None:
    """The delegate of one step of a mixer's recurrence; None: it has none.

    Arguments: the step's rows and the state; results: the state and what the step gives, [1, 1, 1, size].
    """
    graph = Subgraph(file.data, torch.float32)
    if isinstance(mixer, Mamba):
        results = _mamba_step(blocks, graph, name, mixer)
    elif isinstance(mixer, Mamba2):
        results = _mamba2_step(graph, mixer)
    elif isinstance(mixer, Rwkv):
        results = _rwkv_step(blocks, graph, name, mixer)
    else:
        return None
    for value in results:
        graph.output(value)
    return file.delegate(graph.document())


def recur(step: Step, states: States, delegate: int, name: str, mixer: Mixer, rows: Slot) -> Slot:
    """Go from token to token by the delegate of :func:`recurrence`: what each gives, float32 [1, tokens, 1, size]."""
    assert isinstance(mixer, Mamba | Mamba2 | Rwkv)
    method, size = step.method, mixer.size if isinstance(mixer, Rwkv) else mixer.inner
    state = states[f"{name}.{'wkv' if isinstance(mixer, Rwkv) else 'ssm'}"]
    out = step.tensor((1, step.chunk, 1, size), torch.float32)
    method.call("aten::slice_copy.Tensor_out", [rows, 3, 0, size, 1], out)  # as long as the tokens; written over below
    row, given = (step.tensor((1, 1, 1, width), torch.float32, dynamic=False) for width in (rows.shape[3], size))
    unused = step.tensor((1,), torch.float32, dynamic=False)
    with method.each(step.count) as (at, following):
        method.call("aten::slice_copy.Tensor_out", [rows, 1, at, following, 1], row)
        method.delegate(delegate, [row, state, state, given])
        method.call("llama::update_cache.out", [given, out, at], unused)
    return out


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


def _before_mamba(blocks: Blocks, graph: Subgraph, x: Value, name: str, mixer: Mamba, carries: Carries) -> list[Value]:
    value, gate = _split(graph, blocks.linear(graph, x, f"{name}.in"), [mixer.inner] * 2)
    value = _silu(graph, _convolved(blocks, graph, value, f"{name}.conv", carries))
    parts = _split(graph, blocks.linear(graph, value, f"{name}.x"), [mixer.rank, mixer.state, mixer.state])
    if mixer.normed:
        parts = [
            blocks.rms_norm(graph, part, f"{name}.{each}_norm")
            for part, each in zip(parts, ("dt", "b", "c"), strict=True)
        ]
    delta = _softplus(graph, graph.cast(blocks.linear(graph, parts[0], f"{name}.dt"), torch.float32))
    added = graph.multiply(delta, graph.cast(value, torch.float32))
    skip = graph.multiply(value, graph.constant(f"{name}.ssm.d", blocks.vector(f"{name}.ssm.d")))
    return [_rows(graph, [delta, added, *parts[1:]]), skip, _silu(graph, gate)]


def _mamba_step(blocks: Blocks, graph: Subgraph, name: str, mixer: Mamba) -> tuple[Value, Value]:
    """The state is [1, 1, state, inner]."""
    inner, size = mixer.inner, mixer.state
    row, state = graph.input((1, 1, 1, 2 * (inner + size))), graph.input((1, 1, size, inner))
    delta, added, b, c = _split(graph, row, [inner, inner, size, size])
    rate = -torch.exp(blocks.vector(f"{name}.ssm.a_log").float()).t()
    decay = graph.unary("XNNExp", graph.multiply(delta, graph.constant(f"{name}.ssm.rate", rate)))
    column = graph.reshape(b, (1, 1, size, 1), (1, 1, size, 1))
    state = graph.add(graph.multiply(decay, state), graph.multiply(added, column))
    return state, graph.matmul(c, state)


def _before_mamba2(
    blocks: Blocks, graph: Subgraph, x: Value, name: str, mixer: Mamba2, carries: Carries
) -> list[Value]:
    heads, head_dim, shared = mixer.heads, mixer.head_dim, mixer.groups * mixer.state
    tokens = x.shape[1]
    gate, inner, step = _split(graph, blocks.linear(graph, x, f"{name}.in"), [mixer.inner, mixer.conv_size, heads])
    inner = _silu(graph, _convolved(blocks, graph, inner, f"{name}.conv", carries))
    value, b, c = _split(graph, inner, [mixer.inner, shared, shared])
    bias = graph.constant(f"{name}.ssm.dt_bias", blocks.vector(f"{name}.ssm.dt_bias"), torch.float32)
    delta = _softplus(graph, graph.add(graph.cast(step, torch.float32), bias))
    rate = -torch.exp(blocks.vector(f"{name}.ssm.a_log").float())
    decay = graph.unary("XNNExp", graph.multiply(delta, graph.constant(f"{name}.ssm.rate", rate, torch.float32)))
    wide = graph.reshape(delta, (0, heads, 1), (tokens, heads, 1))
    split = graph.reshape(graph.cast(value, torch.float32), (0, heads, head_dim), (tokens, heads, head_dim))
    added = graph.reshape(graph.multiply(split, wide), (1, 0, mixer.inner), (1, tokens, mixer.inner))
    skip = blocks.vector(f"{name}.ssm.d").repeat_interleave(head_dim)
    skipped = graph.multiply(value, graph.constant(f"{name}.ssm.skip", skip))
    return [_rows(graph, [decay, added, b, c]), skipped, _silu(graph, gate)]


def _mamba2_step(graph: Subgraph, mixer: Mamba2) -> tuple[Value, Value]:
    """The state is [1, heads, state, head_dim]."""
    heads, size, head_dim, groups = mixer.heads, mixer.state, mixer.head_dim, mixer.groups
    shared, shape = groups * size, (1, heads, size, head_dim)
    row = graph.input((1, 1, 1, heads + mixer.inner + 2 * shared))
    state = graph.input(shape)
    decay, added, b, c = _split(graph, row, [heads, mixer.inner, shared, shared])

    def shaped(value: Value, *sizes: int) -> Value:
        return graph.reshape(value, (1, *sizes), (1, *sizes))

    def spread(value: Value) -> Value:
        """Each group's row for all of its heads, [1, heads, 1, state]."""
        ones = graph.constant(f"ssm.ones.{heads // groups}", torch.ones((1, heads // groups, 1)))
        return shaped(graph.multiply(shaped(value, groups, 1, size), ones), heads, 1, size)

    columns = shaped(spread(b), heads, size, 1)
    new = graph.multiply(columns, shaped(added, heads, 1, head_dim))
    state = graph.add(graph.multiply(state, shaped(decay, heads, 1, 1)), new)
    return state, shaped(graph.matmul(spread(c), state), 1, 1, mixer.inner)


def _grouped_norm(blocks: Blocks, graph: Subgraph, x: Value, name: str, mixer: Mamba2) -> Value:
    """An RMS norm over each group's channels."""
    if mixer.groups == 1:
        return blocks.rms_norm(graph, x, f"{name}.out_norm")
    groups, size, tokens = mixer.groups, mixer.inner // mixer.groups, x.shape[1]
    split = graph.reshape(x, (1, 0, groups, size), (1, tokens, groups, size))
    normed = blocks.rms_norm(graph, split, f"{name}.out_norm")
    return graph.reshape(normed, (1, 0, mixer.inner), (1, tokens, mixer.inner))


def _rwkv_step(blocks: Blocks, graph: Subgraph, name: str, mixer: Rwkv) -> tuple[Value, Value]:
    """The state is [1, 1, 3, size]: both sums, by the exponential of minus the third, so that nothing overflows."""
    size = mixer.size
    key, value = _split(graph, graph.input((1, 1, 1, 2 * size)), [size, size])
    state = graph.input((1, 1, 3, size))
    above, below, most = (graph.part(state, 2, index, 1) for index in range(3))

    def shared(peak: Value, before: Value, new: Value) -> tuple[Value, Value]:
        old, fresh = (graph.unary("XNNExp", graph.subtract(each, peak)) for each in (before, new))
        top = graph.add(graph.multiply(old, above), graph.multiply(fresh, value))
        return top, graph.add(graph.multiply(old, below), fresh)

    first = graph.constant(f"{name}.wkv.first", blocks.vector(f"{name}.wkv.first"))
    decay = graph.constant(f"{name}.wkv.rate", -torch.exp(blocks.vector(f"{name}.wkv.decay").float()))
    ahead, faded = graph.add(key, first), graph.add(most, decay)
    mean = graph.binary("XNNDiv", *shared(graph.binary("XNNMaximum", most, ahead), most, ahead))
    peak = graph.binary("XNNMaximum", faded, key)
    above, below = shared(peak, faded, key)
    return graph.concatenate(graph.concatenate(above, below, 2), peak, 2), mean


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


def _split(graph: Subgraph, x: Value, sizes: Sequence[int]) -> list[Value]:
    """Parts of the last axis."""
    return [graph.part(x, len(x.shape) - 1, sum(sizes[:index]), size) for index, size in enumerate(sizes)]


def _silu(graph: Subgraph, x: Value) -> Value:
    return graph.multiply(x, graph.unary("XNNSigmoid", x))


def _softplus(graph: Subgraph, x: Value) -> Value:
    """log(1 + exp(x)) of float32 values, as max(x, 0) + log(1 + y) with y = exp(-|x|).

    Small y keep their digits in log(u) * y / (u - 1), where u is 1 + y rounded: what is lost of y there cancels.
    """
    y = graph.unary("XNNExp", graph.unary("XNNNegate", graph.unary("XNNAbs", x)))
    one = graph.scalar(1.0, torch.float32)
    u = graph.add(y, one)
    rounded = graph.unary("XNNClamp", graph.subtract(u, one), (_TINY, float("inf")))
    logarithm = graph.multiply(graph.unary("XNNLog", u), graph.binary("XNNDiv", y, rounded))
    return graph.add(graph.relu(x), logarithm)
