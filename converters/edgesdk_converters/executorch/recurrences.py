"""Recurrences: state spaces and RWKV's time mixing, from token to token, in float32.

A loop of the method calls one subgraph for a token, or for a block of them, which takes the state and gives it back in
the same memory: XNNPACK runs nodes in their order, and all that read the state stand before the one that writes it.
Sources: arXiv 2312.00752 (Mamba), 2405.21060 (Mamba-2, section 6), 2305.13048 (RWKV-4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgesdk.model.spec import Mamba, Mamba2, Rwkv

from .subgraph import Subgraph, Value

if TYPE_CHECKING:
    from edgesdk.model.spec import Mixer

    from .attention import Step
    from .blocks import Blocks
    from .program import ProgramFile, Slot

_BLOCK = 32  # tokens that Mamba-2's subgraph takes at once


def recurrence(blocks: Blocks, file: ProgramFile, name: str, mixer: Mixer) -> int | None:
    """The delegate of a mixer's recurrence; None: it has none.

    Arguments: rows of its tokens, [1, tokens, 1, ...], the state, and for a block the lower triangle of ones, [1, 1,
    tokens, tokens]. Results: the state, and what each token gives, [1, tokens, 1, size].
    """
    graph = Subgraph(file.data, torch.float32)
    if isinstance(mixer, Mamba):
        results = _mamba(blocks, graph, name, mixer)
    elif isinstance(mixer, Mamba2):
        results = _mamba2(graph, mixer)
    elif isinstance(mixer, Rwkv):
        results = _rwkv(blocks, graph, name, mixer)
    else:
        return None
    for value in results:
        graph.output(value)
    return file.delegate(graph.document())


def recur(step: Step, delegate: int, name: str, mixer: Mixer, rows: Slot) -> Slot:
    """Go over all tokens by the delegate of :func:`recurrence`: what each gives, float32 [1, tokens, 1, size]."""
    assert isinstance(mixer, Mamba | Mamba2 | Rwkv)
    method, size = step.method, mixer.size if isinstance(mixer, Rwkv) else mixer.inner
    state = step.states[f"{name}.{'wkv' if isinstance(mixer, Rwkv) else 'ssm'}"]
    block = _BLOCK if isinstance(mixer, Mamba2) else 1
    out = step.tensor((1, step.chunk, 1, size), torch.float32)
    method.call("aten::slice_copy.Tensor_out", [rows, 3, 0, size, 1], out)  # as long as the tokens; written over below
    taken, given = (step.tensor((1, block, 1, width), torch.float32) for width in (rows.shape[3], size))
    unused = step.tensor((1,), torch.float32, dynamic=False)
    with method.each(step.count, block) as (at, following):
        method.call("aten::slice_copy.Tensor_out", [rows, 1, at, following, 1], taken)
        triangle = [_triangle(step, taken)] if block > 1 else []
        method.delegate(delegate, [taken, state, *triangle, state, given])
        method.call("llama::update_cache.out", [given, out, at], unused)
    return out


def _triangle(step: Step, rows: Slot) -> Slot:
    """The lower triangle of ones, [1, 1, tokens, tokens], for rows [1, tokens, ...]."""
    method, most = step.method, rows.shape[1]
    count = method.variable()
    method.call("aten::sym_size.int", [rows, 1], count)
    part = method.constant(f"triangle.{most}", torch.ones((1, 1, most, most)).tril())
    for axis in (2, 3):
        shorter = step.tensor(part.shape, torch.float32)
        method.call("aten::slice_copy.Tensor_out", [part, axis, 0, count, 1], shorter)
        part = shorter
    return part


def _mamba(blocks: Blocks, graph: Subgraph, name: str, mixer: Mamba) -> tuple[Value, Value]:
    """One token; the state is [1, 1, state, inner], the row holds step sizes, what is added, B and C."""
    inner, size = mixer.inner, mixer.state
    row, state = graph.input((1, 1, 1, 2 * (inner + size))), graph.input((1, 1, size, inner))
    delta, added, b, c = graph.split(row, [inner, inner, size, size])
    rate = -torch.exp(blocks.vector(f"{name}.ssm.a_log").float()).t()
    decay = graph.unary("XNNExp", graph.multiply(delta, graph.constant(f"{name}.ssm.rate", rate)))
    column = graph.reshape(b, (1, 1, size, 1), (1, 1, size, 1))
    state = graph.add(graph.multiply(decay, state), graph.multiply(added, column))
    return state, graph.matmul(c, state)


def _mamba2(graph: Subgraph, mixer: Mamba2) -> tuple[Value, Value]:
    """A block of tokens by products of matrices; rows hold logarithms of decays, what is added, B and C.

    What a token gives is C times the state before the block, decayed up to it, and a sum over the tokens up to it,
    weighted with C times their B and the decay between them. The state is [groups, heads of each, state, head_dim].
    """
    most, groups, size, head_dim = _BLOCK, mixer.groups, mixer.state, mixer.head_dim
    each, shared = mixer.heads // groups, groups * size
    rows = graph.input((1, most, 1, mixer.heads + mixer.inner + 2 * shared))
    state, lower = graph.input((groups, each, size, head_dim)), graph.input((1, 1, most, most))
    logs, added, b, c = graph.split(rows, [mixer.heads, mixer.inner, shared, shared])

    def by_head(value: Value, size: int) -> Value:
        """[..., tokens, heads * size] as [groups, heads of each, tokens, size]."""
        split = graph.reshape(value, (0, groups, each, size), (most, groups, each, size))
        return graph.transpose(split, (1, 2, 0, 3))

    def by_group(value: Value, order: tuple[int, ...]) -> Value:
        return graph.transpose(graph.reshape(value, (1, 0, groups, size), (1, most, groups, size)), order)

    def across(value: Value) -> Value:
        """[groups, heads of each, tokens, 1] as [groups, heads of each, 1, tokens]."""
        return graph.reshape(value, (groups, each, 1, 0), (groups, each, 1, most))

    flat = graph.reshape(logs, (1, 1, 0, mixer.heads), (1, 1, most, mixer.heads))
    upper = graph.subtract(graph.scalar(1.0), lower)
    until, after = (by_head(graph.matmul(part, flat), 1) for part in (lower, upper))  # sums of logarithms
    between = graph.multiply(graph.subtract(until, across(until)), lower)
    decays = graph.multiply(graph.unary("XNNExp", between), lower)
    values, keys, queries = by_head(added, head_dim), by_group(b, (2, 0, 3, 1)), by_group(c, (2, 0, 1, 3))
    inside = graph.matmul(graph.multiply(decays, graph.matmul(queries, keys)), values)
    before = graph.matmul(graph.multiply(queries, graph.unary("XNNExp", until)), state)
    given = graph.transpose(graph.add(inside, before), (2, 0, 1, 3))
    out = graph.reshape(given, (1, 0, 1, mixer.inner), (1, most, 1, mixer.inner))

    whole = graph.add(graph.part(after, 2, 0, 1), graph.part(by_head(logs, 1), 2, 0, 1))
    written = graph.matmul(graph.multiply(keys, across(graph.unary("XNNExp", after))), values)
    return graph.add(graph.multiply(state, graph.unary("XNNExp", whole)), written), out


def _rwkv(blocks: Blocks, graph: Subgraph, name: str, mixer: Rwkv) -> tuple[Value, Value]:
    """One token; the row holds key and value.

    The state is [1, 1, 3, size]: both sums, by the exponential of minus the third, so that nothing overflows.
    """
    size = mixer.size
    key, value = graph.split(graph.input((1, 1, 1, 2 * size)), [size, size])
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
