"""Choice tasks through lm-evaluation-harness, on local files and without a network.

The harness's own definitions of ARC, HellaSwag and PIQA make the prompts and decide what is right, so that figures
compare with those that others publish for zero shots; only where questions come from is ours. Its way to say that is a
task file that includes another and reads local JSON (``docs/new_task_guide.md`` of lm-evaluation-harness 0.4).
"""

from __future__ import annotations

import io
import json
import logging
import math
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from ..compress.quality import rounded
from ..errors import EdgeError, MissingExtraError
from .report import Accuracy, ChoiceScore

if TYPE_CHECKING:
    from ..progress import Progress
    from .choices import ChoiceFile
    from .sides import Side

_DEFINITIONS = {"arc": "arc/arc_easy.yaml", "hellaswag": "hellaswag/hellaswag.yaml", "piqa": "piqa/piqa.yaml"}


def require() -> None:
    """Stop when the harness is not installed."""
    try:
        with _quiet():
            import lm_eval.evaluator
            import lm_eval.tasks  # noqa: F401
    except ModuleNotFoundError as failure:
        raise MissingExtraError((failure.name or "lm_eval").partition(".")[0], "lm-eval") from None


def score_choices(
    a: Side, b: Side, files: Sequence[ChoiceFile], scratch: Path, progress: Progress
) -> tuple[ChoiceScore, ...]:
    """Ask both sides the questions of every file.

    Args:
        a: the reference.
        b: what is judged.
        files: questions.
        scratch: an existing folder for the harness's copies of them.
        progress: told of every choice.

    Raises:
        EdgeError: a side has no tokenizer, or the harness refuses a file.
    """
    for side in (a, b):
        if side.tokenizer is None:
            raise EdgeError(f"{side.about.name} has no tokenizer, so it cannot be asked")
    folder = scratch / "tasks"
    folder.mkdir()
    names = [f"{number}_{file.form}" for number, file in enumerate(files)]
    with _quiet():
        tasks = _tasks(names, files, folder)
    (left, cut_left), (right, cut_right) = (_ask(side, tasks, progress) for side in (a, b))
    return tuple(
        _paired(file, left[name], right[name], cut_left[name] + cut_right[name])
        for name, file in zip(names, files, strict=True)
    )


def _tasks(names: Sequence[str], files: Sequence[ChoiceFile], folder: Path) -> dict[str, Any]:
    """The harness's tasks over local questions, by name."""
    import lm_eval.tasks

    home, paths = Path(lm_eval.tasks.__file__).parent, []
    for name, file in zip(names, files, strict=True):
        data, definition = folder / f"{name}.jsonl", folder / f"{name}.yaml"
        data.write_text("".join(json.dumps(question) + "\n" for question in file.questions), encoding="utf-8")
        options: dict[str, Any] = {
            "include": str(home / _DEFINITIONS[file.form]),
            "task": name,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
            "training_split": None,
            "validation_split": None,
            "test_split": "test",
            "num_fewshot": 0,
        }
        if file.form == "hellaswag" and not any(question["activity_label"] for question in file.questions):
            options["doc_to_text"] = "{{query[2:]}}"  # the harness puts "activity: " in front, here ": "
        definition.write_text(json.dumps(options), encoding="utf-8")  # JSON is YAML
        paths.append(str(definition))
    try:
        tasks: dict[str, Any] = lm_eval.tasks.TaskManager(include_defaults=False).load(paths)["tasks"]
    except Exception as failure:  # the harness and datasets raise what they like
        raise EdgeError(f"lm-evaluation-harness refuses the questions: {_first_line(failure)}") from None
    return tasks


def _ask(
    side: Side, tasks: dict[str, Any], progress: Progress
) -> tuple[dict[str, list[tuple[float, float]]], Counter[str]]:
    """For every task, ``acc`` and ``acc_norm`` of every question; and how many choices of each had to be cut."""
    from lm_eval.evaluator import evaluate

    from .harness_model import HarnessModel

    model = HarnessModel(side, progress, sys.stderr)
    with _quiet():
        found = evaluate(model, {"tasks": tasks, "groups": {}, "group_map": {}}, bootstrap_iters=0)
    samples = {
        name: [(sample["acc"], sample["acc_norm"]) for sample in sorted(rows, key=lambda sample: sample["doc_id"])]
        for name, rows in found["samples"].items()
    }
    return samples, model.cut


def _paired(file: ChoiceFile, a: list[tuple[float, float]], b: list[tuple[float, float]], cut: int) -> ChoiceScore:
    apart = [(after[0] - before[0], after[1] - before[1]) for before, after in zip(a, b, strict=True)]
    only_a, only_b = (sum(difference[0] == sign for difference in apart) for sign in (-1, 1))
    return ChoiceScore(file.name, file.form, len(a), cut, _accuracy(a), _accuracy(b), _accuracy(apart), only_a, only_b)


def _accuracy(rows: list[tuple[float, float]]) -> Accuracy:
    acc, norm = zip(*rows, strict=True)
    return Accuracy(rounded(fmean(acc)), _standard_error(acc), rounded(fmean(norm)), _standard_error(norm))


def _standard_error(values: Sequence[float]) -> float | None:
    """Of the mean: the sample's standard deviation over the root of its size, as the harness has it."""
    return rounded(stdev(values) / math.sqrt(len(values))) if len(values) > 1 else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness's own bars, notes and warnings off the terminal."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "lm-eval", "datasets")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first_line(failure: Exception) -> str:
    return (str(failure).splitlines() or [type(failure).__name__])[0]
