"""Raspberry Pi: the power chip of the Pi 5, and what the firmware says of heat and supply.

Format: documentation of vcgencmd: ``pmic_read_adc`` (about 23 ms a call), ``get_throttled``, ``measure_temp``.
"""

from __future__ import annotations

import math
import re
from typing import Final

from .base import Asked, Sensor
from .listed import warm

POWER: Final = "vcgencmd pmic_read_adc < /dev/null"
THROTTLED: Final = "vcgencmd get_throttled < /dev/null"
TEMPERATURE: Final = "vcgencmd measure_temp < /dev/null"
TOTAL: Final = "PMIC rails"
#: Bits of get_throttled; 16 more is the same since boot.
BITS: Final = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}

_RAIL = re.compile(
    r"^\s*(\w{1,40})_([AV])\s+(?:current|volt)\(\d{1,4}\)=(-?(?:nan|\d{1,6}(?:\.\d{1,12})?))[AV]\s*$",
    re.IGNORECASE | re.ASCII,
)
_BITS = re.compile(r"\bthrottled=0x([0-9a-f]{1,8})\b", re.IGNORECASE)
_HEAT = re.compile(r"\btemp=(-?\d{1,4}(?:\.\d{1,6})?)'C")
_PRODUCT = "vcgencmd pmic_read_adc: volt times ampere of one rail of the power chip"
_SUM = "sum of volt times ampere of every rail that has both; conversion loss and USB ports are not included"


class Raspberry:
    """Boards whose firmware answers vcgencmd."""

    name = "raspberry"
    listing = f"if command -v vcgencmd > /dev/null; then\n    {POWER}\n    {THROTTLED}\n    {TEMPERATURE}\nfi\n"

    def found(self, text: str) -> list[Sensor]:
        values = self.values(text)
        sensors = [Sensor(rail, "power", "rail", self.name, Asked(POWER, rail), _PRODUCT) for rail in _rails(text)[0]]
        if TOTAL in values:
            sensors.append(
                Sensor(TOTAL, "power", "board", self.name, Asked(POWER, TOTAL, every=0.25), _SUM, total=True)
            )
        if "SoC" in values:
            evidence = "vcgencmd measure_temp: degrees Celsius"
            sensors.append(Sensor("SoC", "temperature", "zone", self.name, Asked(TEMPERATURE, "SoC"), evidence))
        for bit, name in BITS.items():
            for key, at in ((name, bit), (f"{name} since boot", bit + 16)):
                if key in values:
                    evidence = f"vcgencmd get_throttled: bit {at}"
                    sensors.append(Sensor(key, "flag", "device", self.name, Asked(THROTTLED, key), evidence))
        return sensors

    def values(self, text: str) -> dict[str, float]:
        """Watts by rail and of all, degrees Celsius, flags: what any one of the commands printed."""
        rails, whole = _rails(text)
        values = rails | ({TOTAL: sum(rails.values())} if rails and whole else {})
        if match := _HEAT.search(text):
            values |= {"SoC": float(match[1])} if warm(float(match[1])) else {}
        if match := _BITS.search(text):
            word = int(match[1], 16)
            for bit, name in BITS.items():
                values[name] = float(word >> bit & 1)
                values[f"{name} since boot"] = float(word >> (bit + 16) & 1)
        return values


def _rails(text: str) -> tuple[dict[str, float], bool]:
    """Watts by rail, and whether none of them is missing: without one, the sum would be too low."""
    read: dict[str, dict[str, float]] = {}
    for match in map(_RAIL.match, text.splitlines()):
        if match:
            read.setdefault(match[1], {})[match[2].upper()] = float(match[3])
    both = {rail: (parts["V"], parts["A"]) for rail, parts in read.items() if len(parts) == 2}
    watts = {rail: 0.0 if 0.0 in pair else math.prod(pair) for rail, pair in both.items()}
    good = {rail: value for rail, value in watts.items() if math.isfinite(value)}
    halves = any("A" in parts and "V" not in parts for parts in read.values())  # cut off: a current has its voltage
    return good, len(good) == len(watts) and not halves


SOURCE = Raspberry()
