"""Joulescope JS110 and JS220 through ``pyjoulescope_driver`` (Apache-2.0), which is imported when one is started."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ....errors import EdgeError
from ..base import Meter, Sensor
from .base import Collector, Reading, supplied, supply

RATE = 50.0
#: Samples a second behind the statistics, and what turns them on.
_SETTINGS: Mapping[str, tuple[float, tuple[tuple[str, object], ...]]] = {
    "js110": (
        2e6,
        (("s/i/range/select", "auto"), ("s/i/ctrl", "on"), ("s/v/ctrl", "on"), ("s/p/ctrl", "on")),
    ),
    "js220": (1e6, (("s/i/range/mode", "auto"),)),
}


class Joulescope:
    """One instrument; the means that it computes itself, 50 a second."""

    def __init__(self, serial: str) -> None:
        evidence = "Joulescope statistics: means in volt and ampere over 20 ms, computed by the driver or instrument"
        self.sensors: tuple[Sensor, ...] = supply("joulescope", evidence)
        self._serial = serial
        self._collector = Collector()
        self._driver: Any = None
        self._device = ""

    def start(self) -> None:
        """Raises EdgeError: the package is missing, no such instrument, or another program has it."""
        try:
            from pyjoulescope_driver import Driver  # type: ignore[import-not-found, unused-ignore]
        except ModuleNotFoundError:
            raise EdgeError(
                "Joulescope needs the Python package 'pyjoulescope_driver', which is not installed",
                hint="pip install pyjoulescope_driver",
            ) from None
        self._driver = Driver()
        try:
            self._device = _chosen(list(self._driver.device_paths()), self._serial)
            self._driver.open(self._device)
            self._measure()
        except RuntimeError as failure:  # all that the driver raises
            self.stop()
            hint = "is it plugged in, are its udev rules there, and is the Joulescope program closed?"
            raise EdgeError(f"Joulescope: {failure}", hint=hint) from None
        except EdgeError:
            self.stop()
            raise

    def taken(self) -> list[Reading]:
        return self._collector.taken()

    def stop(self) -> None:
        driver, self._driver = self._driver, None
        self._collector.stop()
        if driver is not None:
            try:
                if self._device:
                    driver.close(self._device)
                driver.finalize()
            except Exception:  # the run is over: nothing that the driver says now changes it
                pass

    def _measure(self) -> None:
        rate, settings = _SETTINGS[_model(self._device)]
        for topic, value in settings:
            self._driver.publish(f"{self._device}/{topic}", value)
        self._driver.publish(f"{self._device}/s/stats/scnt", round(rate / RATE))
        self._driver.publish(f"{self._device}/s/stats/ctrl", 1)
        self._driver.subscribe(f"{self._device}/s/stats/value", "pub", self._heard)

    def _heard(self, topic: str, value: Mapping[str, Any]) -> None:
        try:
            volts, amperes = (float(value["signals"][name]["avg"]["value"]) for name in ("voltage", "current"))
        except (KeyError, TypeError, ValueError):
            self._collector.fail(EdgeError(f"Joulescope: statistics that are not understood from {topic}"))
            return
        self._collector.add(supplied(volts, amperes), time.monotonic() - 0.5 / RATE)  # a mean stands in the middle


def open_joulescope(serial: str) -> Meter:
    """``joulescope``, or ``joulescope:SERIAL`` where several are attached."""
    return Joulescope(serial.strip())


def _model(device: str) -> str:
    return next((model for model in _SETTINGS if model in device.casefold()), "")


def _chosen(devices: list[str], serial: str) -> str:
    fitting = [device for device in devices if _model(device) and serial.casefold() in device.casefold()]
    if len(fitting) == 1:
        return fitting[0]
    attached = ", ".join(devices) or "none"
    raise EdgeError(f"no Joulescope '{serial}' alone; attached: {attached}", hint="joulescope:SERIAL names one")
