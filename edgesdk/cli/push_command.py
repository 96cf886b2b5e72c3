"""``edgesdk push``."""

from __future__ import annotations

import time
from pathlib import Path

import click

from .device_options import chosen_device, device_option, fleet_option, shell_of
from .terminal import TerminalProgress, echo, json_option, print_json


@click.command("push")
@click.argument("bundle", type=click.Path(path_type=Path))
@device_option
@fleet_option
@json_option
def command(bundle: Path, device: str | None, fleet: Path | None, as_json: bool) -> None:
    """Put BUNDLE on a device: what is missing there goes over, is verified there, and is then switched to in one step.

    A push that was cut off goes on where it stopped. The bundle that was in use before stays for
    `edgesdk device rollback`.
    """
    from ..bundle import open_bundle
    from ..devices.store import Parcel, Store, refuse_misfit

    progress = TerminalProgress()
    with open_bundle(bundle, progress=progress) as opened, chosen_device(device, fleet, "edgesdk push") as found:
        started = time.perf_counter()
        store = Store(shell_of(found))
        survey = store.survey()
        if note := refuse_misfit(opened, survey.facts, found.name):
            progress.note(note)
        pushed = store.push(Parcel.of_bundle(opened), progress=progress, survey=survey)
        seconds = time.perf_counter() - started
    if as_json:
        print_json({"device": found.name, "seconds": seconds, **vars(pushed)})
        return
    if not pushed.sent:
        echo(f"All of it is on {found.name} already ({seconds:.1f} s): {pushed.path}")
        return
    kept = f"; {pushed.kept_bytes / 1e6:.1f} MB were there" if pushed.kept_bytes else ""
    echo(f"{len(pushed.sent)} files, {pushed.sent_bytes / 1e6:.1f} MB in {seconds:.1f} s{kept}; in use: {pushed.path}")
