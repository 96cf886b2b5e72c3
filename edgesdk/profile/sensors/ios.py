"""iPhones and iPads: the battery's registry once a second, through go-ios or pymobiledevice3 called as programs.

Format: the IORegistry entry ``IOPMPowerSource``: mA (negative while discharging), mV, hundredths of a degree Celsius;
the current can come back as an unsigned number of 64 bits.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...devices.hosts import check_word
from ...documents import parse_json
from ...errors import EdgeError
from .base import Meter, Metered, Quantity, Sensor
from .listed import number, warm
from .meters.base import Collector, Reading

PERIOD = 1.0
THERMAL_STATES: Mapping[str, float] = {"nominal": 0.0, "fair": 1.0, "serious": 2.0, "critical": 3.0}
_GIVE_UP = 3
_PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "ios": ("batteryregistry",),  # go-ios
    "pymobiledevice3": ("diagnostics", "battery", "single"),
}
_UDID: Mapping[str, tuple[str, ...]] = {"ios": ("--udid={}",), "pymobiledevice3": ("--udid", "{}")}


@dataclass(frozen=True)
class _Kind:
    name: str
    quantity: Quantity
    evidence: str
    total: bool = False


_KINDS = (
    _Kind("battery current", "current", "battery registry: InstantAmperage in mA, negative while discharging"),
    _Kind("battery voltage", "voltage", "battery registry: Voltage in mV"),
    _Kind("battery power", "power", "battery registry: minus mA times mV, positive while discharging", total=True),
    _Kind("battery temperature", "temperature", "battery registry: Temperature in hundredths of a degree Celsius"),
    _Kind("battery charging", "flag", "battery registry: IsCharging"),
    _Kind("battery powered", "flag", "battery registry: ExternalConnected"),
)


class IosBattery:
    """The battery of one device; before the rails, and of no use while it charges."""

    def __init__(self, udid: str = "", called: Callable[[Sequence[str]], str] | None = None) -> None:
        self.sensors = tuple(
            Sensor(kind.name, kind.quantity, "battery", "ios", Metered(kind.name), kind.evidence, kind.total)
            for kind in _KINDS
        )
        self._udid = udid
        self._called = called or _run
        self._collector = Collector()

    def start(self) -> None:
        """Raises EdgeError: neither program is installed, or the device does not answer."""
        command = _command(self._udid)
        self._read(command)

        def follow() -> None:
            failures = 0
            while not self._collector.stopped.wait(PERIOD):
                try:
                    self._read(command)
                    failures = 0
                except EdgeError:
                    failures += 1
                    if failures == _GIVE_UP:
                        raise

        self._collector.run(follow, "ios battery")

    def taken(self) -> list[Reading]:
        return self._collector.taken()

    def stop(self) -> None:
        self._collector.stop()

    def _read(self, command: Sequence[str]) -> None:
        before = time.monotonic()
        values = battery_values(self._called(command))
        if not values:
            raise EdgeError(
                f"{command[0]}: its answer has no battery in it", hint="unlock the device and trust this host"
            )
        self._collector.add(values, (before + time.monotonic()) / 2)


def open_ios(udid: str) -> Meter:
    """``ios`` or ``ios:UDID``."""
    if udid.strip():
        check_word(udid.strip(), "UDID")
    return IosBattery(udid.strip())


def battery_values(text: str) -> dict[str, float]:
    """Values by sensor, from the JSON of either program; what is not there, or is no value, is left out."""
    try:
        registry = _registry(parse_json(text, "what the phone says"))
    except EdgeError:
        return {}
    values: dict[str, float] = {}
    milliampere, millivolt = _signed(registry.get("InstantAmperage")), _plain(registry.get("Voltage"))
    if milliampere is not None:
        values["battery current"] = milliampere / 1000
    if millivolt is not None and millivolt > 0:
        values["battery voltage"] = millivolt / 1000
        if milliampere is not None:
            values["battery power"] = -milliampere * millivolt / 1e6
    celsius = _plain(registry.get("Temperature"))
    if celsius is not None and warm(celsius / 100):
        values["battery temperature"] = celsius / 100
    for name, key in (("battery charging", "IsCharging"), ("battery powered", "ExternalConnected")):
        if isinstance(registry.get(key), bool):
            values[name] = float(registry[key])
    return values


def thermal_state(word: str) -> float | None:
    """``ProcessInfo.thermalState`` as a level: nominal 0, fair 1, serious 2, critical 3."""
    return THERMAL_STATES.get(word.strip().casefold().rpartition(".")[2])


def _registry(data: Any) -> dict[str, Any]:
    """The dictionary that has the battery's keys, wherever the program put it."""
    waiting = [data]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, dict):
            if "InstantAmperage" in one or "IsCharging" in one:
                return one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return {}


def _plain(value: object) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else number(str(value))


def _signed(value: object) -> float | None:
    """A current that was negative before somebody read its bits as an unsigned number of 64, 32 or 16 bits."""
    plain = _plain(value)
    if plain is None or not isinstance(value, int):
        return plain
    for bits in (16, 32, 64):
        if 1 << (bits - 1) <= value < 1 << bits and (bits == 16 or value >= (1 << bits) - (1 << 20)):
            return float(value - (1 << bits))
    return plain if abs(plain) < 1 << 15 else None


def _command(udid: str) -> list[str]:
    for program, words in _PROGRAMS.items():
        if found := shutil.which(program):
            return [found, *words, *(word.format(udid) for word in (_UDID[program] if udid else ()))]
    raise EdgeError(
        "the battery of iOS devices needs go-ios or pymobiledevice3, and neither is installed",
        hint="npm install -g go-ios, or pipx install pymobiledevice3",
    )


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise EdgeError(f"{command[0]}: {failure}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise EdgeError(f"{command[0]} failed: {said[-1] if said else f'status {done.returncode}'}")
    return done.stdout
