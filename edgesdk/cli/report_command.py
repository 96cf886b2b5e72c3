"""``edgesdk report``."""

from __future__ import annotations

from pathlib import Path

import click

from .terminal import TerminalProgress, echo


@click.command("report")
@click.argument("profiles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="HTML page to write.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Every value of every repeat, as CSV.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Summary tables and notes, as Markdown.")
def command(profiles: tuple[Path, ...], output: Path | None, csv_file: Path | None, markdown: Path | None) -> None:
    """Make a page of one profile, or of several side by side: the first is what the others are compared to.

    The page is one file, loads nothing and runs no script.
    """
    if output is None and csv_file is None and markdown is None:
        raise click.UsageError("name a file to write: -o FILE.html, --csv FILE or --markdown FILE")
    from ..profile.export import to_csv, to_markdown
    from ..profile.report import write_report
    from ..profile.report.page import write_page
    from ..profile.schema import read_profile

    found = [read_profile(path) for path in profiles]
    progress = TerminalProgress()
    if output is not None:
        with progress.stage("report"):
            write_report(found, output)
    if csv_file is not None:
        write_page(to_csv(*found), csv_file)
    if markdown is not None:
        write_page("\n".join(to_markdown(profile) for profile in found), markdown)
    for path in filter(None, (output, csv_file, markdown)):
        echo(f"Wrote {path}.")
