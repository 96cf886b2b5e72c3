"""The comparison, step by step; each side is in memory only while it runs."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..compress.quality import LENGTH, SEED, SEQUENCES, WINDOW, Perplexity, read_text, windows_of
from ..errors import EdgeError, ModelError
from ..files import sha256
from ..progress import SILENT, Progress
from .answers import PROMPTS, answer_pairs
from .choices import ChoiceFile, read_choices
from .layers import layer_errors, why_no_layers
from .report import ChoiceScore, PerplexityByWindow, QualityReport
from .sides import Side, in_vocabulary, logits_in_memory, logits_on_disk, open_side, write_text
from .texts import TextFindings, compare_texts, perplexity
from .tokens import check_tokenizers

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..model import Model


@dataclass(frozen=True)
class _EvalText:
    """An evaluation text in windows (or documents) of token ids."""

    path: Path
    windows: list[list[int]]


def compare_quality(
    a: str | Path | Model | Bundle,
    b: str | Path | Model | Bundle,
    *,
    eval_text: str | Path | None = None,
    eval_windows: int = 6,
    window: int | None = None,
    samples: int = 3,
    prompts: Sequence[str] = (),
    tasks: Sequence[str | Path] = (),
    progress: Progress = SILENT,
) -> QualityReport:
    """Measure what B lost against A.

    Where B's vocabulary is a part of A's, A is looked at as it is over those tokens alone: its predictions for others
    are left out, and texts are the tokens that B reads.

    Predictions are compared on text that A samples itself (16 sequences of 40 tokens, as in an export; LLM-QAT,
    arXiv 2305.17888) and on ``eval_text``. Meanwhile logits of B lie in the folder for temporary files: 4 bytes a
    logit, so 130 MB for 640 tokens of a vocabulary of 50,000.

    Args:
        a: the reference: what :func:`edgesdk.open_model` takes, a bundle folder or zip, or one that is open.
        b: what is judged, likewise. A bundle runs in its own runtime, a model in the float32 reference.
        eval_text: a UTF-8 text for perplexity.
        eval_windows: how many windows of it (or documents, in a text with ``<|endoftext|>``).
        window: their tokens; default 512, or the smaller context.
        samples: how many of the built-in prompts to answer (0: none).
        prompts: prompts to answer instead.
        tasks: JSONL files of multiple-choice questions in the format of ARC, HellaSwag or PIQA; needs ``lm-eval``.
        progress: told of every stage.

    Raises:
        ModelError: the tokenizers do not agree, or an input cannot be used.
        QualityError: logits are NaN or infinite.
        EdgeError: anything else that is wrong; nothing is left behind.
    """
    if not 0 <= samples <= len(PROMPTS):
        raise EdgeError(f"samples = {samples}: there are {len(PROMPTS)} built-in prompts", hint="give your own prompts")
    if eval_windows < 1 or (window is not None and window < 2):
        raise EdgeError("the evaluation text needs at least one window, of two tokens or more")
    files = [read_choices(Path(path)) for path in tasks]
    if files:
        _require_harness()
    text = read_text(Path(eval_text)) if eval_text is not None else None
    with open_side(a, progress) as whole, open_side(b, progress) as right, _scratch() as scratch:
        left = in_vocabulary(whole, right)
        where = Path(eval_text) if eval_text is not None else None
        check, check_reason = check_tokenizers(left, right, text, where)
        evaluated = None
        if text is not None and where is not None:
            evaluated = _EvalText(where, _windows(left, right, text, where, eval_windows, window))
        length = min(LENGTH, left.context, right.context)
        own = write_text(left, SEQUENCES, length, SEED, progress)
        findings = _compare(left, right, own, evaluated, scratch, progress)
        layers_reason = why_no_layers(left, right)
        asked = tuple(prompts) or PROMPTS[:samples]
        answers_reason = None if asked else "no prompts were asked for"
        answers_reason = answers_reason or (None if left.tokenizer else f"no tokenizer in {left.about.name}")
        tasks_reason = None if files else "no --tasks were given"
        report = QualityReport(
            left.about,
            right.about,
            check,
            check_reason,
            findings[0].quality,
            findings[1].quality if evaluated else None,
            _perplexity(evaluated, findings[1]) if evaluated else None,
            None if evaluated else "no --eval-text was given",
            layer_errors(left, right, own, progress) if layers_reason is None else None,
            layers_reason,
            answer_pairs(left, right, asked, progress) if answers_reason is None else None,
            answers_reason,
            _score(left, right, files, scratch, progress) if files else None,
            tasks_reason,
        )
        left.release()
        right.release()
    return report


def _compare(
    a: Side, b: Side, own: list[list[int]], evaluated: _EvalText | None, scratch: Path, progress: Progress
) -> list[TextFindings]:
    """The findings on A's own text, then on the evaluation text."""
    groups = [("self", own)] + ([("eval", evaluated.windows)] if evaluated else [])
    texts = [ids for _, group in groups for ids in group]
    wanted = logits_in_memory(a, texts, scratch, progress)  # first: its weights may still be there from sampling
    judged = logits_on_disk(b, texts, scratch, progress)
    found = compare_texts(wanted, judged, groups, progress)
    a.release()
    for file in scratch.iterdir():
        file.unlink()
    return found


def _windows(a: Side, b: Side, text: str, where: Path, count: int, window: int | None) -> list[list[int]]:
    room = min(a.context, b.context)
    if window is not None and window > room:
        raise EdgeError(f"windows of {window} tokens exceed the context of {room}", hint="give a smaller --window")
    if a.tokenizer is None:
        raise ModelError(f"{a.about.name} has no tokenizer, so a text cannot be scored")
    return windows_of(a.tokenizer, text, str(where), count, window or min(WINDOW, room))


def _perplexity(evaluated: _EvalText, found: TextFindings) -> PerplexityByWindow:
    windows, losses = evaluated.windows, list(zip(*found.losses, strict=True))
    before, after = (perplexity(side, windows) for side in losses)
    each = (tuple(perplexity([loss], [ids]) for loss, ids in zip(side, windows, strict=True)) for side in losses)
    summary = Perplexity(before, after, len(windows), max(map(len, windows)), sha256(evaluated.path))
    return PerplexityByWindow(summary, *each)


def _require_harness() -> None:
    from .harness import require

    require()


def _score(a: Side, b: Side, files: Sequence[ChoiceFile], scratch: Path, progress: Progress) -> tuple[ChoiceScore, ...]:
    from .harness import score_choices

    return score_choices(a, b, files, scratch, progress)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for logits, gone afterwards."""
    try:
        with tempfile.TemporaryDirectory(prefix="edgesdk-") as name:
            yield Path(name)
    except OSError as failure:
        if failure.errno != errno.ENOSPC:
            raise
        raise EdgeError(
            f"{tempfile.gettempdir()}: the disk is full", hint="free space there, or set TMPDIR to a folder elsewhere"
        ) from None
