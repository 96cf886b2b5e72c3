"""Predictions on texts: KL divergence, agreement of the best tokens, perplexity of windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..compress.quality import Differences, rounded
from ..compress.recording import row_slices
from ..passages.passage import Passage
from ..progress import Progress
from .report import TextQuality
from .sides import Passages, Rows


@dataclass(frozen=True)
class TextFindings:
    """What a group of texts said.

    Attributes:
        quality: divergence of every token.
        losses: summed negative log likelihood of the scored tokens of each text, nats, in A and in B.
    """

    quality: TextQuality
    losses: tuple[tuple[float, float], ...]


@torch.inference_mode()
def compare_texts(a: Rows, b: Rows, groups: Sequence[tuple[str, Passages]], progress: Progress) -> list[TextFindings]:
    """Compare two sides on groups of texts; row after row, the texts are those that ``a`` and ``b`` were made from.

    Args:
        a: logits of the reference.
        b: logits of what is judged.
        groups: what a group is called in the report, and its texts.
        progress: told of every text.
    """
    found, at = [], 0
    with progress.stage("Comparing predictions", sum(len(texts) for _, texts in groups)) as stage:
        for name, texts in groups:
            differences, losses = Differences(), []
            for text in texts:
                losses.append(_compare_text(a, b, text, at, differences))
                at += text.rows
                stage.advance()
            kl = tuple(rounded(value) for value in differences.kl.tolist())
            found.append(TextFindings(TextQuality(differences.summary(name), kl), tuple(losses)))
    return found


def perplexity(losses: Sequence[float], texts: Passages) -> float:
    """Perplexity of the scored tokens of texts, from their summed losses in nats."""
    mean = sum(losses) / sum(len(text.scored) for text in texts)
    return rounded(math.exp(mean)) if mean < 700 else math.inf


def _compare_text(a: Rows, b: Rows, text: Passage, at: int, differences: Differences) -> tuple[float, float]:
    """Add the tokens of one text, whose rows begin at ``at``; returns its losses in A and in B."""
    before = after = 0.0
    for piece in row_slices(text.rows):
        rows = slice(at + piece.start, at + piece.stop)
        wanted, found = a(rows), b(rows)
        differences.add(wanted, found)
        following = torch.tensor(text.scored[piece], dtype=torch.int64)
        count = len(following)
        before += float(F.cross_entropy(wanted[:count], following, reduction="sum"))
        after += float(F.cross_entropy(found[:count], following, reduction="sum"))
    return before, after
