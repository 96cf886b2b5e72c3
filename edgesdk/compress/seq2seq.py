"""What rounding cost an encoder-decoder: its predictions along its own greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import QualityError
from ..model.encoders.model import batch_ids
from ..model.seq2seq.reference import Seq2SeqReference
from ..progress import track
from .quality import Differences
from .quality import rounded as figures

if TYPE_CHECKING:
    from ..model.seq2seq.model import Seq2SeqModel
    from ..progress import Progress
    from ..session import Seq2SeqSession

LENGTHS, ANSWER = (1, 31, 128), 32
_LEAST_AGREEMENT = 0.5


@dataclass(frozen=True)
class AnswerParity:
    """Program against reference over the same weights: a text of random tokens and the program's greedy answer.

    Attributes:
        tokens: of the text, image tokens included.
        max_difference: largest difference between logits.
        top1: share of the answer's tokens that both like best.
    """

    tokens: int
    max_difference: float
    top1: float


@dataclass(frozen=True)
class AnswerDifference:
    """Program against the unrounded model, along the program's greedy answers.

    Attributes:
        kl: mean Kullback-Leibler divergence, nats a token, unrounded to program.
        top1: share of tokens that both like best.
        tokens: how many were compared.
        texts: answers to how many texts.
        text: where those came from.
    """

    kl: float
    top1: float
    tokens: int
    texts: int
    text: str


def greedy(session: Seq2SeqSession, ids: Sequence[int], count: int) -> tuple[list[int], np.ndarray]:
    """The first tokens of an answer, the start token included, and the logits after each, [count, vocab]."""
    session.encode(ids)
    tokens: list[int] = [session.start]
    rows: list[np.ndarray] = []
    while len(rows) < min(count, session.context):
        rows.append(session.decode(tokens[-1:]))
        if not np.isfinite(rows[-1]).all():
            raise QualityError("the program's logits are NaN or infinite: the checkpoint's weights are out of range")
        tokens.append(int(rows[-1][0].argmax()))
    return tokens[:-1], np.concatenate(rows)


def parity(model: Seq2SeqModel, session: Seq2SeqSession, progress: Progress) -> tuple[AnswerParity, ...]:
    """The program against the reference over the same weights."""
    reference, found = Seq2SeqReference(model, session.context), []
    random = np.random.default_rng(0)
    lengths = sorted({min(length, session.context) for length in LENGTHS})
    for length in track(progress, "Comparing with the reference", lengths):
        ids = random.integers(0, model.spec.vocab, length).tolist()
        tokens, rows = greedy(session, ids, ANSWER)
        reference.encode(ids)
        wanted = reference.decode(tokens)
        agree = float((wanted.argmax(-1) == rows.argmax(-1)).mean())
        found.append(AnswerParity(length, figures(float(np.abs(wanted - rows).max())), figures(agree)))
    return tuple(found)


def difference(
    original: Seq2SeqModel, session: Seq2SeqSession, texts: Sequence[str], where: str, progress: Progress
) -> AnswerDifference:
    """The program against the unrounded model (on random tokens where the model has no tokenizer)."""
    if original.tokenizer is None:
        random, where = np.random.default_rng(1), "random"
        given = [random.integers(0, original.spec.vocab, 24).tolist() for _ in range(8)]
    else:
        given = batch_ids(original.tokenizer, texts, session.context)
    reference, found = Seq2SeqReference(original, session.context), Differences()
    for ids in track(progress, "Comparing with the unrounded model", given):
        tokens, rows = greedy(session, ids, ANSWER)
        reference.encode(ids)
        found.add(torch.from_numpy(reference.decode(tokens)), torch.from_numpy(rows))
    summary = found.summary(where)
    return AnswerDifference(summary.kl, summary.top1, summary.tokens, len(given), where)


def refuse_wrong(rows: Sequence[AnswerParity]) -> None:
    """Stop where a program does not compute what the model says.

    Raises:
        QualityError: on which text.
    """
    for row in rows:
        if row.top1 < _LEAST_AGREEMENT:
            raise QualityError(
                f"the program does not compute what the model says: to {row.tokens} tokens it agrees with the "
                f"reference on {row.top1:.0%} of its answer (logits differ by up to {row.max_difference:g})",
                hint="try float activations (add -a32 to the recipe's name); if that does not help, report it",
            )
