"""``edgesdk sensors``: what a device can measure of itself."""

from __future__ import annotations

from pathlib import Path

import click

from .device_options import chosen_device, device_option, fleet_option, shell_of
from .terminal import echo, json_option, print_json, print_table


@click.command("sensors")
@device_option
@fleet_option
@click.option("--meters", is_flag=True, help="List the external meters that edgesdk profile --meter takes.")
@json_option
def command(device: str | None, fleet: Path | None, meters: bool, as_json: bool) -> None:
    """List the sensors of a device, with their scope, what they say now, and why their units are believed."""
    if meters:
        _meters(as_json)
        return
    from ..profile.sampler import discover, once

    with chosen_device(device, fleet, "edgesdk sensors") as found:
        place = shell_of(found)
        survey = discover(place)
        sensors = survey.sensors
        now = once(place, sensors)
    if as_json:
        print_json([{"sensor": sensor, "unit": sensor.unit, "now": now.get(sensor.name)} for sensor in sensors])
        for remark in survey.remarks:
            echo(remark.text, err=True)
        return
    for remark in survey.remarks:
        echo(remark.text, err=True)
    if not sensors:
        echo(f"{device or 'the device'} has no sensors that this user may read")
        return
    rows = []
    for sensor in sensors:
        value = now.get(sensor.name)
        reading = "unreadable" if value is None else f"{value:.6g} {sensor.unit}".strip()
        scope = f"{sensor.scope}, total" if sensor.total else sensor.scope
        rows.append([sensor.name, sensor.quantity, scope, reading, sensor.source, sensor.evidence])
    print_table(["name", "quantity", "scope", "now", "source", "evidence"], rows)


def _meters(as_json: bool) -> None:
    from ..profile.sensors.meters import METERS, USAGE

    rows = [{"meter": name, "url": USAGE.get(name, f"{name}:...")} for name in METERS.names()]
    if as_json:
        print_json(rows)
        return
    print_table(["meter", "--meter"], [[row["meter"], row["url"]] for row in rows])
