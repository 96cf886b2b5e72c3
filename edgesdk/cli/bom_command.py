"""``edgesdk bom``."""

from __future__ import annotations

from pathlib import Path

import click

from .terminal import TerminalProgress, echo


@click.command("bom")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--profile", type=click.Path(path_type=Path), help="Of this bundle: the energy that a token takes.")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="File to write.  [default: BUNDLE.cdx.json]")
def command(bundle: Path, profile: Path | None, out: Path | None) -> None:
    """Write the bill of materials of BUNDLE, in CycloneDX: models, files and hashes, licences, runtime, energy."""
    from ..bundle import open_bundle
    from ..files import replacing, writing_failed
    from ..profile.schema import read_profile
    from ..signing.materials import bill_of_materials

    measured = None if profile is None else read_profile(profile)
    with open_bundle(bundle, progress=TerminalProgress()) as opened:
        text = bill_of_materials(opened, measured)
    path = out or bundle.resolve().with_name(f"{bundle.resolve().name}.cdx.json")
    try:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
    except OSError as failure:
        raise writing_failed(path, failure) from None
    echo(f"Wrote {path}")
