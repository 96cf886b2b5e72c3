"""Thermal zones of the kernel, with the trips from which it holds back.

Format: Documentation/driver-api/thermal/sysfs-api.rst of the kernel: millidegree Celsius.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .base import Files, Sensor
from .boards import is_gated, is_placeholder
from .listed import counted, folders, number, numbered, shown, warm

_CLASS = "/sys/class/thermal/thermal_zone*"
#: Zones of current limiters and of the battery's gauge: mA, mV and percent, in a file that should hold a temperature.
_OTHER = re.compile(r"^socd?$|(^|[-_])(ibat|vbat|bcl|ocp|uvlo|vdroop|batoilo)([-_\d]|$)", re.IGNORECASE)
_EVIDENCE = "thermal sysfs ABI: temp is in millidegree Celsius"


class ThermalZones:
    """Zones whose temperature can be read and makes sense."""

    name = "thermal_zones"
    listing = shown(*(f"{_CLASS}/{file}" for file in ("type", "temp", "trip_point_*_type", "trip_point_*_temp")))

    def found(self, text: str) -> list[Sensor]:
        return counted(
            Sensor(
                files["type"],
                "temperature",
                "zone",
                self.name,
                Files((f"{folder}/temp",), 1e-3),
                _EVIDENCE,
                limit=_trip(files, "passive") or _trip(files, "hot"),
                critical=_trip(files, "critical"),
                rests=_rests(files),
            )
            for folder, files in folders(text).items()
            if _sensible(files)
        )

    def values(self, text: str) -> dict[str, float]:
        return {}


def _sensible(files: Mapping[str, str]) -> bool:
    kind, raw = files.get("type", ""), number(files.get("temp"))
    if not kind or _OTHER.search(kind):
        return False
    if raw is None or _rests(files):
        return _rests(files)
    if is_placeholder(kind, raw / 1000):
        return False
    return warm(raw / 1000) and abs(raw) >= 1000  # less is a zone that is off, or one of another unit


def _rests(files: Mapping[str, str]) -> bool:
    """Whether it is a zone whose part has no power now: it says so, or cannot be read although it has trips."""
    raw = number(files.get("temp"))
    if raw is None:
        return "temp" not in files and any(name.startswith("trip_point_") for name in files)
    return is_gated(raw / 1000)


def _trip(files: Mapping[str, str], kind: str) -> float | None:
    """The lowest trip of a kind, in °C."""
    temperatures = [
        number(files.get(f"trip_point_{index}_temp"))
        for index in numbered(files, r"trip_point_(\d{1,4})_type")
        if files[f"trip_point_{index}_type"] == kind
    ]
    return min((raw / 1000 for raw in temperatures if raw is not None and 0 < raw < 200_000), default=None)


SOURCE = ThermalZones()
