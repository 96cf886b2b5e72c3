"""How positions reach attention: what a step gives its layers beside the hidden states, and what they do with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.model.rope import rotary_tables
from edgesdk.model.spec import Attention, Rope

if TYPE_CHECKING:
    import torch

    from edgesdk.model import DecoderSpec

    from .subgraph import Subgraph, Value

    Tables = tuple[Value, ...]


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

    @staticmethod
    def rotated(graph: Subgraph, x: Value, tables: Tables) -> Value:
        """Rotary embedding of [1, tokens, heads, head_dim] in the half-split layout."""
        half = x.shape[3] // 2
        turned = graph.concatenate(graph.part(x, 3, half, half), graph.part(x, 3, 0, half), 3)
        return graph.add(graph.multiply(x, tables[0]), graph.multiply(turned, tables[1]))


Way = Rotation


def way_of(attention: Attention) -> Way | None:
    """How positions reach a layer; None: not through its attention."""
    return None if attention.rope is None else Rotation(attention.rope, attention.head_dim)


def ways(spec: DecoderSpec) -> list[Way]:
    """Every way of a model, each once, in order of use."""
    found = (way_of(layer.mixer) for layer in spec.layers if isinstance(layer.mixer, Attention))
    return list(dict.fromkeys(way for way in found if way is not None))
