"""Jetson modules without an hwmon INA3221: JetPack 4's iio devices, or tegrastats as the last resort.

Format: NVIDIA's developer guides (``rail_name_N``, ``in_power{N}_input`` in mW; tegrastats lines of JetPack 4 to 7).
"""

from __future__ import annotations

import re
from typing import Final

from .base import Asked, Files, Sensor
from .boards import connected, is_gated, is_placeholder, with_total
from .listed import counted, folders, number, numbered, shown, warm

COMMAND: Final = "tegrastats --interval 100 < /dev/null | head -n 1"
_IIO = ("/sys/bus/i2c/drivers/ina3221x/*/iio:device*", "/sys/bus/iio/devices/iio:device*")
#: ``VDD_IN 4862mW/4862mW``, ``POM_5V_IN 1660/1660``, with ``/max`` on some: instantaneous first. RAM has MB behind it.
_POWER = re.compile(
    r"(?<!\S)([A-Za-z]\w{0,63}) (-?\d{1,9})(?:mW)?/-?\d{1,9}(?:mW)?(?:/-?\d{1,9}(?:mW)?)?(?!\S)", re.ASCII
)
_HEAT = re.compile(r"(?<!\S)([A-Za-z][\w.-]{0,63})@(-?\d{1,6}(?:\.\d{1,6})?)C(?!\S)", re.ASCII)


class Jetson:
    """Rails by iio, or rails and temperatures by tegrastats."""

    name = "jetson"
    listing = (
        shown(*(f"{folder}/{file}" for folder in _IIO for file in ("rail_name_*", "in_power*_input"))) + "seen=\n"
        "for file in ${root-}/sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_0 "
        "${root-}/sys/bus/iio/devices/iio:device*/rail_name_0; do\n"
        '    [ -r "$file" ] && seen=1\n'
        "done\n"
        "for file in ${root-}/sys/class/hwmon/hwmon*/name; do\n"
        "    value=\n"
        '    [ -r "$file" ] && read -r value < "$file"\n'
        '    [ "$value" = ina3221 ] && [ -r "${file%/name}/in1_input" ] && seen=1\n'
        "done\n"
        f'[ -n "$seen" ] || {{ command -v tegrastats > /dev/null && {COMMAND}; }}\n'
    )

    def found(self, text: str) -> list[Sensor]:
        return with_total(counted(_iio(text)) or _told(text), self.name)

    def values(self, text: str) -> dict[str, float]:
        """Watts by rail and, with ``@`` behind the name, degrees Celsius, from one line of tegrastats."""
        return _watts(text) | {f"{name}@": value for name, value in _heat(text).items() if warm(value)}


def _iio(text: str) -> list[Sensor]:
    sensors: dict[tuple[str, int], Sensor] = {}
    for folder, files in folders(text).items():
        for index in numbered(files, r"rail_name_(\d{1,4})"):
            rail, file = files[f"rail_name_{index}"], f"in_power{index}_input"
            if connected(rail) and number(files.get(file)) is not None:  # the same device by two ways
                reading = Files((f"{folder}/{file}",), 1e-3)
                sensor = Sensor(rail, "power", "rail", "jetson", reading, "JetPack 4: in_power*_input is in milliwatt")
                sensors.setdefault((folder.rpartition("/")[2], index), sensor)
    return list(sensors.values())


def _told(text: str) -> list[Sensor]:
    power = "tegrastats prints milliwatt, the instantaneous value first"
    heat = "tegrastats prints degrees Celsius after @"
    rails = [Sensor(rail, "power", "rail", "jetson", Asked(COMMAND, rail), power) for rail in _watts(text)]
    zones = [
        Sensor(zone, "temperature", "zone", "jetson", Asked(COMMAND, f"{zone}@"), heat, rests=is_gated(celsius))
        for zone, celsius in _heat(text).items()
    ]
    return rails + zones


def _line(text: str) -> str:
    return next((line for line in text.splitlines() if _POWER.search(line) or _HEAT.search(line)), "")


def _watts(text: str) -> dict[str, float]:
    rails = {match[1]: float(match[2]) / 1000 for match in _POWER.finditer(_line(text))}
    return {rail: watts for rail, watts in rails.items() if connected(rail)}


def _heat(text: str) -> dict[str, float]:
    """Zones that have a sensor: it may have no power now."""
    zones = {match[1]: float(match[2]) for match in _HEAT.finditer(_line(text))}
    return {
        zone: celsius
        for zone, celsius in zones.items()
        if (warm(celsius) or is_gated(celsius)) and not is_placeholder(zone, celsius)
    }


SOURCE = Jetson()
