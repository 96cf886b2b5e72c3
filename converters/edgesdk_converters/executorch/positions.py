"""How positions reach attention: what a step gives its layers beside the hidden states, and what they do with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edgesdk.model.rope import rotary_tables
from edgesdk.model.spec import Attention, Rope

from .sizes import ALIBI_COLUMNS

if TYPE_CHECKING:
    from edgesdk.model import DecoderSpec

    from .subgraph import Subgraph, Value

    Tables = tuple[Value, ...]

_STRIDE = 64


@dataclass(frozen=True)
class Rotation:
    """Rotary positions; a step's tables are ``[cos, cos]`` and ``[-sin, sin]``, [tokens, 1, head_dim] each."""

    rope: Rope
    head_dim: int

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Shapes of the step's tables, without tokens."""
        return [(1, self.head_dim)] * 2

    def rows(self, context: int) -> dict[str, torch.Tensor]:
        """What the program stores for every position, [context, 1, head_dim / 2] each."""
        cos, sin = rotary_tables(self.rope, self.head_dim, context)
        return {"cos": cos.unsqueeze(1), "sin": sin.unsqueeze(1)}

    def tables(self, graph: Subgraph, cos: Value, sin: Value) -> Tables:
        """The step's tables from rows of the stored ones."""
        return graph.concatenate(cos, cos, 2), graph.concatenate(graph.unary("XNNNegate", sin), sin, 2)

    def placed(self, graph: Subgraph, parts: Sequence[Value], tables: Tables) -> list[Value]:
        """Queries, keys and values [1, tokens, heads, head_dim] as the kernel takes them."""
        q, k, v = parts
        return [self.rotated(graph, q, tables), self.rotated(graph, k, tables), v]

    @staticmethod
    def rotated(graph: Subgraph, x: Value, tables: Tables) -> Value:
        """Rotary embedding of [1, tokens, heads, head_dim] in the half-split layout."""
        half = x.shape[3] // 2
        turned = graph.concatenate(graph.part(x, 3, half, half), graph.part(x, 3, 0, half), 3)
        return graph.add(graph.multiply(x, tables[0]), graph.multiply(turned, tables[1]))


@dataclass(frozen=True)
class Biases:
    """ALiBi by two more columns of queries and keys, whose product is the head's slope by the key's position.

    The kernel's masks have no heads, and this lets it stop at the last token. Softmax does not see the query's part of
    the bias, which is left out. A position is a multiple of 64 and a rest, as half floats hold it; values get zeros.

    Attributes:
        slopes: of each query head, before the kernel's scale.
        kv_heads: heads of keys.
    """

    slopes: tuple[float, ...]
    kv_heads: int

    @property
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """Shapes of the step's tables, the columns of queries and keys, without tokens."""
        return [(len(self.slopes), ALIBI_COLUMNS), (self.kv_heads, ALIBI_COLUMNS)]

    def rows(self, context: int) -> dict[str, torch.Tensor]:
        """What the program stores for every position, and a one: [context, 1, 3]."""
        positions = torch.arange(context)
        columns = (positions // _STRIDE, positions % _STRIDE, torch.ones_like(positions))
        return {"places": torch.stack(columns, dim=1).float().unsqueeze(1)}

    def tables(self, graph: Subgraph, places: Value) -> Tables:
        """The step's tables from rows of the stored ones."""
        slopes = torch.tensor(self.slopes).unsqueeze(1) * torch.tensor([_STRIDE, 1.0])
        queries = graph.constant(f"alibi.{len(self.slopes)}.{self.slopes[0]!r}", slopes)
        keys = graph.constant(f"alibi.ones.{self.kv_heads}", torch.ones((self.kv_heads, 1)))
        one, position = graph.part(places, 2, 2, 1), graph.part(places, 2, 0, ALIBI_COLUMNS)
        return graph.multiply(one, queries), graph.multiply(position, keys)

    def placed(self, graph: Subgraph, parts: Sequence[Value], tables: Tables) -> list[Value]:
        """Queries, keys and values [1, tokens, heads, head_dim] as the kernel takes them, two columns wider."""
        q, k, v = parts
        columns = [graph.reshape(each, (1, 0, *each.shape[1:]), (1, *each.shape)) for each in tables]
        zeros = [(0, 0)] * 3 + [(0, ALIBI_COLUMNS)]
        return [graph.concatenate(q, columns[0], 3), graph.concatenate(k, columns[1], 3), graph.pad(v, zeros)]


Way = Rotation | Biases


def way_of(attention: Attention) -> Way | None:
    """How positions reach a layer; None: not through its attention."""
    if attention.alibi is not None:
        return Biases(tuple(slope / attention.scale for slope in attention.slopes), attention.kv_heads)
    return None if attention.rope is None else Rotation(attention.rope, attention.head_dim)


def ways(spec: DecoderSpec) -> list[Way]:
    """Every way of a model, each once, in order of use."""
    found = (way_of(layer.mixer) for layer in spec.layers if isinstance(layer.mixer, Attention))
    return list(dict.fromkeys(way for way in found if way is not None))
