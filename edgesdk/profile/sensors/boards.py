"""What boards are known for, as data (``boards.toml``): rails that hold all that is spent, zones without a sensor."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ...documents import read_toml
from ...errors import EdgeError
from ...schema import load
from .base import Sensor, Sum

_FILE = Path(__file__).with_name("boards.toml")
_UNCONNECTED = re.compile(r"(?:^|_)NC\d{0,2}(?:_|$)")


@dataclass(frozen=True)
class Total:
    """Rails that hold all that some boards spend: one, or several that do not overlap."""

    boards: str
    rails: tuple[str, ...]
    why: str
    source: str
    name: str | None = None


@dataclass(frozen=True)
class Placeholder:
    """What zones whose names begin so say where they have no sensor, in °C."""

    zone: str
    says: tuple[float, ...]
    source: str


@dataclass(frozen=True)
class Said:
    """Temperatures that are none, in °C."""

    says: tuple[float, ...]
    source: str


@dataclass(frozen=True)
class Boards:
    """All that is known."""

    checked: str
    total: tuple[Total, ...]
    placeholder: tuple[Placeholder, ...]
    constant: tuple[Said, ...]
    gated: tuple[Said, ...]


@cache
def known() -> Boards:
    """What ``boards.toml`` says."""
    data = read_toml(_FILE, EdgeError)
    return load(Boards, data | {"checked": str(data["checked"])}, _FILE.name)


def with_total(rails: list[Sensor], source: str) -> list[Sensor]:
    """Mark the rail that holds all that the board spends, or put a sum beside the rails; they overlap otherwise."""
    powers = {rail.name for rail in rails if rail.quantity == "power"}
    total = next((each for each in known().total if powers.issuperset(each.rails)), None)
    if total is None:
        return rails
    if total.name is not None:
        return [*rails, Sensor(total.name, "power", "board", source, Sum(total.rails), total.why, total=True)]
    (alone,) = total.rails
    return [
        replace(rail, scope="board", total=True, evidence=f"{rail.evidence}; {total.why}")
        if rail.quantity == "power" and rail.name == alone
        else rail
        for rail in rails
    ]


def connected(label: str) -> bool:
    """Whether a rail's label names something: NC is a channel that is not connected."""
    return bool(label) and not _UNCONNECTED.search(label)


def is_placeholder(zone: str, celsius: float) -> bool:
    """Whether a zone of this name that says this has no sensor."""
    return any(zone.casefold().startswith(each.zone) and celsius in each.says for each in known().placeholder)


def is_gated(celsius: float) -> bool:
    """Whether a zone that says this is a sensor whose part has no power now."""
    return _among(celsius, known().gated)


def is_constant(celsius: float) -> bool:
    """Whether zones without a sensor are known to say this for ever; real ones may say it for a while."""
    return _among(celsius, known().constant)


def _among(celsius: float, said: Iterable[Said]) -> bool:
    return any(celsius in each.says for each in said)
