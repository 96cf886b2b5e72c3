"""What rounding cost an encoder: how far its embeddings or labels moved.

Quality compares a program with the unrounded model on sentences (a built-in list, or the user's lines); parity compares
it with the reference over the same rounded weights, on random tokens of growing length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import QualityError
from ..model.encoder_spec import Classification
from ..model.encoders.model import batch_ids
from ..model.encoders.reference import EncoderReference
from ..progress import track
from .quality import rounded as figures

if TYPE_CHECKING:
    from ..model.encoders.model import EncoderModel
    from ..progress import Progress
    from ..session import EncoderSession

LENGTHS = (1, 31, 128, 512)
_BATCH = 16
_LEAST_COSINE = 0.8  # int8 activations stay above 0.99, a wrong graph is near 0
SENTENCES = (
    "The weather is lovely today.",
    "It is so sunny outside that we had lunch in the garden.",
    "He drove to the stadium.",
    "How do I reset the password of my account?",
    "The battery was replaced under warranty last spring.",
    "Interest rates rose for the third month in a row.",
    "A recipe for bread needs flour, water, salt, yeast and patience.",
    "My order has not arrived, and nobody answers the phone.",
    "This film is a waste of time.",
    "One of the best meals that I have had in years.",
    "The patient was given two milligrams every six hours.",
    "Quantization maps real numbers to a small set of integers.",
    "The train to the coast leaves from platform nine at noon.",
    "Children under twelve travel free with an adult.",
    "She plays the cello in a quartet that meets on Thursdays.",
    "The court found that the contract was void.",
    "Turn the valve clockwise until the leak stops.",
    "Penguins keep their eggs warm on their feet.",
    "A parser turns a sequence of tokens into a tree.",
    "The meeting has been moved to next Tuesday; please confirm.",
)


@dataclass(frozen=True)
class TextParity:
    """Program against reference over the same weights, on one text of random tokens.

    Attributes:
        tokens: its length.
        max_difference: largest difference between the states of its tokens.
        cosine: similarity of the two answers (embeddings, or rows of logits).
    """

    tokens: int
    max_difference: float
    cosine: float


@dataclass(frozen=True)
class TextDifference:
    """Program against the unrounded model.

    Attributes:
        kind: ``embedding`` or ``classification``.
        cosine: mean similarity of the answers.
        cosine_least: the least of them.
        same_label: share of texts with the same best label, or None for embeddings.
        texts: how many.
        text: where they came from: ``built-in``, ``random`` or the file's name.
    """

    kind: str
    cosine: float
    cosine_least: float
    same_label: float | None
    texts: int
    text: str


def parity(model: EncoderModel, session: EncoderSession, progress: Progress) -> tuple[TextParity, ...]:
    """The program against the reference over the same weights."""
    reference, found = EncoderReference(model, session.context), []
    random = np.random.default_rng(0)
    lengths = sorted({min(length, session.context) for length in LENGTHS})
    for length in track(progress, "Comparing with the reference", lengths):
        ids = random.integers(0, model.spec.vocab, length).tolist()
        difference = float(np.abs(_finite(session.states(ids)) - reference.states(ids)).max())
        (alike,) = _cosines(session.encode([ids]), reference.encode([ids]))
        found.append(TextParity(length, figures(difference), figures(float(alike))))
    return tuple(found)


def difference(
    original: EncoderModel, session: EncoderSession, texts: Sequence[str], where: str, progress: Progress
) -> TextDifference:
    """The program against the unrounded model, on texts (random tokens where the model has no tokenizer)."""
    if original.tokenizer is None:
        random, where = np.random.default_rng(1), "random"
        ids = [random.integers(0, original.spec.vocab, 24).tolist() for _ in range(16)]
    else:
        ids = batch_ids(original.tokenizer, texts, session.context)
    reference, rows = EncoderReference(original, session.context), []
    for at in track(progress, "Comparing with the unrounded model", range(0, len(ids), _BATCH)):
        batch = ids[at : at + _BATCH]
        rows.append((_finite(session.encode(batch)), reference.encode(batch)))
    found, wanted = (np.concatenate(part) for part in zip(*rows, strict=True))
    alike = _cosines(found, wanted)
    labels = isinstance(original.spec.head, Classification)
    return TextDifference(
        original.spec.head.kind,
        figures(float(alike.mean())),
        figures(float(alike.min())),
        figures(float((found.argmax(-1) == wanted.argmax(-1)).mean())) if labels else None,
        len(ids),
        where,
    )


def _cosines(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Similarity of rows, [rows]; of rows of one number, whether they are within a hundredth of each other."""
    if found.shape[1] == 1:
        return np.asarray(1.0 - np.abs(found - wanted)[:, 0] / (1.0 + np.abs(wanted[:, 0])))
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return np.asarray((found * wanted).sum(1) / np.maximum(lengths, 1e-30))


def _finite(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise QualityError("the program's states are NaN or infinite: the checkpoint's weights are out of range")
    return values


def refuse_wrong(rows: Sequence[TextParity]) -> None:
    """Stop where a program does not compute what the model says.

    Raises:
        QualityError: on which text.
    """
    for row in rows:
        if row.cosine < _LEAST_COSINE:
            raise QualityError(
                f"the program does not compute what the model says: its answer to {row.tokens} tokens has a cosine "
                f"similarity of {row.cosine:g} to the reference's",
                hint="try float activations (add -a32 to the recipe's name); if that does not help, report it",
            )
