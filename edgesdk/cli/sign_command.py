"""``edgesdk sign``."""

from __future__ import annotations

from pathlib import Path

import click

from .terminal import TerminalProgress, echo, json_option, print_json


@click.command("sign")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="File of your private key.")
@click.option(
    "--version",
    type=click.IntRange(1),
    metavar="N",
    help="Number that grows with every bundle.  [default: one more than the last that this key signed]",
)
@json_option
def command(bundle: Path, key: Path, version: int | None, as_json: bool) -> None:
    """Sign BUNDLE, so that devices with your key pinned take it, and take no older one after it."""
    from ..signing.signature import sign

    made = sign(bundle, key, version, progress=TerminalProgress())
    if as_json:
        print_json({"key": made.key, "version": made.version})
        return
    echo(f"{bundle}: signed as version {made.version} with key {made.key}")
