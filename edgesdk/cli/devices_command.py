"""``edgesdk devices``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .device_options import fleet_option
from .terminal import echo, json_option, print_json, print_table

if TYPE_CHECKING:
    from ..devices.discovery import Found


@click.command("devices")
@click.option("--list-only", is_flag=True, help="Connect to none of them.")
@fleet_option
@json_option
def command(list_only: bool, fleet: Path | None, as_json: bool) -> None:
    """List devices that are attached or named in devices.toml, and what each can run."""
    from ..devices.discovery import discover

    found = discover(fleet, ask=not list_only)
    if as_json:
        print_json(found)
        return
    headers = ("device", "model", "system", "architecture", "RAM", "free", "targets")
    print_table(headers, [_row(each) for each in found])
    for each in found:
        if each.problem:
            echo(f"{each.name}: {each.problem}", err=True)


def _row(found: Found) -> tuple[str, ...]:
    facts = found.facts
    if facts is None:
        return (found.name, "not usable" if found.problem else "not asked", "", "", "", "", "")
    system = " ".join(part for part in (facts.os, facts.release) if part)
    return (
        found.name,
        (facts.model or "?") + (" (emulated)" if facts.emulated else ""),
        system or "?",
        facts.architecture or "?",
        _size(facts.ram),
        _size(facts.free),
        ", ".join(found.targets) or "none",
    )


def _size(count: int | None) -> str:
    if count is None:
        return "?"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
