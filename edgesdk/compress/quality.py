"""What compression cost, and whether the runtime computes what the model says.

Quality compares a program with the uncompressed model: Kullback-Leibler divergence and top-1 agreement on text that the
model samples itself (:mod:`edgesdk.passages.own`), perplexity on text that the user gives. Parity compares the program
with the reference model over the same compressed weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from ..passages.passage import Passage
from ..progress import track
from .recording import GREEDY, Recording, row_slices

if TYPE_CHECKING:
    from ..model.reference import ReferenceModel
    from ..passages.own import OwnText
    from ..progress import Progress


@dataclass(frozen=True)
class Divergence:
    """How far a program's predictions are from the uncompressed model's.

    Attributes:
        kl: mean Kullback-Leibler divergence, nats a token, uncompressed to compressed.
        kl_p99: its 99th percentile.
        top1: fraction of tokens where both like the same token best.
        top5: mean fraction of the uncompressed model's five likeliest tokens that are among the program's five.
        tokens: how many tokens were compared.
        text: where they came from: sampled from the uncompressed model, as answers to questions in its chat template
            (``self: answers``), behind the tokenizer's prefix or BOS (``self: prefix``), or behind a random token each
            (``self: first token``: a tokenizer with neither); or ``eval``, a text of the user's. Rows of the prefix and
            of questions are not compared.
    """

    kl: float
    kl_p99: float
    top1: float
    top5: float
    tokens: int
    text: str


class Differences:
    """Collects how far two models are apart, some tokens at a time."""

    def __init__(self) -> None:
        self._kl: list[torch.Tensor] = []
        self._top1, self._top5 = 0, 0.0

    def add(self, wanted: torch.Tensor, found: torch.Tensor) -> None:
        """Count tokens by their logits, uncompressed and compressed, float32 [tokens, vocab]."""
        p, q = F.log_softmax(wanted, dim=-1), F.log_softmax(found, dim=-1)
        self._kl.append((p.exp() * (p - q)).sum(-1).clamp(min=0))
        five = min(5, wanted.shape[-1])
        best, others = p.topk(five).indices, q.topk(five).indices
        self._top1 += int((p.argmax(-1) == q.argmax(-1)).sum())
        self._top5 += int((best.unsqueeze(-1) == others.unsqueeze(-2)).sum()) / five

    @property
    def kl(self) -> torch.Tensor:
        """Kullback-Leibler divergence of every token so far, nats, float32 [tokens]."""
        return torch.cat(self._kl)

    def summary(self, text: str) -> Divergence:
        """What all tokens so far say; ``text`` is where they came from."""
        kl = self.kl
        total, p99 = kl.numel(), np.quantile(kl.numpy(), 0.99)
        top1, top5 = self._top1 / total, self._top5 / total
        return Divergence(rounded(float(kl.mean())), rounded(float(p99)), rounded(top1), rounded(top5), total, text)


@dataclass(frozen=True)
class Perplexity:
    """Perplexity before and after, over consecutive windows of a text, each behind the tokenizer's prefix.

    The first token of a window is not scored, with a prefix or without; that of a document (in a text with
    ``<|endoftext|>``) is, where a prefix predicts it. See :func:`edgesdk.passages.cutting.windows`.

    Attributes:
        before: of the uncompressed model.
        after: of the program.
        windows: how many.
        window: tokens of the longest, the prefix not counted.
        sha256: of the text's file.
    """

    before: float
    after: float
    windows: int
    window: int
    sha256: str

    @property
    def increase(self) -> float:
        """Percent."""
        return 100 * (self.after / self.before - 1)


@dataclass(frozen=True)
class PromptParity:
    """Program against reference on one prompt and a greedy answer of 64 tokens.

    ``first_divergence`` is the index of the first answer token that the reference would have chosen otherwise, or None
    when all agree.
    """

    prompt: int
    max_logit_difference: float
    top1: float
    first_divergence: int | None


@torch.inference_mode()
def divergence(reference: ReferenceModel, own: OwnText, recording: Recording, progress: Progress) -> Divergence:
    """Compare what a program said about text of the uncompressed model's own, which ``reference`` wrote."""
    assert own.hidden is not None
    differences = Differences()
    for rows in track(progress, "Comparing with the uncompressed model", row_slices(len(own.hidden))):
        logits = recording.text_logits.read(rows.start, rows.stop - rows.start)
        differences.add(reference.logits(own.hidden[rows]), torch.from_numpy(logits))
    return differences.summary(own.name)


@torch.inference_mode()
def reference_loss(reference: ReferenceModel, windows: Sequence[Passage], progress: Progress) -> float:
    """Summed negative log likelihood of the scored tokens of windows in the reference, nats."""
    loss = 0.0
    with progress.stage("Perplexity of the reference", len(windows)) as stage:
        states = reference.hidden([torch.tensor([window.ids]) for window in windows])
        for window, (hidden,) in zip(windows, states, strict=True):
            counted = hidden[window.first :]
            for rows in row_slices(len(window.scored)):
                wanted = torch.tensor(window.scored[rows])
                loss += float(F.cross_entropy(reference.logits(counted[rows]), wanted, reduction="sum"))
            stage.advance()
    return loss


def perplexity_of(loss: float, windows: Sequence[Passage]) -> float:
    """Perplexity from the summed loss of the scored tokens of windows, nats."""
    return math.exp(loss / sum(len(window.scored) for window in windows))


@torch.inference_mode()
def parity(reference: ReferenceModel, recording: Recording, progress: Progress) -> tuple[PromptParity, ...]:
    """Compare a program's greedy answers with the reference over the same compressed weights.

    The reference sees the program's own tokens, so the first token on which they differ is where greedy decoding of the
    two would part.
    """
    found = []
    answers = recording.answers
    with progress.stage("Comparing with the reference", len(answers)) as stage:
        states = reference.hidden([torch.tensor([answer.ids]) for answer in answers])
        for answer, (hidden,) in zip(answers, states, strict=True):
            logits = recording.answer_logits.read(answer.first_row, GREEDY)
            wanted = reference.logits(hidden[answer.prompt - 1 :]).numpy()
            agree = wanted.argmax(-1) == logits.argmax(-1)
            found.append(
                PromptParity(
                    answer.prompt,
                    rounded(float(np.abs(wanted - logits).max())),
                    rounded(float(agree.mean())),
                    None if agree.all() else int(agree.argmin()),
                )
            )
            stage.advance()
    return tuple(found)


def rounded(value: float) -> float:
    """Four significant digits: what is meaningful, and what repeats from run to run."""
    return float(f"{value:.4g}")
