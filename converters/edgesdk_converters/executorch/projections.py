"""What attention takes and gives as nodes of the subgraphs around it: queries, keys and values, and its output matrix.

A mixer of another kind has its own two functions beside these; see :class:`~.decoder.DecoderProgram`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edgesdk.model.weights import stack_rows, stackable

from .positions import Rotation, way_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesdk.model.spec import Attention
    from edgesdk.model.weights import Stored

    from .blocks import Blocks
    from .positions import Tables
    from .subgraph import Subgraph, Value


def projections(
    blocks: Blocks, graph: Subgraph, x: Value, name: str, attention: Attention, tables: Tables
) -> list[Value]:
    """Queries, keys and values [1, tokens, heads, head_dim] of the normed stream, normed and placed.

    Behind them a gate for what attention gives, [1, tokens, heads * head_dim], where there is one.
    """
    parts = _placed(blocks, graph, x, name, attention, tables)
    return [*parts, graph.unary("XNNSigmoid", blocks.linear(graph, x, f"{name}.q_gate"))] if attention.gated else parts


def _placed(blocks: Blocks, graph: Subgraph, x: Value, name: str, attention: Attention, tables: Tables) -> list[Value]:
    """Queries, keys and values alone."""
    weights = [blocks.stored(f"{name}.{part}.weight") for part in "qkv"]
    way = way_of(attention)
    if stackable(weights) and not attention.qk_norm and attention.low_rank is None:
        return _stacked(blocks, graph, x, name, attention, stack_rows(weights), tables)
    parts = []
    for part, weight in zip("qkv", weights, strict=True):
        flat = blocks.product(graph, x, f"{name}.{part}", weight, blocks.optional(f"{name}.{part}.bias"))
        if attention.low_rank is not None:
            flat = blocks.raised(graph, flat, blocks.linear(graph, x, f"{name}.{part}_low"), f"{name}.{part}")
        normed = part != "v" and attention.qk_norm
        if normed == "all":
            flat = blocks.rms_norm(graph, flat, f"{name}.{part}_norm")
        flat = _clamped(graph, flat, attention)
        split = _heads(graph, flat, attention.head_dim)
        if normed == "head":
            split = blocks.rms_norm(graph, split, f"{name}.{part}_norm")
        elif normed == "layer":
            split = blocks.head_norms(graph, split, name, part)
        parts.append(split)
    return parts if way is None else way.placed(graph, parts, tables)


def _stacked(
    blocks: Blocks, graph: Subgraph, x: Value, name: str, attention: Attention, weight: Stored, tables: Tables
) -> list[Value]:
    """The same by one product and one rotation."""
    biases = [bias for part in "qkv" if (bias := blocks.optional(f"{name}.{part}.bias")) is not None]
    flat = blocks.product(graph, x, f"{name}.qkv", weight, torch.cat(biases) if biases else None)
    flat = _clamped(graph, flat, attention)
    q, k, way = attention.heads, attention.kv_heads, way_of(attention)
    split = _heads(graph, flat, attention.head_dim)
    turned = way.rotated(graph, graph.part(split, 2, 0, q + k), tables) if isinstance(way, Rotation) else split
    parts = [graph.part(turned, 2, 0, q), graph.part(turned, 2, q, k), graph.part(split, 2, q + k, k)]
    return parts if way is None or isinstance(way, Rotation) else way.placed(graph, parts, tables)


def attended(blocks: Blocks, graph: Subgraph, given: Sequence[Value], name: str, attention: Attention) -> Value:
    """What attention adds to the stream: its output matrix over what it gave, [1, tokens, heads, head_dim].

    Behind that ``given`` has the gate of :func:`projections`, where there is one.
    """
    (mixed, *gates), size = given, attention.q_size
    if mixed.shape[3] > attention.head_dim:  # ALiBi's columns
        mixed = graph.part(mixed, 3, 0, attention.head_dim)
    flat = graph.reshape(mixed, (1, 0, size), (1, mixed.shape[1], size))
    for gate in gates:
        flat = graph.multiply(flat, gate)
    if attention.sub_norm:
        flat = blocks.norm(graph, flat, f"{name}.o_norm")
    return blocks.linear(graph, flat, f"{name}.o")


def _clamped(graph: Subgraph, x: Value, attention: Attention) -> Value:
    return x if attention.clip is None else graph.unary("XNNClamp", x, (-attention.clip, attention.clip))


def _heads(graph: Subgraph, flat: Value, head_dim: int) -> Value:
    """[1, tokens, heads * head_dim] as [1, tokens, heads, head_dim]."""
    heads = flat.shape[2] // head_dim
    return graph.reshape(flat, (1, 0, heads, head_dim), (1, flat.shape[1], heads, head_dim))
