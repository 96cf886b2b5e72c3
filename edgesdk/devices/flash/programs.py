"""Running the programs of flash tools: found on the path, bounded in time, their last words in the error."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import FlashError

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_BARS = re.compile(r"^[\s#=\-.>|\[\]█▏▎▍▌▋▊▉0-9%()]*$")
_LAST_LINES = 3


@dataclass(frozen=True)
class Step:
    """One command line.

    Attributes:
        argv: the program and its arguments.
        read_back: the file that it reads the board's flash into, which must equal the firmware; then its exit status
            does not matter.
    """

    argv: tuple[str, ...]
    read_back: Path | None = None


def find_program(names: Sequence[str]) -> str | None:
    """The path of the first of these programs that is installed."""
    return next((found for name in names if (found := shutil.which(name)) is not None), None)


def run_steps(
    tool: str,
    steps: Sequence[Step],
    data: bytes,
    seconds: float,
    verdict: Callable[[str], str | None],
    hint: str,
) -> None:
    """Run command lines one after the other.

    Args:
        tool: its name, for messages.
        steps: the command lines.
        data: the firmware's bytes, which each read-back must equal.
        seconds: until a program that still runs is ended.
        verdict: what an output says that an exit status of 0 does not; None is fine.
        hint: what the user can do.

    Raises:
        FlashError: with the last lines that the tool printed.
    """
    for step in steps:
        status, output = _run(tool, step.argv, seconds)
        if step.read_back is not None:
            _compare(tool, step.read_back, data, output, hint)
            continue
        wrong = verdict(output) or (f"it ended with status {status}" if status else None)
        if wrong:
            raise FlashError(f"{tool} failed: {wrong}{_said(output)}", hint=hint)


def last_lines(output: str) -> list[str]:
    """The last lines of an output that say something: no progress bars, no colours."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", _COLOURS.sub("", output))]
    return [line for line in lines if line and not _BARS.match(line)][-_LAST_LINES:]


def _said(output: str) -> str:
    lines = last_lines(output)
    return f"; it said: {' / '.join(lines)}" if lines else ""


def _compare(tool: str, file: Path, data: bytes, output: str, hint: str) -> None:
    try:
        found = file.read_bytes()
    except OSError:
        raise FlashError(f"{tool} could not read the firmware back{_said(output)}", hint=hint) from None
    if found[: len(data)] == data:
        return
    at = next((i for i, (one, other) in enumerate(zip(found, data, strict=False)) if one != other), len(found))
    raise FlashError(
        f"the board does not hold the firmware: byte {at:,} of {len(data):,} differs after {tool} wrote it",
        hint="flash it again; if it stays, the flash is protected or worn out",
    )


def _run(tool: str, argv: tuple[str, ...], seconds: float) -> tuple[int, str]:
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as failure:
        raise FlashError(f"{tool} cannot be started: {failure.strerror}", hint=f"look at {argv[0]}") from None
    with process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException as failure:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            if not isinstance(failure, subprocess.TimeoutExpired):
                raise
            raise FlashError(
                f"{tool} did not end within {seconds:g} s{_said(output.decode('utf-8', 'replace'))}",
                hint="look at the cable and the probe; unplug the board and plug it in again",
            ) from None
    return process.returncode, output.decode("utf-8", "replace")
