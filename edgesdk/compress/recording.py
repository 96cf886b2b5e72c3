"""What a program said: its logits on prompts and texts, kept on disk so that the program can be closed.

A program and a float reference of the same model do not fit into memory together; one runs after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import QualityError

if TYPE_CHECKING:
    from ..passages.passage import Passage
    from ..progress import Progress
    from ..session import Session

PROMPTS = (1, 31, 128, 600)
GREEDY = 64
ROWS = 128  # rows of logits in memory at a time


class LogitsFile:
    """Rows of logits, float32 [rows, vocab], appended and read in pieces."""

    def __init__(self, path: Path, vocab: int) -> None:
        self._path, self._vocab, self._rows = path, vocab, 0

    def append(self, logits: np.ndarray) -> None:
        """Add rows [n, vocab]."""
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(logits, dtype=np.float32).data)
        self._rows += len(logits)

    def read(self, start: int, count: int) -> np.ndarray:
        """Rows ``start`` to ``start + count - 1``."""
        with self._path.open("rb") as file:
            file.seek(4 * start * self._vocab)
            return np.fromfile(file, dtype=np.float32, count=count * self._vocab).reshape(count, self._vocab)


@dataclass(frozen=True)
class Answer:
    """A prompt with the program's greedy answer; ``first_row`` is where the logits that chose it begin."""

    prompt: int
    ids: list[int]
    first_row: int


@dataclass(frozen=True)
class Recording:
    """What a program said.

    Attributes:
        answers: greedy answers to prompts of growing length.
        answer_logits: ``GREEDY`` rows an answer.
        text_logits: the rows that count of the texts, text after text.
        window_loss: summed negative log likelihood over the evaluation windows, nats.
    """

    answers: tuple[Answer, ...]
    answer_logits: LogitsFile
    text_logits: LogitsFile
    window_loss: float


def record(
    session: Session,
    texts: Sequence[Passage],
    windows: Sequence[Passage],
    folder: Path,
    progress: Progress,
) -> Recording:
    """Run a program.

    Args:
        session: the program.
        texts: passages to give logits for; joined, they are also where prompts come from (the first 1, 31, 128 and 600
            tokens, as far as they and an answer fit the context), which so begin as texts of the model begin.
        windows: evaluation windows.
        folder: where logits are kept.
        progress: told of every prompt, text and window.
    """
    source = [token for text in texts for token in text.ids]
    prompts = [source[:size] for size in PROMPTS if size <= len(source) and size + GREEDY <= session.context]
    answer_logits = LogitsFile(folder / "answers.f32", session.vocab)
    text_logits = LogitsFile(folder / "texts.f32", session.vocab)
    answers, loss = [], 0.0
    with progress.stage("Running the program", len(prompts) + len(texts) + len(windows)) as stage:
        for number, prompt in enumerate(prompts):
            answers.append(Answer(len(prompt), _greedy(session, prompt, answer_logits), number * GREEDY))
            stage.advance()
        for text in texts:
            for rows in counted(session, text):
                text_logits.append(_finite(rows))
            stage.advance()
        for window in windows:
            loss += window_loss(session, window)
            stage.advance()
    return Recording(tuple(answers), answer_logits, text_logits, loss)


def window_loss(session: Session, window: Passage) -> float:
    """Summed negative log likelihood of the scored tokens of a window, nats."""
    loss, scored = 0.0, window.scored
    for logits in counted(session, replace(window, ids=window.ids[:-1])):
        wanted, scored = np.asarray(scored[: len(logits)]), scored[len(logits) :]
        peak = _finite(logits).max(axis=1, keepdims=True)
        normal = np.log(np.exp(logits - peak).sum(axis=1, dtype=np.float64)) + peak[:, 0]
        loss += float((normal - logits[np.arange(len(logits)), wanted]).sum())
    return loss


def row_slices(count: int) -> list[slice]:
    """Slices that cover ``count`` rows, few enough at a time to keep in memory."""
    return [slice(at, min(at + ROWS, count)) for at in range(0, count, ROWS)]


def _finite(logits: np.ndarray) -> np.ndarray:
    """The logits, checked to be finite."""
    if not np.isfinite(logits).all():
        raise QualityError(
            "the program's logits are NaN or infinite: its values overflow",
            hint="use --float float32; if it is used already, the checkpoint's weights are out of range",
        )
    return logits


def counted(session: Session, passage: Passage) -> Iterator[np.ndarray]:
    """The rows of logits that count of a passage, in pieces, float32 [rows, vocab]; it runs from an empty cache."""
    session.reset()
    for piece in row_slices(len(passage.ids)):
        rows = session.score(passage.ids[piece])[max(0, passage.first - piece.start) :]
        if len(rows):
            yield rows


def _greedy(session: Session, prompt: list[int], out: LogitsFile) -> list[int]:
    """The prompt with its greedy answer; the logits that chose each token of the answer go to ``out``."""
    session.reset()
    head = len(prompt) // 3  # two uneven chunks: what a second turn of a chat does
    if head:
        session.prefill(prompt[:head])
    logits = _finite(session.prefill(prompt[head:]))
    out.append(logits[None])
    ids = list(prompt)
    for _ in range(GREEDY - 1):
        ids.append(int(logits.argmax()))
        logits = _finite(session.decode(ids[-1]))
        out.append(logits[None])
    return ids
