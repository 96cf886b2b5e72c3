"""What commands share: tables, JSON, and progress drawn with rich on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ..lines import shown, shown_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from ..generation import Statistics
    from ..progress import Stage

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text with its control characters shown: the one way to the terminal.

    Names, sentences and answers come from files and from models; an escape sequence in one of them would act on the
    terminal.
    """
    click.echo(shown(str(text)), err=err, nl=nl)


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    from ..schema import dump

    click.echo(_printable(json.dumps(dump(data), indent=2, ensure_ascii=False)))


def _printable(document: str) -> str:
    """JSON whose strings have escapes for what :func:`shown` would change."""
    if shown(document) == document:
        return document
    return "".join(each if each == "\n" or shown(each) == each else json.dumps(each)[1:-1] for each in document)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns, as wide as they need to be."""
    widths = [max(len(row[index]) for row in [headers, *rows]) for index in range(len(headers))]
    for row in [headers, *rows]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        echo(line.rstrip())


def typed_lines() -> Iterator[str]:
    """What the user types, line by line, until end of file."""
    while True:
        try:
            line: str = click.prompt(">", prompt_suffix=" ", err=True)
        except click.Abort:
            echo(err=True)
            return
        yield line


def told(found: Statistics) -> None:
    """What an answer took, in a line on standard error."""
    decoded = max(0, len(found.tokens) - 1)
    rate = f", {decoded / found.decode_seconds:.0f} tokens/s" if decoded and found.decode_seconds else ""
    first = f"{found.prompt_tokens} prompt tokens in {found.prefill_seconds:.2f} s"
    drafted = f"; {_drafted(found.draft)}" if found.draft is not None else ""
    echo(f"[{first}; {len(found.tokens)} tokens{rate}{drafted}; {found.reason}; on this machine]", err=True)


def _drafted(found: dict[str, Any]) -> str:
    """What drafting did for an answer."""
    if found["acceptance"] is None:
        return "nothing was drafted"
    form = "" if found["width"] == 1 and found["exact"] else f" of {found['width']}"
    return (
        f"{found['acceptance']:.0%} of {found['drafted']} drafted tokens taken, "
        f"{found['tokens_per_step']:.2f} tokens a step{form}"
        + ("" if found["exact"] else ", and near ties may fall otherwise than without a draft")
    )


class _Stage:
    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, steps: float = 1) -> None:
        self._bars.advance(self._task, steps)


class _PlainStage:
    def advance(self, steps: float = 1) -> None:
        pass


class TerminalProgress:
    """Progress bars on a terminal; one line a stage where standard error is a file or a pipe."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    @contextmanager
    def stage(self, title: str, total: float | None = None) -> Iterator[Stage]:
        started = time.perf_counter()
        if self._live:
            with self._bars() as bars:
                yield _Stage(bars, bars.add_task(shown_line(title), total=total))
        else:
            yield _PlainStage()
        echo(f"  {title:<44} {time.perf_counter() - started:6.1f} s", err=True)

    def note(self, text: str) -> None:
        echo(f"Note: {text}", err=True)

    def _bars(self) -> Bars:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        return Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<42}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
