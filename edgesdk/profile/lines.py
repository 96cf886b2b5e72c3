"""The lines of a record, with types: what is read back from a file is checked before anything is derived from it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, TypeAlias

from annotated_types import Ge, Gt, Len, Lt
from typing_extensions import NotRequired, TypedDict

from ..devices.runner.events import Count
from ..schema import load_open
from .schema import BundleFacts, DeviceFacts, Plan, ProfileError, SensorFacts

Seconds: TypeAlias = Annotated[float, Gt(-1e12), Lt(1e12)]
Pair: TypeAlias = Annotated[list[float | None], Len(2, 2)]


class Raw(TypedDict):
    """How a sensor is read: where its counter starts again, or whose sum it is."""

    name: str
    wraps_at: Annotated[float, Gt(0)] | None
    parts: list[str]
    rests: NotRequired[bool]


class Remarked(TypedDict):
    """What kept the device from saying more."""

    code: str
    text: str


class Header(TypedDict):
    """The first line: what must be the same for a run to go on, and what was known before it."""

    key: str
    version: int
    bundle: BundleFacts
    device: DeviceFacts
    plan: Plan
    started: str
    sensors: list[SensorFacts]
    raw: list[Raw]
    regime: dict[str, str] | None
    commit: NotRequired[str | None]
    paired: NotRequired[str | None]
    remarks: NotRequired[list[Remarked]]


class Samples(TypedDict):
    """What sensors of one clock said."""

    moments: dict[str, list[Seconds]]
    values: dict[str, list[float | None]]


class Moment(TypedDict):
    """The runner's clocks, in nanoseconds, and the host's before and after."""

    at: Count
    boottime: Count | None
    host: Annotated[list[Seconds], Len(2, 2)]


class Step(TypedDict):
    """An event of an answer, with the moment of its arrival where the runner says none."""

    event: str
    ticks: NotRequired[Count | None]
    sample_ticks: NotRequired[Count]
    at: NotRequired[Count]
    host: NotRequired[Seconds]


class Cooled(TypedDict):
    """The wait before a repeat."""

    seconds: Seconds
    hottest: float | None
    ignored: NotRequired[list[str]]


class Said(TypedDict):
    """Of what the runner, or an app, said of itself, all that is read."""

    ticks_per_second: NotRequired[Count]
    emulated: NotRequired[bool | Count]
    ram: NotRequired[Count]
    clock: NotRequired[str | None]


class Line(TypedDict):
    """Any line after the header."""

    key: str
    clock: NotRequired[Moment | None]
    samples: NotRequired[dict[str, Samples | None] | None]
    regime: NotRequired[dict[str, str] | None]
    uncertainty: NotRequired[float | None]
    lost: NotRequired[str | None]
    hello: NotRequired[Said]


class Used(TypedDict):
    """What the processors did."""

    seconds: Annotated[float, Gt(0)]
    foreign: Annotated[float, Ge(0)]
    wanted: Annotated[float, Ge(0)]
    stolen: Annotated[float, Ge(0)]
    count: Annotated[int, Gt(0)]


class Start(Line):
    """The device before the runner's first start."""

    used: Used | None


class Load(Line):
    """A start of the runner."""

    seconds: Annotated[float, Ge(0)] | None


class Repeat(Line):
    """One prompt and its answer."""

    length: Annotated[int, Gt(0)]
    threads: Count | None
    index: Count
    events: list[Step]
    started: NotRequired[Seconds | None]
    jump: NotRequired[bool | float | None]
    cooled: NotRequired[Cooled | None]
    used: NotRequired[Used | None]


class Cost(Line):
    """What the sampler costs."""

    pairs: list[Pair]
    cpu: Annotated[list[float], Len(2, 2)] | None


class Operator(TypedDict):
    """One kind of operator, timed."""

    operator: str
    phase: str
    calls: Annotated[float, Ge(0)]
    seconds: Annotated[float, Ge(0)]


class Operators(Line):
    """All operators, or why they were not timed."""

    rows: list[Operator]
    reason: NotRequired[str | None]


class Memory(Line):
    """What the kernel said of the runner's memory."""

    looks: dict[str, str | None]
    done: dict[str, Any]


class Failed(Line):
    """How a session ended early."""

    code: str
    text: str


_KINDS: Mapping[str, Any] = {
    "header": Header,
    "start": Start,
    "load": Load,
    "repeat": Repeat,
    "sustained": Repeat,
    "part": Repeat,
    "cost": Cost,
    "operators": Operators,
    "memory": Memory,
    "failed": Failed,
}


def checked(line: dict[str, Any], where: str) -> dict[str, Any]:
    """The line, if all that is read of it is of the types above.

    Raises:
        ProfileError: it is not.
    """
    kind = str(line.get("key")).partition("/")[0]
    load_open(_KINDS.get(kind, Line), line, where, ProfileError)
    for side in (line.get("samples") or {}).values():
        _refuse_uneven(side or {"moments": {}, "values": {}}, where)
    if kind in ("repeat", "sustained", "part"):
        _refuse_untimed(line["events"], where)
    return line


def _refuse_uneven(samples: Mapping[str, Any], where: str) -> None:
    """Every sensor has a value, or None, for each of its moments, which come one after the other."""
    moments, values = samples["moments"], samples["values"]
    for name, each in moments.items():
        if len(each) != len(values.get(name, ())):
            raise ProfileError(f"{where}: '{name}' has {len(each)} moments and {len(values.get(name, ()))} values")
        if any(after < before for before, after in pairwise(each)):
            raise ProfileError(f"{where}: the moments of '{name}' are not in order")


def _refuse_untimed(events: list[dict[str, Any]], where: str) -> None:
    """Of a whole answer, the last token may have no ticks; all have the kind of moment that the prompt has."""
    prefill = next((event for event in events if event["event"] == "prefill"), None)
    if prefill is None:
        return
    tokens = [event for event in events if event["event"] == "token"]
    whole = any(event["event"] == "done" for event in events)
    if any(event.get("ticks") is None for event in (prefill, *(tokens[:-1] if whole else tokens))):
        raise ProfileError(f"{where}: an event has no ticks")
    moment = "at" if "at" in prefill else "host"
    if any(moment not in event for event in (prefill, *tokens)):
        raise ProfileError(f"{where}: an event has no moment")
