"""What a sensor is: what it measures, of what, why its unit is believed, and how the sampler on the device reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

Quantity = Literal["temperature", "power", "voltage", "current", "energy", "charge", "frequency", "level", "flag"]
Scope = Literal["board", "rail", "battery", "package", "zone", "core", "device"]
UNITS: Mapping[Quantity, str] = {
    "temperature": "°C",
    "power": "W",
    "voltage": "V",
    "current": "A",
    "energy": "J",
    "charge": "C",
    "frequency": "Hz",
    "level": "",
    "flag": "",
}


@dataclass(frozen=True)
class Files:
    """Small files that hold one number each; the reading is their product times ``scale``.

    A product is what a power is whose chip gives voltage and current apart; both are read within one tick.
    """

    paths: tuple[str, ...]
    scale: float = 1.0


@dataclass(frozen=True)
class Asked:
    """One of the values that a command prints; commands are run less often than files are read, and cost a process.

    Attributes:
        command: a shell command line; sensors with the same one share its run.
        key: of the mapping that the source's ``values`` makes of what it printed.
        scale: to the unit of the quantity.
        every: seconds between two runs, at least.
    """

    command: str
    key: str
    scale: float = 1.0
    every: float = 1.0


@dataclass(frozen=True)
class Sum:
    """The sum of other sensors of the same device, by name; missing where one of them is."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Metered:
    """What an external meter gives by itself; its source's ``meter`` opens it."""

    channel: str


Reading = Files | Asked | Sum | Metered


@dataclass(frozen=True)
class Sensor:
    """One thing that is measured while a model runs. Values are in the unit of :data:`UNITS`.

    Attributes:
        name: as the device calls it, unique on the device: ``VDD_IN``, ``cpu-thermal``, ``policy4``.
        quantity: what it measures.
        scope: of what: the whole board or a rail, the battery (before the rails), a package, a thermal zone.
        source: the module that found it.
        reading: how it is read.
        evidence: why unit and sign are believed, in one sentence.
        total: whether it holds all that its scope spends, so that energy is computed from it; rails overlap.
        limit: from where the device holds back, in the sensor's unit: a passive trip, the largest clock.
        critical: from where the device shuts down.
        wraps_at: where a counter starts again from 0.
        rests: whether it says nothing while its part has no power, which is no failure.
    """

    name: str
    quantity: Quantity
    scope: Scope
    source: str
    reading: Reading
    evidence: str
    total: bool = False
    limit: float | None = None
    critical: float | None = None
    wraps_at: float | None = None
    rests: bool = False

    @property
    def unit(self) -> str:
        return UNITS[self.quantity]


class Source(Protocol):
    """One kind of sensors on devices with a shell: how they are found, by name and never by number.

    Attributes:
        name: of the source.
        listing: POSIX shell that prints what :meth:`found` needs, quickly, and nothing where there are none.
    """

    name: str
    listing: str

    def found(self, text: str) -> list[Sensor]:
        """The sensors, from what ``listing`` printed; lines that are not understood are passed over."""

    def values(self, text: str) -> dict[str, float]:
        """Values by key, from what a command of an :class:`Asked` reading printed; what is no value is left out."""


@dataclass(frozen=True)
class Remark:
    """What keeps a device from saying more, with the way out; ``code`` as in :mod:`..reasons`."""

    code: str
    text: str


@runtime_checkable
class Remarking(Protocol):
    """A source that knows of sensors which cannot be read."""

    def remarks(self, text: str) -> list[Remark]:
        """What is there and cannot be read, from what ``listing`` printed."""


class Meter(Protocol):
    """An external meter that runs beside the device, on the host's clock."""

    sensors: tuple[Sensor, ...]

    def start(self) -> None:
        """Begin to measure.

        Raises:
            EdgeError: the meter is not there, or another program has it.
        """

    def taken(self) -> list[tuple[float, dict[str, float]]]:
        """What came since the last call: host's ``time.monotonic()`` and values by sensor name.

        Raises:
            EdgeError: the meter is gone.
        """

    def stop(self) -> None:
        """Let go of it; never raises."""
