"""What rounding cost a vision-language model: its predictions along greedy answers to random images and tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import QualityError
from ..model.vision.reference import VisionReference
from ..progress import track
from .quality import Differences
from .quality import rounded as figures
from .seq2seq import AnswerDifference, AnswerParity, refuse_wrong

if TYPE_CHECKING:
    from ..model.vision.model import VisionModel
    from ..progress import Progress
    from ..session import VisionSession

WORDS, ANSWER, PROMPTS = 12, 16, 3


def parity(model: VisionModel, session: VisionSession, progress: Progress) -> tuple[AnswerParity, ...]:
    """The program against the reference over the same weights."""
    found = []
    for ids, rows, wanted in _compared(model, session, "Comparing with the reference", progress):
        agree = float((wanted.argmax(-1) == rows.argmax(-1)).mean())
        found.append(AnswerParity(len(ids), figures(float(np.abs(wanted - rows).max())), figures(agree)))
    return tuple(found)


def difference(original: VisionModel, session: VisionSession, progress: Progress) -> AnswerDifference:
    """The program against the unrounded model."""
    found = Differences()
    for _, rows, wanted in _compared(original, session, "Comparing with the unrounded model", progress):
        found.add(torch.from_numpy(wanted), torch.from_numpy(rows))
    summary = found.summary("random images")
    return AnswerDifference(summary.kl, summary.top1, summary.tokens, PROMPTS, summary.text)


def _compared(
    model: VisionModel, session: VisionSession, what: str, progress: Progress
) -> list[tuple[list[int], np.ndarray, np.ndarray]]:
    """Prompts around one random image, and along the program's greedy answers its logits and the reference's."""
    spec, random = model.spec, np.random.default_rng(0)
    if spec.image.rows + 2 + ANSWER > session.context:
        raise QualityError(
            f"an image takes {spec.image.rows} tokens, and the context of {session.context} has no room for an answer",
            hint="export with a larger --context",
        )
    reference, found = VisionReference(model, session.context), []
    room = session.context - spec.image.rows - ANSWER
    for _ in track(progress, what, range(PROMPTS)):
        words = random.integers(0, spec.vocab, min(WORDS, room)).tolist()
        words = [0 if word == spec.image_token else word for word in words]
        ids = [*words[: len(words) // 2], *[spec.image_token] * spec.image.rows, *words[len(words) // 2 :]]
        pixels = random.standard_normal((spec.image.channels, spec.image.size, spec.image.size)).astype(np.float32)
        for each in (session, reference):
            each.reset()
            each.show(pixels)
        rows = [session.prefill(ids)]
        tokens: list[int] = []
        while len(rows) < ANSWER:
            best = int(np.where(np.arange(spec.vocab) == spec.image_token, -np.inf, rows[-1]).argmax())
            tokens.append(best)
            rows.append(session.decode(best))
        if not np.isfinite(rows).all():
            raise QualityError("the program's logits are NaN or infinite: the checkpoint's weights are out of range")
        wanted = reference.score([*ids, *tokens])[len(ids) - 1 :]
        found.append((ids, np.stack(rows), wanted))
    return found


__all__ = ["difference", "parity", "refuse_wrong"]
