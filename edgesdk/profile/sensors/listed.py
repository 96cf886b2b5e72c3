"""What sources share: shell that prints small files without starting a program, and the reading of what it printed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace

from .base import Sensor

COLDEST, HOTTEST = -40.0, 150.0
"""Temperatures at or beyond these are what drivers give for a sensor that is off, not heat."""


def shown(*patterns: str) -> str:
    """Shell that prints ``PATH=VALUE`` for every file that a pattern matches and this user can read.

    Only shell built-ins: a phone has a thousand such files. ``$root``, where set, goes before the paths.
    """
    # an empty IFS keeps even a root with blanks whole
    listed = " ".join(f"${{root-}}{pattern}" for pattern in patterns)
    return (
        "IFS=\n"
        f"for file in {listed}; do\n"
        "    value=\n"
        '    [ -r "$file" ] && read -r value < "$file"\n'
        '    [ -n "$value" ] && echo "$file=$value"\n'
        "done\n"
    )


def folders(text: str) -> dict[str, dict[str, str]]:
    """Folder to file name to first line, from what :func:`shown` printed; folders in the order of their numbers."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        path, equals, value = line.strip().partition("=")
        folder, slash, name = path.rpartition("/")
        if equals and slash and value.strip():
            found.setdefault(folder, {})[name] = value.strip()
    return {folder: found[folder] for folder in sorted(found, key=_natural)}


def number(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def numbered(files: Iterable[str], pattern: str) -> list[int]:
    """The numbers for which there is a file whose whole name matches ``pattern``, which has one group."""
    return sorted(int(match[1]) for match in (re.fullmatch(pattern, name, re.ASCII) for name in files) if match)


def warm(celsius: float | None) -> bool:
    """Whether it can be a temperature: no sentinel such as -273, -256 or -99.9, and no other quantity."""
    return celsius is not None and COLDEST < celsius < HOTTEST


def counted(sensors: Iterable[Sensor]) -> list[Sensor]:
    """The same sensors with ``2``, ``3`` after names that others of their quantity had before."""
    taken: set[tuple[str, str]] = set()
    named = []
    for sensor in sensors:
        name, count = sensor.name, 1
        while (sensor.quantity, name) in taken:
            count += 1
            name = f"{sensor.name} {count}"
        taken.add((sensor.quantity, name))
        named.append(replace(sensor, name=name))
    return named


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", text)]
