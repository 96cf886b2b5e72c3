"""``edgesdk trust``."""

from __future__ import annotations

from pathlib import Path

import click

from .terminal import echo


@click.command("trust")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--forget", is_flag=True, help="Trust FILE no more.")
def command(file: Path | None, forget: bool) -> None:
    """Trust FILE to name programs, hosts and interpreters; without FILE, list what is trusted.

    FILE is a devices.toml of the folder you stand in, the file of a sweep, or a bundle whose firmware project is not
    edgesdk's own. It is trusted as it is now: a change has to be trusted again.
    """
    from .. import trust
    from ..errors import EdgeError

    if file is None:
        for each in trust.trusted_files():
            echo(f"{each}  {'trusted' if trust.is_trusted(each) else 'changed since, or gone: no longer trusted'}")
        return
    subject = trust.subject(file)
    if forget:
        if not trust.forget(subject):
            raise EdgeError(f"{subject} was not trusted")
        echo(f"{subject} is trusted no more")
        return
    trust.trust(subject)
    echo(f"{subject} is trusted as it is now")
