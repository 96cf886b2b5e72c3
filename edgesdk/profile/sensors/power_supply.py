"""Batteries and chargers of the kernel.

Format: Documentation/ABI/testing/sysfs-class-power of the kernel: µV, µA, µAh, µWh, µW, tenths of a degree Celsius. The
sign of the current, and on many phones its unit, is the vendor's: see :mod:`.battery`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from .base import Asked, Files, Quantity, Sensor, Sum
from .listed import folders, number, shown, warm

_CLASS = "/sys/class/power_supply/*"
_UNSURE = "the sign, and on many phones the unit, is the vendor's: to be confirmed"
#: Status to whether a charger supplies; Unknown is no answer.
_STATUS = {"charging": 1.0, "full": 1.0, "not charging": 1.0, "discharging": 0.0}


@dataclass(frozen=True)
class _Kind:
    title: str
    quantity: Quantity
    files: tuple[str, ...]
    scale: float
    evidence: str
    total: bool = False


_MICRO_HOURS = 3600e-6
#: The first of a title that can be read is taken.
_KINDS = (
    _Kind("voltage", "voltage", ("voltage_now",), 1e-6, "power_supply ABI: voltage_now is in microvolt"),
    _Kind("current", "current", ("current_now",), 1e-6, f"power_supply ABI: current_now is in microampere; {_UNSURE}"),
    _Kind("power", "power", ("power_now",), 1e-6, f"power_supply ABI: power_now is in microwatt; {_UNSURE}", True),
    _Kind(
        "power",
        "power",
        ("voltage_now", "current_now"),
        1e-12,
        f"power_supply ABI: microvolt times microampere; {_UNSURE}",
        True,
    ),
    _Kind("charge", "charge", ("charge_counter",), _MICRO_HOURS, "power_supply ABI: charge_counter is in µAh"),
    _Kind("charge", "charge", ("charge_now",), _MICRO_HOURS, "power_supply ABI: charge_now is in µAh"),
    _Kind("energy", "energy", ("energy_now",), _MICRO_HOURS, "power_supply ABI: energy_now is in µWh, what is left"),
    _Kind("temperature", "temperature", ("temp",), 0.1, "power_supply ABI: temp is in tenths of a degree Celsius"),
    _Kind("level", "level", ("capacity",), 0.01, "power_supply ABI: capacity is in percent"),
)
_FILES = ("type", "scope", "status", "online", *dict.fromkeys(file for kind in _KINDS for file in kind.files))


class PowerSupply:
    """What the battery says of itself, and whether a charger is connected."""

    name = "power_supply"
    listing = shown(*(f"{_CLASS}/{file}" for file in _FILES))

    def found(self, text: str) -> list[Sensor]:
        supplies = {
            folder: files
            for folder, files in folders(text).items()
            if "type" in files and files.get("scope") != "Device"  # a mouse's battery
        }
        batteries = [folder for folder, files in supplies.items() if files["type"] == "Battery"]
        sensors: list[Sensor] = []
        for folder, files in supplies.items():
            name = folder.rpartition("/")[2]
            if folder in batteries:
                sensors += _battery("battery" if len(batteries) == 1 else name, folder, files)
            elif number(files.get("online")) is not None:
                evidence = "power_supply ABI: online is 1 while the charger supplies"
                reading = Files((f"{folder}/online",))
                sensors.append(Sensor(f"{name} online", "flag", "device", self.name, reading, evidence))
        return _together(sensors, len(batteries))

    def values(self, text: str) -> dict[str, float]:
        """``charging``, from the line ``status WORD``; missing where the word is none that the kernel knows."""
        words = [line.partition("status ")[2].strip().casefold() for line in text.splitlines() if "status " in line]
        return {"charging": _STATUS[words[0]]} if words and words[0] in _STATUS else {}


def _together(sensors: list[Sensor], batteries: int) -> list[Sensor]:
    """Several batteries feed the device together: their powers add up, each with its own sign and state."""
    powers = tuple(sensor.name for sensor in sensors if sensor.total)
    if batteries < 2:
        return sensors
    parts = [replace(sensor, total=False) for sensor in sensors]
    if len(powers) < batteries:
        return parts  # the others' power is not known
    evidence = "the sum of all batteries, each with its own sign, unit and state"
    return [*parts, Sensor("batteries power", "power", "battery", "power_supply", Sum(powers), evidence, total=True)]


def _battery(name: str, folder: str, files: Mapping[str, str]) -> Iterator[Sensor]:
    titles: set[str] = set()
    for kind in _KINDS:
        raw = [number(files.get(file)) for file in kind.files]
        if kind.title in titles or None in raw:
            continue
        if kind.quantity == "temperature" and not warm((raw[0] or 0) * kind.scale):
            continue
        titles.add(kind.title)
        reading = Files(tuple(f"{folder}/{file}" for file in kind.files), kind.scale)
        title = f"{name} {kind.title}"
        yield Sensor(title, kind.quantity, "battery", "power_supply", reading, kind.evidence, kind.total)
    if "status" in files:
        command = f'read -r s < {shlex.quote(f"{folder}/status")}; echo "status $s"'
        evidence = "power_supply ABI: 0 is the status Discharging; Charging, Full and Not charging have a charger"
        yield Sensor(f"{name} charging", "flag", "battery", "power_supply", Asked(command, "charging"), evidence)


SOURCE = PowerSupply()
