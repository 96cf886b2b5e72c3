"""``edgesdk device``: what can be done to one device."""

from __future__ import annotations

from pathlib import Path

import click

from .device_options import chosen_device, device_option, fleet_option, shell_of
from .terminal import TerminalProgress, echo, json_option, print_json, print_table


@click.group("device")
def command() -> None:
    """Look after one device: facts, its bundles, rollback, cleaning, restart, pairing."""


@command.command("show")
@device_option
@fleet_option
@json_option
def show(device: str | None, fleet: Path | None, as_json: bool) -> None:
    """What the device says about itself, and what its transport can do."""
    from ..devices.facts import matching
    from ..schema import dump

    with chosen_device(device, fleet, "edgesdk device show") as found:
        facts = found.facts()
    data = {"abilities": sorted(found.abilities), **dump(facts), "targets": matching(facts)}
    if as_json:
        print_json(data)
        return
    rows = [(key, ", ".join(value) if isinstance(value, list) else value) for key, value in data.items()]
    rows = [
        (key, "; ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value)
        for key, value in rows
    ]
    print_table(("", ""), [(key, "not known" if value is None else str(value)) for key, value in rows])


@command.command("bundles")
@device_option
@fleet_option
@json_option
def bundles(device: str | None, fleet: Path | None, as_json: bool) -> None:
    """List the bundles on the device."""
    from ..devices.store import Store

    with chosen_device(device, fleet, "edgesdk device bundles") as found:
        survey = Store(shell_of(found)).survey()
    if as_json:
        print_json(survey)
        return
    states = {survey.previous: "for a rollback", survey.active: "in use"}
    rows = []
    for name, stored in sorted(survey.bundles.items()):
        size = sum(size for _, size in stored.files.values())
        state = states.get(name, "") if stored.whole else "damaged"
        rows.append((name, f"{size / 1e6:.1f} MB", f"{len(stored.files)} files", state))
    print_table(("bundle", "size", "", ""), rows)
    echo(f"in {survey.root}" + (f", {survey.free / 1e6:.0f} MB free" if survey.free is not None else ""))


@command.command("verify")
@device_option
@fleet_option
def verify(device: str | None, fleet: Path | None) -> int:
    """Hash every file of the bundle in use, on the device."""
    from ..devices.store import Store

    with chosen_device(device, fleet, "edgesdk device verify") as found:
        store = Store(shell_of(found))
        with TerminalProgress().stage("Verifying on the device"):
            wrong = store.verify()
    for path in wrong:
        echo(f"Error: {path} is not what was pushed", err=True)
    if wrong:
        echo("Hint: push the bundle again: only what is damaged goes over", err=True)
        return 1
    echo("Every file is what was pushed.")
    return 0


@command.command("rollback")
@device_option
@fleet_option
def rollback(device: str | None, fleet: Path | None) -> None:
    """Put the bundle that was in use before in use again."""
    from ..devices.store import Store

    with chosen_device(device, fleet, "edgesdk device rollback") as found:
        name = Store(shell_of(found)).rollback()
    echo(f"In use on {found.name}: {name}")


@command.command("clean")
@click.option("--all", "everything", is_flag=True, help="Also what is in use, and what a rollback needs.")
@device_option
@fleet_option
def clean(everything: bool, device: str | None, fleet: Path | None) -> None:
    """Remove what is neither in use nor needed for a rollback: old bundles, runners, transfers that were cut off."""
    from ..devices.store import Store

    with chosen_device(device, fleet, "edgesdk device clean") as found:
        freed = Store(shell_of(found)).clean(everything=everything)
    echo(f"{freed / 1e6:.1f} MB freed on {found.name}")


@command.command("reboot")
@click.option("--timeout", type=click.FloatRange(min=1), default=180, show_default=True, help="Seconds to come back.")
@device_option
@fleet_option
def reboot(timeout: float, device: str | None, fleet: Path | None) -> None:
    """Restart the device and wait until it answers again."""
    with chosen_device(device, fleet, "edgesdk device reboot") as found:
        found.need("reboot")
        with TerminalProgress().stage(f"Restarting {found.name}"):
            found.reboot(timeout=timeout)
    echo(f"{found.name} is back.")


@command.command("pair")
@click.argument("address", metavar="HOST:PORT")
@click.argument("code")
def pair(address: str, code: str) -> None:
    """Pair with an Android device's wireless debugging, by the CODE on its screen."""
    from ..devices.adb import pair

    pair(address, code)
    echo(
        f"Paired. Next: edgesdk device connect HOST:PORT, with the port that wireless debugging shows (not {address})."
    )


@command.command("connect")
@click.argument("address", metavar="HOST:PORT")
def connect(address: str) -> None:
    """Connect to an Android device's wireless debugging."""
    from ..devices.adb import connect

    connect(address)
    echo(f"Connected: adb:{address}")
