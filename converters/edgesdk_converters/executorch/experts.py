"""Mixtures of experts: one subgraph an expert, which runs for the tokens that go to it, and not at all without any.

The kernel ``llama::quantized_moe_ffn`` is not used: it packs weights of its own grid in a layout of its own, and knows
one way of routing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .routing import expert_weights
from .subgraph import Subgraph, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesdk.model.spec import Moe

    from .attention import Step
    from .blocks import Blocks
    from .program import ProgramFile, Slot


def before_experts(blocks: Blocks, graph: Subgraph, x: Value, name: str, moe: Moe) -> list[Value]:
    """What :func:`run_experts` takes: tokens [1, tokens, 1, hidden], float32 logits [tokens, experts], a shared expert.

    ``x`` is the normed stream [1, tokens, hidden]; the shared expert's result is like the tokens, where there is one.
    """
    logits = blocks.wide_linear(graph, x, f"{name}.router")
    logits = graph.reshape(logits, (0, moe.experts), (x.shape[1], moe.experts))
    found = [apart(graph, x), logits]
    if moe.shared is not None:
        shared = blocks.mlp(graph, x, f"{name}.shared", moe.shared)
        if moe.shared_gate:
            part = graph.unary("XNNSigmoid", blocks.wide_linear(graph, x, f"{name}.shared_router"))
            shared = graph.multiply(graph.cast(part, shared.dtype), shared)
        found.append(apart(graph, shared))
    return found


def expert_delegates(blocks: Blocks, file: ProgramFile, name: str, moe: Moe, chunk: int) -> list[int]:
    """The delegate of each expert; it adds what the expert gives to what others gave.

    Arguments: its tokens [1, n, 1, hidden], what it counts for each [n], and what others gave, like the tokens.
    """
    hidden, found = blocks.model.spec.hidden, []
    for expert in range(moe.experts):
        graph = Subgraph(file.data, blocks.float_type)
        tokens, weights = graph.input((1, chunk, 1, hidden)), graph.input((chunk,))
        others = graph.input((1, chunk, 1, hidden))
        fed = blocks.mlp(graph, tokens, f"{name}.experts.{expert}", moe.expert)
        weights = graph.reshape(weights, (1, 0, 1, 1), (1, chunk, 1, 1))
        graph.output(graph.add(others, graph.multiply(fed, weights)))
        found.append(file.delegate(graph.document()))
    return found


def run_experts(
    step: Step, moe: Moe, delegates: Sequence[int], tokens: Slot, logits: Slot, shared: Slot | None
) -> Slot:
    """The weighted sum of what the chosen experts and the shared one give, like the tokens."""
    method, count = step.method, tokens.shape[1]
    total = shared
    if total is None:
        total = step.tensor(tokens.shape)
        method.call("aten::full_like.out", [tokens, 0.0, None], total)
    counts = step.tensor((moe.experts, count), torch.float32)
    method.call("aten::transpose_copy.int_out", [expert_weights(step, logits, moe), 0, 1], counts)
    chosen = step.tensor((moe.experts, count), torch.bool)
    method.call("aten::ne.Scalar_out", [counts, 0.0], chosen)
    present = step.tensor((moe.experts,), torch.bool, dynamic=False)
    method.call("aten::any.out", [chosen, 1, False], present)
    if step.type != torch.float32:
        narrow = step.tensor(counts.shape)
        method.call("aten::_to_copy.out", [counts, False, None], narrow)
        counts = narrow

    mine, found = step.tensor((count,), torch.bool), step.tensor((count, 1), torch.int64)
    rows, places = step.tensor((count,), torch.int64), step.tensor((1, count), torch.int64)
    every, weights = step.tensor((count,)), step.tensor((count,))
    routed, before, after = (step.tensor(tokens.shape) for _ in range(3))
    unused = step.tensor((1,), dynamic=False)
    for expert, delegate in enumerate(delegates):
        with method.only_if(method.part(present, expert)):
            method.call("aten::select_copy.int_out", [chosen, 0, expert], mine)
            method.call("aten::nonzero.out", [mine], found)
            method.call("aten::select_copy.int_out", [found, 1, 0], rows)
            method.call("aten::unsqueeze_copy.out", [rows, 0], places)
            method.call("aten::select_copy.int_out", [counts, 0, expert], every)
            method.call("aten::index_select.out", [every, 0, rows], weights)
            method.call("aten::index_select.out", [tokens, 1, rows], routed)
            method.call("aten::index_select.out", [total, 1, rows], before)
            method.delegate(delegate, [routed, weights, before, after])
            method.call("llama::update_cache_with_indices.out", [after, total, 0, places], unused)
    return total


def apart(graph: Subgraph, x: Value) -> Value:
    """[1, tokens, hidden] as [1, tokens, 1, hidden], as the kernel that writes rows takes it."""
    tokens, hidden = x.shape[1:]
    return graph.reshape(x, (1, 0, 1, hidden), (1, tokens, 1, hidden))
