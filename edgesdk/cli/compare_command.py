"""``edgesdk compare``: what became better or worse between two profiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .terminal import json_option, print_json, print_table

if TYPE_CHECKING:
    from ..profile.compare import Change, Difference


@click.command("compare")
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--policy", type=click.Path(path_type=Path), metavar="TOML", help="Allowances and directions by metric.")
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(["bundle", "device", "regime", "energy"]),
    help="A difference between the two that is meant.",
)
@json_option
def command(a: Path, b: Path, policy: Path | None, allow: tuple[Difference, ...], as_json: bool) -> int:
    """Compare profile B with profile A; exit 1 where something became worse.

    Rates, medians and high quantiles are what users feel, with all that disturbs the device. token_floor, the lowest
    tenth of tokens, is what the program takes undisturbed: where other work hides a small difference, look there. It
    sees the contexts just after the prompt; a longer prompt shows longer ones.
    """
    from ..profile.compare import compared, read_policy
    from ..profile.schema import read_profile

    changes = compared(read_profile(a), read_profile(b), read_policy(policy) if policy else None, allow=allow)
    if as_json:
        print_json(changes)
    else:
        show_changes(changes)
    return 1 if any(change.verdict == "worse" for change in changes) else 0


def show_changes(changes: list[Change]) -> None:
    """A comparison as a table; what neither profile has is left out."""
    shown = [change for change in changes if change.a is not None or change.b is not None]
    print_table(["metric", "case", "A", "B", "B / A", "95 % interval", ""], [_row(change) for change in shown])


def _row(change: Change) -> list[str]:
    numbers = ["-" if value is None else f"{value:.4g} {change.unit}" for value in (change.a, change.b)]
    ratio = "" if change.ratio is None else f"{change.ratio:.3f}"
    interval = "" if change.low is None or change.high is None else f"{change.low:.3f} to {change.high:.3f}"
    said = f"{change.verdict} ({change.why})" if change.why else change.verdict
    return [change.metric, change.case, *numbers, ratio, interval, said]
