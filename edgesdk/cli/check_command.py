"""``edgesdk check``: a profile against a budget."""

from __future__ import annotations

from pathlib import Path

import click

from .terminal import json_option, print_json, print_table


@click.command("check")
@click.argument("profile", type=click.Path(path_type=Path))
@click.option("--budget", required=True, type=click.Path(path_type=Path), metavar="TOML", help="Limits by metric.")
@json_option
def command(profile: Path, budget: Path, as_json: bool) -> int:
    """Check PROFILE against a budget; exit 1 where a limit is not met, or a figure is missing."""
    from ..profile.budget import checked, read_budget
    from ..profile.schema import read_profile

    rows = checked(read_profile(profile), read_budget(budget))
    if as_json:
        print_json(rows)
    else:
        table = [
            [
                row.metric,
                row.case,
                "none" if row.value is None else f"{row.value:.4g} {row.unit}".strip(),
                row.limit,
                ("met" if row.met else "NOT MET") + (f" ({row.why})" if row.why else ""),
            ]
            for row in rows
        ]
        print_table(["metric", "case", "value", "limit", ""], table)
    return 0 if all(row.met for row in rows) else 1
