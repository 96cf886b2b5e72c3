"""``edgesdk inspect``."""

from __future__ import annotations

from pathlib import Path

import click

from .terminal import echo, json_option, print_json, print_table


@click.command("inspect")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Show what a bundle says about itself."""
    from ..bundle import open_bundle
    from .export_command import print_summary

    with open_bundle(bundle, check=False) as opened:
        manifest = opened.manifest
    if as_json:
        print_json(manifest)
        return
    print_summary(manifest)
    echo()
    print_table(("file", "bytes", "sha256"), [(f.path, str(f.size), f.sha256[:16]) for f in manifest.files])
