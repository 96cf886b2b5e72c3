"""The comparison, step by step; each side is in memory only while it runs."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..compress.quality import Perplexity
from ..digests import file_digest
from ..errors import EdgeError
from ..partials import scratch_folder
from ..passages.cutting import read_text, windows
from ..passages.loops import loop_notes
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
    from ..passages.own import OwnText
    from ..passages.passage import Passage


@dataclass(frozen=True)
class _EvalText:
    """An evaluation text in windows (or documents)."""

    path: Path
    windows: list[Passage]


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

    Predictions are compared on text that A writes itself (16 answers of at most 32 tokens, or 16 texts of 40 behind
    the prefix, as in an export: :mod:`edgesdk.passages.own`) and on ``eval_text``, each window behind the tokenizer's
    prefix. Meanwhile logits of B lie in the folder for temporary files: 4 bytes a logit, so 130 MB for 640 tokens of a
    vocabulary of 50,000.

    Args:
        a: the reference: what :func:`edgesdk.open_model` takes, a bundle folder or zip, or one that is open.
        b: what is judged, likewise. A bundle runs in its own runtime, a model in the float32 reference.
        eval_text: a UTF-8 text for perplexity.
        eval_windows: how many windows of it (or documents, in a text with ``<|endoftext|>``).
        window: their tokens, without the prefix; default 512, or what the smaller context has room for.
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
            for note in loop_notes(where.name, evaluated.windows):
                progress.note(note)
        own, own_reason = _own(left, min(left.context, right.context), progress)
        groups = [(own.name, own.passages)] if own else []
        groups += [("eval", evaluated.windows)] if evaluated else []
        findings = _compare(left, right, groups, scratch, progress) if groups else {}
        layers_reason = own_reason or why_no_layers(left, right)
        asked = tuple(prompts) or PROMPTS[:samples]
        answers_reason = None if asked else "no prompts were asked for"
        answers_reason = answers_reason or (None if left.tokenizer else f"no tokenizer in {left.about.name}")
        tasks_reason = None if files else "no --tasks were given"
        report = QualityReport(
            left.about,
            right.about,
            check,
            check_reason,
            findings[own.name].quality if own else None,
            own_reason,
            findings["eval"].quality if evaluated else None,
            _perplexity(evaluated, findings["eval"]) if evaluated else None,
            None if evaluated else "no --eval-text was given",
            layer_errors(left, right, own.passages, progress) if own and layers_reason is None else None,
            layers_reason,
            answer_pairs(left, right, asked, progress) if answers_reason is None else None,
            answers_reason,
            _score(left, right, files, scratch, progress) if files else None,
            tasks_reason,
        )
        left.release()
        right.release()
    return report


def _own(a: Side, context: int, progress: Progress) -> tuple[OwnText | None, str | None]:
    """What A writes itself; or None and the reason."""
    own = write_text(a, context, progress)
    if own.loops is None:
        return own, None
    progress.note(f"not compared on its own text: {own.loops}")
    return None, own.loops


def _compare(
    a: Side, b: Side, groups: Sequence[tuple[str, list[Passage]]], scratch: Path, progress: Progress
) -> dict[str, TextFindings]:
    """The findings on groups of texts, by the groups' names."""
    texts = [text for _, group in groups for text in group]
    wanted = logits_in_memory(a, texts, scratch, progress)  # first: its weights may still be there from sampling
    judged = logits_on_disk(b, texts, scratch, progress)
    findings = compare_texts(wanted, judged, groups, progress)
    a.release()
    for file in scratch.iterdir():
        file.unlink()
    return dict(zip((name for name, _ in groups), findings, strict=True))


def _windows(a: Side, b: Side, text: str, where: Path, count: int, window: int | None) -> list[Passage]:
    return windows(a.tokenizer, text, str(where), count, context=min(a.context, b.context), length=window)


def _perplexity(evaluated: _EvalText, found: TextFindings) -> PerplexityByWindow:
    texts, losses = evaluated.windows, list(zip(*found.losses, strict=True))
    before, after = (perplexity(side, texts) for side in losses)
    single = (tuple(perplexity([loss], [text]) for loss, text in zip(side, texts, strict=True)) for side in losses)
    longest = max(len(text.text) for text in texts)
    summary = Perplexity(before, after, len(texts), longest, file_digest(evaluated.path))
    return PerplexityByWindow(summary, *single)


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
        with scratch_folder() as name:
            yield name
    except OSError as failure:
        if failure.errno != errno.ENOSPC:
            raise
        raise EdgeError(
            f"{tempfile.gettempdir()}: the disk is full", hint="free space there, or set TMPDIR to a folder elsewhere"
        ) from None
