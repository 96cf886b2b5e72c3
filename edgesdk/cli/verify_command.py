"""``edgesdk verify``."""

from __future__ import annotations

from pathlib import Path

import click

from .terminal import TerminalProgress, echo, json_option, print_json


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Check a bundle: every hash, its schema, its runtime."""
    from ..bundle import check_runtime, open_bundle

    with open_bundle(bundle, progress=TerminalProgress()) as opened:
        manifest = opened.manifest
        runtime = check_runtime(manifest)
    if as_json:
        print_json({"ok": True, "digest": manifest.digest, "files": len(manifest.files), "runtime_installed": runtime})
        return
    echo(f"{bundle}: {len(manifest.files)} files verified, schema {manifest.schema}, digest {manifest.digest[:16]}")
    here = f"{runtime} is installed" if runtime else "not installed here"
    echo(f"runtime: {manifest.program.runtime} {manifest.program.runtime_versions} ({here})")
