"""A piece of text as a model reads it, and which of its predictions count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_BATCH_TOKENS = 2048  # that share one batch: bounds the activations


@dataclass(frozen=True)
class Passage:
    """Token ids that run from an empty cache, and the rows of logits that are looked at.

    Attributes:
        ids: all of them: what stands in front (the tokenizer's prefix, or a prompt in its template), then the text.
        front: how many of them stand in front of the text.
        first: the first row that counts: row i is the prediction after token i. Rows before it are run, and neither
            compared nor scored.
    """

    ids: list[int]
    front: int = 0
    first: int = 0

    @property
    def rows(self) -> int:
        """How many rows count; they follow on each other up to the last."""
        return len(self.ids) - self.first

    @property
    def scored(self) -> list[int]:
        """The tokens that are scored: what the rows that count were to predict, as far as the passage goes."""
        return self.ids[self.first + 1 :]

    @property
    def text(self) -> list[int]:
        """The text without what stands in front of it."""
        return self.ids[self.front :]


@dataclass(frozen=True)
class Batch:
    """Passages of one length that run together.

    Attributes:
        ids: int64 [passages, tokens].
        first: of each of them.
    """

    ids: torch.Tensor
    first: int


def batches(passages: Sequence[Passage]) -> list[Batch]:
    """Passages in their order; neighbours of the same form share a batch, as far as memory allows."""
    import torch

    groups: list[list[Passage]] = []
    for passage in passages:
        last = groups[-1] if groups else []
        alike = bool(last) and (len(last[0].ids), last[0].first) == (len(passage.ids), passage.first)
        if alike and (len(last) + 1) * len(passage.ids) <= _BATCH_TOKENS:
            last.append(passage)
        else:
            groups.append([passage])
    return [Batch(torch.tensor([passage.ids for passage in group]), group[0].first) for group in groups]


def counted_states(states: Sequence[torch.Tensor], runs: Sequence[Batch]) -> torch.Tensor:
    """The rows that count of batches' states [passages, tokens, channels], passage after passage: [rows, channels]."""
    import torch

    return torch.cat([x[:, run.first :].flatten(0, 1) for x, run in zip(states, runs, strict=True)])
