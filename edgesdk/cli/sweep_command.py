"""``edgesdk sweep``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .device_options import fleet_option
from .terminal import TerminalProgress, echo, json_option, print_json, print_table

if TYPE_CHECKING:
    from ..sweep import Figure, Preview, Table

_COLUMNS = (
    ("bytes", "MB", 1e-6),
    ("perplexity", "perplexity", 1.0),
    ("kl", "KL", 1.0),
    ("decode_rate", "decode tokens/s", 1.0),
    ("time_to_first_token", "first token ms", 1e3),
    ("peak_rss", "peak RSS MB", 1e-6),
    ("decode_energy", "mJ/token", 1e3),
)


@click.command("sweep")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", "-o", required=True, type=click.Path(path_type=Path), help="Folder for bundles, profiles and results."
)
@click.option(
    "--workers", type=click.IntRange(1), help="Exports at a time.  [default: the file's, or one per 8 GB free]"
)
@fleet_option
@click.option("--dry-run", is_flag=True, help="List the jobs, their sizes, and what is there already.")
@json_option
def command(file: Path, out: Path, workers: int | None, fleet: Path | None, dry_run: bool, as_json: bool) -> int:
    """Export and profile models x recipes x targets x devices, and draw the trade-off.

    What OUT holds already is not done again; a sweep that was broken off goes on when the same command runs again.
    Exits with 1 where a job failed; what a target refuses is a result.
    """
    from ..sweep import preview, sweep

    if dry_run:
        jobs = preview(file, out, fleet=fleet, progress=TerminalProgress())
        if as_json:
            print_json(jobs)
        else:
            _list(jobs)
        return 0
    table = sweep(file, out, workers=workers, fleet=fleet, confirm=_confirmed, progress=TerminalProgress())
    if as_json:
        print_json(table)
    else:
        _show(table)
        echo(f"\nWrote {out / 'sweep.html'}, sweep.json and sweep.csv")
    return int(table.failed)


def _confirmed(programs: Sequence[str]) -> bool:
    """Ask on a terminal; elsewhere nobody can say yes."""
    if not sys.stdin.isatty():
        return False
    echo("This sweep has this machine:", err=True)
    for each in programs:
        echo(f"  {each}", err=True)
    return click.confirm("Let it?", err=True)


def _list(jobs: list[Preview]) -> None:
    from ..estimate import megabytes

    rows = []
    for job in jobs:
        size = "unknown" if job.bytes is None else ("" if job.state == "cached" else "about ") + megabytes(job.bytes)
        what = "export" if job.device is None else f"profile on {job.device}"
        rows.append((job.model, job.recipe, job.target, what, "" if job.state == "refused" else size, job.state))
    print_table(("model", "recipe", "target", "job", "size", "state"), rows)
    for job in jobs:
        if job.reason:
            echo(f"{job.model} {job.recipe} for {job.target} is refused: {job.reason}")
    left = sum(job.state == "to do" for job in jobs)
    echo(f"\n{left} of {len(jobs)} jobs to do")


def _show(table: Table) -> None:
    used = [each for each in _COLUMNS if any(row.figures[each[0]].value is not None for row in table.rows)]
    rows = []
    for row in table.rows:
        state = row.validity or row.status
        figures = [_cell(row.figures[name], scale) for name, _, scale in used]
        rows.append((row.model, row.recipe, row.target, row.device or "-", row.case or "-", *figures, state))
    titles = [title for _, title, _ in used]
    print_table(("model", "recipe", "target", "device", "case", *titles, ""), rows)
    for row in table.rows:
        if row.reason:
            echo(f"{row.model} {row.recipe} for {row.target} {row.status}: {row.reason}")


def _cell(figure: Figure, scale: float) -> str:
    return "none" if figure.value is None else f"{figure.value * scale:.4g}"
