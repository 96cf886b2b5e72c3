"""The folder that a compression works in: kept when it is interrupted, gone on with, and never shared by two runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..documents import read_json
from ..errors import EdgeError
from ..files import replacing, writing_failed
from ..partials import holding
from ..progress import Progress

_PLAN = "plan.json"
_LEFT = "interrupted"  # an empty file: whoever was interrupted was told of --resume


@contextmanager
def work_folder(out: Path, plan: dict[str, Any], resume: bool, progress: Progress) -> Iterator[Path]:
    """A folder for what the passes write; it stays when they are interrupted after they wrote anything.

    What a killed run left, which could not say so, is gone on with by the same command, resumed or not.

    Raises:
        EdgeError: an interrupted run is there and was not to be resumed, or it had other arguments; or it runs still.
    """
    folder = out.with_name(f"{out.name}.partial")
    if folder.exists() and not _done(folder):
        _drop_unless_held(folder)
    if folder.exists():
        _check_resume(folder, plan, resume or not (folder / _LEFT).exists())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with holding(folder) as alone:
            if not alone:
                raise EdgeError(f"{out}: another run writes it at this moment", hint="wait, or name another output")
            (folder / _LEFT).unlink(missing_ok=True)
            with replacing(folder / _PLAN) as partial:
                partial.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
            try:
                yield folder
            except BaseException:
                _leave(folder, progress)
                raise
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as failure:
        raise writing_failed(out, failure) from None


def _done(folder: Path) -> bool:
    """Whether a run got anywhere."""
    done = (path for what in ("*.jsonl", "pass*/*.json", "pass*/*.pt") for path in folder.rglob(what))
    return any(path.stat().st_size for path in done)


def _drop_unless_held(folder: Path) -> None:
    with holding(folder) as alone:
        if alone:
            shutil.rmtree(folder, ignore_errors=True)


def _leave(folder: Path, progress: Progress) -> None:
    """Keep the work of a run that got anywhere, and say so."""
    if _done(folder):
        progress.note(f"the work so far is in {folder}: --resume goes on with it; delete it to start anew")
        with suppress(OSError):  # a full disk: the note was said
            (folder / _LEFT).touch()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _check_resume(folder: Path, plan: dict[str, Any], resume: bool) -> None:
    if not resume:
        raise EdgeError(
            f"{folder}: holds an interrupted run",
            hint="go on with it: add --resume; or delete the folder and start anew",
        )
    found = read_json(folder / _PLAN, hint="delete the folder and start anew")
    different = [key for key in plan if not isinstance(found, dict) or found.get(key) != plan[key]]
    if different:
        raise EdgeError(
            f"{folder}: the interrupted run had another {' and '.join(different)}",
            hint="give the arguments of that run, or delete the folder and start anew",
        )
