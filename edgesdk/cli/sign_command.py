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
@click.option(
    "--openssf",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Sign it for sigstore's tools too, with this elliptic-curve key: BUNDLE.sig.",
)
@json_option
def command(bundle: Path, key: Path, version: int | None, openssf: Path | None, as_json: bool) -> None:
    """Sign BUNDLE, so that devices with your key pinned take it, and take no older one after it."""
    from ..signing.openssf import sign_openssf
    from ..signing.signature import sign

    progress = TerminalProgress()
    made = sign(bundle, key, version, progress=progress)
    other = None if openssf is None else sign_openssf(bundle, openssf, progress=progress)
    if as_json:
        print_json({"key": made.key, "version": made.version, "openssf": other})
        return
    echo(f"{bundle}: signed as version {made.version} with key {made.key}")
    if other is not None:
        echo(f"{other}: model_signing verify key {bundle} --signature {other} --public_key {openssf}.pub")
