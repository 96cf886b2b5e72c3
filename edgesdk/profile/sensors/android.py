"""Android: the thermal service, the battery service, and the power rails of Pixel phones (ODPM); no root.

Format: ThermalManagerService.java and BatteryService.java of AOSP, the Pixel's power statistics HAL; what vendors do of
their own is in the tests' recordings.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .base import Asked, Quantity, Sensor
from .listed import number, warm

THERMAL: Final = "dumpsys thermalservice < /dev/null"
BATTERY: Final = "dumpsys battery < /dev/null"
CURRENT: Final = 'echo "current_now $(cmd battery get current_now < /dev/null)"'
_ODPM = "/sys/bus/iio/devices/iio:device*/energy_value"

_HAL = "Current temperatures from HAL"
_FIELD = r"\s*[=:]\s*([^,}\]]{1,80})"
_ROW = re.compile(r"^\s*Temperature\{(.{1,400})\}\s*$")
_THRESHOLD = re.compile(
    r"Threshold\{.{0,80}?name" + _FIELD + r".{0,40}?hotThrottlingThresholds\s*=\s*\[([^\]]{1,200})\]", re.IGNORECASE
)
_STATUS = re.compile(r"^\s*(?:Current )?Thermal Status:\s*([0-6])\s*$", re.IGNORECASE)
_RAIL = re.compile(r"^\s*CH\d{1,4}\([^)]{0,40}\)\[([^\]]{1,64})\],\s*(\d{1,20})\s*$", re.ASCII)
_BATTERY_TITLE = "current battery service state"
_FROZEN = "updates stopped"
#: What is no temperature, though the thermal HAL lists it as one: limiters of current and voltage, a difference.
_OTHER_NAME = re.compile(r"^(soft_)?ocp|vdroop|^(ibat|vbat|bcl)|batoilo|^soc(d)?$|uvlo|minus", re.IGNORECASE)
_OTHER_TYPES = (6, 7, 8)  # BCL_VOLTAGE, BCL_CURRENT, BCL_PERCENTAGE in AOSP; some vendors count otherwise
_KINDS = "cpu|gpu|battery|skin|usb_port|power_amplifier|npu|tpu|dsp"
_BATTERY_STATUS = {2.0: 1.0, 3.0: 0.0, 4.0: 1.0, 5.0: 1.0}
_NO_CURRENT = (0.0, -(2.0**31), -(2.0**63))


@dataclass(frozen=True)
class _Line:
    """One line of the battery service, told by its exact name: vendors add others that look alike."""

    label: str
    key: str
    quantity: Quantity
    scale: float
    lowest: float
    highest: float
    evidence: str


_LINES = (
    _Line("voltage", "battery voltage", "voltage", 1e-3, 2.0, 30.0, "BatteryService: voltage is in millivolt"),
    _Line("temperature", "battery temperature", "temperature", 0.1, -40, 150, "BatteryService: tenths of a degree"),
    _Line("level", "battery level", "level", 0.01, 0, 1, "BatteryService: level is in percent"),
    _Line("Charge counter", "battery charge", "charge", 3.6e-3, 1e-9, 1e6, "BatteryService: Charge counter is in µAh"),
)


class Android:
    """What ``dumpsys`` and Pixel's energy meter say."""

    name = "android"
    listing = (
        "IFS=\n"
        "if command -v dumpsys > /dev/null; then\n"
        f"    {THERMAL}\n    {BATTERY}\n"
        '    [ -r "${root-}/sys/class/power_supply/battery/current_now" ] || '
        f"{CURRENT}\n"
        "fi\n"
        f"for file in ${{root-}}{_ODPM}; do\n"
        '    if [ -r "$file" ]; then\n'
        '        echo "@odpm $file"\n'
        '        while read -r line; do echo "$line"; done < "$file"\n'
        "    fi\n"
        "done\n"
    )

    def found(self, text: str) -> list[Sensor]:
        energy = "ODPM: energy_value is in µWs, cumulative since boot; rails are behind the battery and overlap"
        rails = [
            Sensor(rail, "energy", "rail", self.name, Asked(_odpm_command(text), rail), energy) for rail in _rails(text)
        ]
        return [*_thermal(text), *_battery(text), *rails]

    def values(self, text: str) -> dict[str, float]:
        """In the units of the quantities: what any one of the commands printed."""
        heat = {_heat_key(name): celsius for name, celsius in _temperatures(text).items()}
        status = _status(text)
        level = {} if status is None else {"thermal status": status}
        return heat | level | _battery_values(text) | _rails(text)


def _thermal(text: str) -> Iterator[Sensor]:
    thresholds = _thresholds(text)
    for name in _temperatures(text):
        limit, critical = thresholds.get(name.casefold(), (None, None))
        yield Sensor(
            name,
            "temperature",
            "battery" if _kind(name) == "battery" else "zone",
            "android",
            Asked(THERMAL, _heat_key(name)),
            f"thermal HAL: degrees Celsius; by its name a sensor of {_kind(name)}",
            limit=limit,
            critical=critical,
        )
    if _status(text) is not None:
        reading = Asked(THERMAL, "thermal status")
        evidence = "PowerManager: 0 none, 1 light, 2 moderate, 3 severe, 4 critical, 5 emergency, 6 shutdown"
        yield Sensor("thermal status", "level", "device", "android", reading, evidence, limit=1.0, critical=6.0)


def _battery(text: str) -> Iterator[Sensor]:
    values = _battery_values(text)
    for line in _LINES:
        if line.key in values:
            reading = Asked(BATTERY, line.key)
            yield Sensor(line.key, line.quantity, "battery", "android", reading, line.evidence)
    for key, evidence in (
        ("battery charging", "BatteryService: 0 is status 3, discharging; charging, full and not charging are 1"),
        ("battery powered", "BatteryService: 1 where any of the lines '... powered' is true"),
    ):
        if key in values:
            yield Sensor(key, "flag", "battery", "android", Asked(BATTERY, key), evidence)
    if "battery current" in values:
        evidence = "BatteryManager documents microampere; the sign, and on many phones the unit, is the vendor's"
        yield Sensor("battery current", "current", "battery", "android", Asked(CURRENT, "battery current"), evidence)
    if "battery power" in values:
        evidence = "BatteryService's millivolt times BatteryManager's current, whose sign and unit are to be confirmed"
        both = Asked(f"{BATTERY}; {CURRENT}", "battery power")
        yield Sensor("battery power", "power", "battery", "android", both, evidence, total=True)


def _temperatures(text: str) -> dict[str, float]:
    """By name, of the block that the HAL was asked for just now; the cached block can be hours old."""
    found: dict[str, float] = {}
    inside = False
    for line in text.splitlines():
        row = _ROW.match(line)
        if row is None:
            inside = line.strip().casefold().startswith(_HAL.casefold()) or (inside and not line.strip())
        elif inside:
            name, value, kind = (_field(row[1], field) for field in ("Name", "Value", "Type"))
            celsius = number(value)
            if name and celsius and warm(celsius) and not _other(name, number(kind)):
                found.setdefault(name, celsius)  # exactly 0 is a sensor that is not fitted; some list a row twice
    return found


def _field(row: str, name: str) -> str | None:
    match = re.search(rf"\bm?{name}{_FIELD}", row, re.IGNORECASE)
    return match[1].strip() if match else None


def _other(name: str, kind: float | None) -> bool:
    return bool(_OTHER_NAME.search(name)) or (kind in _OTHER_TYPES and _kind(name) == "other")


def _kind(name: str) -> str:
    """What a sensor is of: by its name, since vendors count types differently."""
    word = name.casefold()
    if match := re.search(_KINDS, word.removeprefix("type_")):
        return match[0]
    for kind, pattern in (
        ("skin", r"shell|case|quiet|lr[bfp]$"),
        ("battery", r"(^|[^a-z])(sub)?bat"),
        ("cpu", r"^(ap|soc|big|mid|little|lit)\b|tsens"),
        ("power_amplifier", r"^pa\b|pa[-_]therm"),
    ):
        if re.search(pattern, word):
            return kind
    return "other"


def _heat_key(name: str) -> str:
    return f"temperature {name}"


def _thresholds(text: str) -> dict[str, tuple[float | None, float | None]]:
    """Lowest threshold and that of shutdown, by name in small letters; NaN where there is none."""
    found = {}
    for line in text.splitlines():
        if match := _THRESHOLD.search(line[:1000]):
            numbers = [number(part) for part in match[2].split(",")]
            limits = [value for value in numbers if warm(value)]
            shutdown = numbers[6] if len(numbers) > 6 and warm(numbers[6]) else None
            found[match[1].strip().casefold()] = (limits[0] if limits else None, shutdown)
    return found


def _status(text: str) -> float | None:
    return next((float(match[1]) for match in map(_STATUS.match, text.splitlines()) if match), None)


def _battery_values(text: str) -> dict[str, float]:
    lines, frozen = _battery_lines(text)
    values = {} if frozen else _believed(lines)  # frozen: somebody's `dumpsys battery unplug`, not the battery
    asked = next((number(line[12:]) for line in text.splitlines() if line.startswith("current_now ")), None)
    if asked is not None and asked not in _NO_CURRENT:
        values["battery current"] = asked * 1e-6
        if "battery voltage" in values:
            values["battery power"] = values["battery voltage"] * values["battery current"]
    return values


def _believed(lines: dict[str, str]) -> dict[str, float]:
    values: dict[str, float] = {}
    for line in _LINES:
        raw = number(lines.get(line.label))
        if raw is not None and line.lowest <= raw * line.scale <= line.highest:
            values[line.key] = raw * line.scale
    charging = _BATTERY_STATUS.get(number(lines.get("status")) or 0)
    if charging is not None:
        values["battery charging"] = charging
    powered = [value for label, value in lines.items() if label.endswith(" powered") and value in ("true", "false")]
    if powered:
        values["battery powered"] = float("true" in powered)
    return values


def _battery_lines(text: str) -> tuple[dict[str, str], bool]:
    """The battery service's lines, the first of each name, and whether somebody froze them."""
    found: dict[str, str] = {}
    inside = frozen = False
    for line in text.splitlines():
        label, colon, value = line.partition(":")
        if label.strip().casefold() == _BATTERY_TITLE:
            inside = True
        elif inside and _FROZEN in line.casefold():
            frozen = True
        elif inside and colon:
            found.setdefault(label.strip(), value.strip())
    return found, frozen


def _rails(text: str) -> dict[str, float]:
    """Joules by rail; the name in brackets, since channels are numbered differently from phone to phone."""
    return {match[1]: float(match[2]) * 1e-6 for match in map(_RAIL.match, text.splitlines()) if match}


def _odpm_command(text: str) -> str:
    paths = [line.partition(" ")[2].strip() for line in text.splitlines() if line.startswith("@odpm ")]
    return f"cat {shlex.join(paths)} < /dev/null" if paths else f"cat {_ODPM} < /dev/null"


SOURCE = Android()
