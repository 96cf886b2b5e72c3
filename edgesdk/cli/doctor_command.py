"""``edgesdk doctor``."""

from __future__ import annotations

import sys

import click

from .terminal import json_option, print_json, print_table


@click.command("doctor")
@json_option
def command(as_json: bool) -> int:
    """Run a tiny model through every converter installed, and say what is missing."""
    from .. import __version__
    from ..doctor import examine

    findings = examine()
    status = 0 if findings and all(finding.ok for finding in findings) else 1
    if as_json:
        print_json({"edgesdk": __version__, "python": sys.version.split()[0], "converters": findings})
        return status
    click.echo(f"edgesdk {__version__}, Python {sys.version.split()[0]}")
    print_table(
        ("converter", "works", "targets", ""),
        [(f.converter, "yes" if f.ok else "no", ", ".join(f.targets) or "-", f.detail) for f in findings],
    )
    return status
