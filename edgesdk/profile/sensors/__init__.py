"""Sensors: one module for each kind, found by name in one pass of shell, best source first."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count

from ...registry import Registry
from .base import Files, Remark, Remarking, Sensor, Source, Sum

SOURCES: Registry[Source] = Registry(
    "source of sensors",
    "edgesdk.sensors",
    {
        name: f"edgesdk.profile.sensors.{name}:SOURCE"
        for name in (
            "android",
            "cpufreq",
            "hwmon",
            "jetson",
            "load",
            "power_supply",
            "rapl",
            "raspberry",
            "thermal_zones",
        )
    },
)
#: Of two sources that have the same sensor, the first is taken: files before commands, those with limits before those
#: without. Sources of other packages come after these.
_BEST_FIRST = (
    "power_supply",
    "thermal_zones",
    "jetson",
    "hwmon",
    "cpufreq",
    "rapl",
    "android",
    "raspberry",
    "load",
)
_FRAME = "@source "
_END = "@end"


def listing() -> str:
    """One POSIX shell script that lists what all sources find; one that fails, even to parse, harms no other.

    ``$root``, where set, goes before the paths of files.
    """
    parts = [
        f"echo '{_FRAME}{name}'\n( eval {shlex.quote(SOURCES.get(name).listing)} ) 2> /dev/null < /dev/null\n"
        for name in _names()
    ]
    return f"{''.join(parts)}echo '{_END}'\n"


def discovered(text: str) -> list[Sensor]:
    """The sensors of all sources, each once and each with a name of its own, from what :func:`listing` printed."""
    sections = _sections(text)
    kept: list[Sensor] = []
    for name in _names():
        found = SOURCES.get(name).found(sections[name]) if name in sections else []
        kept = _limited(kept, found) + _new(kept, found)
    return kept


def remarked(text: str) -> list[Remark]:
    """What is there and cannot be read, from what :func:`listing` printed."""
    sections = _sections(text)
    found: list[Remark] = []
    for name in _names():
        source = SOURCES.get(name)
        if isinstance(source, Remarking) and name in sections:
            found += source.remarks(sections[name])
    return found


def values(source: str, text: str) -> dict[str, float]:
    """Values by key, from what a command of one source printed.

    Raises:
        EdgeError: no such source.
    """
    return SOURCES.get(source).values(text)


def _names() -> list[str]:
    names = SOURCES.names()
    return [*(name for name in _BEST_FIRST if name in names), *(name for name in names if name not in _BEST_FIRST)]


def _sections(text: str) -> dict[str, str]:
    """Text by source; a last line without its end was cut off, and a cut number is another number."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith(_FRAME):
            lines = sections.setdefault(line[len(_FRAME) :].strip(), [])
        elif line.strip() == _END:
            lines = []
        elif line.endswith("\n"):
            lines.append(line)
    return {name: "".join(lines) for name, lines in sections.items()}


def _new(kept: list[Sensor], found: Iterable[Sensor]) -> list[Sensor]:
    """Those of one source that no better one has, with names that nobody has."""
    files = {(sensor.quantity, path) for sensor in kept for path in _paths(sensor)}
    known = {(sensor.quantity, _bare(sensor)) for sensor in kept}
    names = {sensor.name for sensor in kept}
    called: dict[tuple[str, str], str] = {}
    new = []
    for sensor in found:
        if (sensor.quantity, _bare(sensor)) in known or any(
            (sensor.quantity, path) in files for path in _paths(sensor)
        ):
            continue
        name = next(name for name in _candidates(sensor) if name not in names)
        names.add(name)
        called.setdefault((sensor.quantity, sensor.name), name)
        new.append(replace(sensor, name=name))
    return [_following(sensor, called) for sensor in new]


def _candidates(sensor: Sensor) -> Iterator[str]:
    yield sensor.name
    yield f"{sensor.name} {sensor.quantity}"
    yield f"{sensor.name} ({sensor.source})"
    yield from (f"{sensor.name} ({sensor.source} {index})" for index in count(2))


def _following(sensor: Sensor, called: Mapping[tuple[str, str], str]) -> Sensor:
    """A sum whose parts were given other names follows them."""
    if not isinstance(sensor.reading, Sum):
        return sensor
    return replace(
        sensor, reading=Sum(tuple(called.get((sensor.quantity, name), name) for name in sensor.reading.names))
    )


def _limited(kept: Iterable[Sensor], found: Iterable[Sensor]) -> list[Sensor]:
    """Those that have no limits get what another source knows of the same sensor."""
    known = {(sensor.quantity, _bare(sensor)): sensor for sensor in found}
    limited = []
    for sensor in kept:
        other = known.get((sensor.quantity, _bare(sensor)))
        if other is not None and sensor.limit is None and sensor.critical is None:
            sensor = replace(sensor, limit=other.limit, critical=other.critical)
        limited.append(sensor)
    return limited


def _paths(sensor: Sensor) -> tuple[str, ...]:
    return sensor.reading.paths if isinstance(sensor.reading, Files) else ()


def _bare(sensor: Sensor) -> str:
    """A name without what sources write differently: ``cpu-thermal`` and ``cpu_thermal`` are one zone."""
    bare = re.sub(r"[^a-z0-9]", "", sensor.name.casefold())
    return bare.removesuffix(sensor.quantity) or bare
