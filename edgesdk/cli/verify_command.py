"""``edgesdk verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .terminal import TerminalProgress, echo, json_option, print_json

if TYPE_CHECKING:
    from ..signing.signature import Signature


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", metavar="PUBLIC", help="File or 64 hexadecimal digits of the public key it must be signed with.")
@click.option("--oldest", type=click.IntRange(1), default=1, metavar="N", help="With --key: refuse older versions.")
@json_option
def command(bundle: Path, key: str | None, oldest: int, as_json: bool) -> None:
    """Check a bundle: every hash, its schema, its runtime, its programs; with --key, who signed it.

    The programs have to hold together (offsets, indices, the places of their data), and the runtime opens them in a
    process of its own, where it is installed.
    """
    from ..bundle import check_runtime, open_bundle
    from ..bundle.admission import opened_here
    from ..bundle.verifying import verify_programs
    from ..signing.pins import check_with
    from ..signing.signature import read_signature

    with open_bundle(bundle, progress=TerminalProgress()) as opened:
        manifest = opened.manifest
        runtime = check_runtime(manifest)
        signature = read_signature(opened.folder) if key is None else check_with(opened, key, oldest)
        unchecked = verify_programs(opened.folder, manifest)
        unopened = opened_here(opened)
    if as_json:
        said = None if signature is None else {"key": signature.key, "version": signature.version}
        print_json(
            {
                "ok": True,
                "digest": manifest.digest,
                "files": len(manifest.files),
                "runtime_installed": runtime,
                "programs_unchecked": unchecked,
                "programs_unopened": unopened,
                "signature": said and {**said, "checked": key is not None},
            }
        )
        return
    echo(f"{bundle}: {len(manifest.files)} files verified, schema {manifest.schema}, digest {manifest.digest[:16]}")
    here = f"{runtime} is installed" if runtime else "not installed here"
    echo(f"runtime: {manifest.program.runtime} {manifest.program.runtime_versions} ({here})")
    echo(f"programs: {'hold together' if unchecked is None else f'not checked ({unchecked})'}")
    echo(f"          {'opened in a process of their own' if unopened is None else f'not opened ({unopened})'}")
    echo(f"signature: {_words(signature, checked=key is not None)}")


def _words(signature: Signature | None, *, checked: bool) -> str:
    if signature is None:
        return "none"
    said = f"version {signature.version}, key {signature.key}"
    return f"{said}: checked" if checked else f"{said}: NOT checked (--key PUBLIC checks it)"
