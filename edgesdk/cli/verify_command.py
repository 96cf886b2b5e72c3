"""``edgesdk verify``."""

from __future__ import annotations

from pathlib import Path

import click

from .terminal import TerminalProgress, echo, json_option, print_json


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Check a bundle: every hash, its schema, its runtime, its programs.

    The programs have to hold together (offsets, indices, the places of their data), and the runtime opens them in a
    process of its own, where it is installed.
    """
    from ..bundle import check_runtime, open_bundle
    from ..bundle.admission import opened_here
    from ..bundle.verifying import verify_programs

    with open_bundle(bundle, progress=TerminalProgress()) as opened:
        manifest = opened.manifest
        runtime = check_runtime(manifest)
        unchecked = verify_programs(opened.folder, manifest)
        unopened = opened_here(opened)
    if as_json:
        found = {"ok": True, "digest": manifest.digest, "files": len(manifest.files), "runtime_installed": runtime}
        print_json({**found, "programs_unchecked": unchecked, "programs_unopened": unopened})
        return
    echo(f"{bundle}: {len(manifest.files)} files verified, schema {manifest.schema}, digest {manifest.digest[:16]}")
    here = f"{runtime} is installed" if runtime else "not installed here"
    echo(f"runtime: {manifest.program.runtime} {manifest.program.runtime_versions} ({here})")
    echo(f"programs: {'hold together' if unchecked is None else f'not checked ({unchecked})'}")
    echo(f"          {'opened in a process of their own' if unopened is None else f'not opened ({unopened})'}")
