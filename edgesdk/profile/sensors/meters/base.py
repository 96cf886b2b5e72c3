"""What meters share: readings that a thread brings in, on the host's clock, until somebody takes them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from ....errors import EdgeError
from ..base import Metered, Sensor
from ..listed import number

Reading = tuple[float, dict[str, float]]


def supply(source: str, evidence: str) -> tuple[Sensor, ...]:
    """The sensors of a meter that is the only supply of the board."""
    return (
        Sensor("meter voltage", "voltage", "board", source, Metered("voltage"), evidence),
        Sensor("meter current", "current", "board", source, Metered("current"), evidence),
        Sensor("meter power", "power", "board", source, Metered("power"), evidence, total=True),
    )


def supplied(volts: float, amperes: float) -> dict[str, float]:
    """Values of :func:`supply`."""
    return {"meter voltage": volts, "meter current": amperes, "meter power": volts * amperes}


class Clock:
    """A meter's clock put on the host's: a line can come late, but never before it was measured."""

    def __init__(self) -> None:
        self._offset = math.inf
        self._last = -math.inf

    def heard(self, seconds: float, now: float) -> None:
        """What the meter stamped with ``seconds`` arrived ``now``."""
        self._offset = min(self._offset, now - seconds)

    def host(self, seconds: float) -> float:
        """The host's moment, by what came soonest until now; never before one that was given already."""
        self._last = max(self._last, seconds + self._offset)
        return self._last


class Collector:
    """Readings from a thread that runs until it is stopped or fails."""

    def __init__(self) -> None:
        self._readings: list[Reading] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failure: EdgeError | None = None
        self._thread: threading.Thread | None = None

    @property
    def stopped(self) -> threading.Event:
        return self._stopped

    def run(self, work: Callable[[], None], name: str) -> None:
        """Begin a thread that does ``work`` once; whatever it raises is told to who takes."""

        def watched() -> None:
            try:
                work()
            except EdgeError as failure:
                self.fail(failure)
            except (OSError, ValueError, KeyError, TypeError) as failure:
                self.fail(EdgeError(f"{name}: {type(failure).__name__}: {failure}"))

        self._stopped.clear()
        self._thread = threading.Thread(target=watched, name=name, daemon=True)
        self._thread.start()

    def fail(self, failure: EdgeError) -> None:
        with self._lock:
            self._failure = self._failure or failure

    def add(self, values: Mapping[str, float], moment: float | None = None) -> None:
        with self._lock:
            self._readings.append((time.monotonic() if moment is None else moment, dict(values)))

    def taken(self) -> list[Reading]:
        """What came since the last call.

        Raises:
            EdgeError: the work failed, and all that came before it was taken.
        """
        with self._lock:
            readings, self._readings = self._readings, []
            if not readings and self._failure and not self._stopped.is_set():
                raise self._failure
        return readings

    def stop(self) -> None:
        """End the thread's work and wait for it, for a while; never raises."""
        self._stopped.set()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(5)
        with self._lock:  # what was not taken, and why it ended, is nothing to the next start
            self._readings, self._failure = [], None


def parsed_line(line: str) -> tuple[float, float, float] | None:
    """Seconds, volts and amperes of ``seconds,volts,amperes``; None for a title, a remark, or what is cut off."""
    numbers = [number(part) for part in line.split(",")]
    if len(numbers) != 3:
        return None
    seconds, volts, amperes = numbers
    return None if seconds is None or volts is None or amperes is None else (seconds, volts, amperes)
