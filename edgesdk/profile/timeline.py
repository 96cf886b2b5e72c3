"""Puts a record on one axis: seconds of the runner's clock from the first event on, for runs and for sensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .energy import Track, added, unwrapped
from .record import Line

_GAP = 1.0  # seconds shown between two sessions of one profile


@dataclass(frozen=True)
class Run:
    """One prompt and its tokens.

    Attributes:
        kind: ``repeat``, ``sustained``, or ``part`` of one that failed.
        length: tokens of the prompt.
        threads: of the runtime.
        start: the prompt went in, seconds.
        prefilled: its logits were there.
        tokens: moment of every decoded token.
        latencies: seconds (or ticks) of every one.
        first: seconds (or ticks) until the first token: prefill and one choice.
        prefill: seconds (or ticks) of the prompt.
        sampling: of one choice, the median.
        line: of the record.
    """

    kind: str
    length: int
    threads: int | None
    start: float
    prefilled: float
    tokens: tuple[float, ...]
    latencies: tuple[float, ...]
    first: float | None
    prefill: float | None
    sampling: float | None
    line: Line

    @property
    def end(self) -> float:
        return self.tokens[-1] if self.tokens else self.prefilled


@dataclass(frozen=True)
class Timeline:
    """All runs, idle windows and sensors of a record on one axis."""

    runs: tuple[Run, ...]
    idle: tuple[dict[str, tuple[float, float]], ...]
    tracks: dict[str, Track]
    lost: frozenset[str]


class _Axis:
    """The axis, session by session: a runner that was started anew after a reboot has a clock that began again."""

    def __init__(self) -> None:
        self.origin: float | None = None
        self.end = 0.0

    def begin(self) -> None:
        self.origin = None

    def meet(self, moment: float | None) -> None:
        """Put the earliest moment of a session behind what there is."""
        if self.origin is None and moment is not None:
            self.place(moment)

    def place(self, moment: float) -> float:
        if self.origin is None:
            self.origin = moment - (self.end + _GAP if self.end else 0.0)
        found = moment - self.origin
        self.end = max(self.end, found)
        return found


def timeline(lines: Sequence[Line], ticks: float | None, sensors: Sequence[Line]) -> Timeline:
    """The axis of a record.

    Args:
        lines: of the record.
        ticks: of the runner's clock in a second; None where they are no time, which leaves ticks as they are.
        sensors: name, ``wraps_at``, of a sum the names of its ``parts``, and whether it ``rests``.
    """
    axis, runs, idle = _Axis(), list[Run](), list[dict[str, tuple[float, float]]]()
    moments: dict[str, list[float]] = {}
    values: dict[str, list[float | None]] = {}
    clock: Line | None = None
    for line in lines:
        kind = str(line["key"]).partition("/")[0]
        if kind == "session":
            axis.begin()
            clock = None
        clock = line.get("clock") or clock
        axis.meet(_earliest(line, clock, ticks))
        if kind in ("repeat", "sustained", "part") and any(e["event"] == "prefill" for e in line["events"]):
            runs.append(_run(kind, line, axis, ticks))
        if line.get("samples"):
            placed = _samples(line["samples"], clock, axis)
            for name, (at, each) in placed.items():
                moments.setdefault(name, []).extend(at)
                values.setdefault(name, []).extend(each)
            if kind == "idle":
                idle.append({name: (at[0], at[-1]) for name, (at, _) in placed.items() if len(at) > 1})
    tracks = {name: Track.of(at, values[name]) for name, at in moments.items()}
    for sensor in sensors:
        name, parts = sensor["name"], sensor["parts"]
        if sensor["wraps_at"] is not None and name in tracks:
            tracks[name] = unwrapped(tracks[name], sensor["wraps_at"])
        if parts and all(part in tracks for part in parts):
            tracks[name] = added([tracks[part] for part in parts])
    resting = {sensor["name"] for sensor in sensors if sensor.get("rests")}
    lost = frozenset(
        name
        for name, each in values.items()
        if any(v is None for v in each) and tracks[name].values.size and name not in resting
    )
    return Timeline(tuple(runs), tuple(idle), tracks, lost)


def _earliest(line: Line, clock: Line | None, ticks: float | None) -> float | None:
    """The first moment of a line on the runner's clock; None where it has none, or ticks of their own."""
    found = []
    for side, offset in _offsets(clock).items():
        taken = (line.get("samples") or {}).get(side)
        if taken is not None and offset is not None:
            found += [at[0] - offset for at in taken["moments"].values() if at]
    prefill = next((event for event in line.get("events", []) if event["event"] == "prefill"), None)
    if prefill is not None and ticks is not None and "at" in prefill:
        found.append((prefill["at"] - prefill["ticks"]) / ticks)
    return min(found, default=None)


def _run(kind: str, line: Line, axis: _Axis, ticks: float | None) -> Run:
    events = line["events"]
    prefill = next(e for e in events if e["event"] == "prefill")
    tokens = [e for e in events if e["event"] == "token"]
    decoded = tokens[:-1] if any(e["event"] == "done" for e in events) else tokens
    scale = ticks or 1.0
    took = prefill["ticks"] / scale
    start, prefilled, *moments = (axis.place(each) for each in _moments(line, prefill, decoded, ticks, axis))
    chosen = sorted(e["sample_ticks"] / scale for e in tokens if "sample_ticks" in e)  # apps may not tell it apart
    return Run(
        kind,
        line["length"],
        line["threads"],
        start,
        prefilled,
        tuple(moments),
        tuple(e["ticks"] / scale for e in decoded),
        took + tokens[0].get("sample_ticks", 0) / scale if tokens else None,
        took,
        chosen[len(chosen) // 2] if chosen else None,
        line,
    )


def _moments(
    line: Line, prefill: dict[str, Any], decoded: Sequence[dict[str, Any]], ticks: float | None, axis: _Axis
) -> list[float]:
    """Start, end of the prompt, and every token: by the runner's clock, by its ticks, or by their arrival here."""
    if ticks is None:  # ticks that are no time have an axis of their own
        start = axis.end + (axis.origin or 0.0)
        return list(np.cumsum([start, prefill["ticks"], *(event["ticks"] for event in decoded)], dtype=float))
    if "at" in prefill:
        end = prefill["at"] / ticks
        return [end - prefill["ticks"] / ticks, end, *(event["at"] / ticks for event in decoded)]
    base = float(line.get("started") or 0.0)
    return [base, *(base + event["host"] for event in (prefill, *decoded))]


def _samples(samples: Line, clock: Line | None, axis: _Axis) -> dict[str, tuple[list[float], list[float | None]]]:
    """Samples of the device's clock and of the host's, on the axis; left out where no clock tells where they belong."""
    found: dict[str, tuple[list[float], list[float | None]]] = {}
    for side, offset in _offsets(clock).items():
        taken = samples.get(side)
        if taken is None or offset is None:
            continue
        for name, moments in taken["moments"].items():
            found[name] = ([axis.place(at - offset) for at in moments], taken["values"][name])
    return found


def _offsets(clock: Line | None) -> dict[str, float | None]:
    """What to take from a moment of each clock to have it on the runner's."""
    if clock is None:
        return {"device": None, "host": 0.0}
    at = clock["at"] / 1e9
    boottime = clock.get("boottime")
    host = sum(clock["host"]) / 2
    return {"device": None if boottime is None else boottime / 1e9 - at, "host": host - at}
