"""Whether a device held back: clocks, caps, trips, statuses, the rate within runs; each a sentence of evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .energy import Track
from .schema import SensorFacts, Throttling, Verdict

_STATUSES = ("thermal status", "throttled", "frequency capped", "under-voltage", "temperature limit", "over-current")
_ORDER: tuple[Verdict, ...] = ("unknown", "none", "suspected", "throttled", "shut down")
_SLOWER = 1.05  # of the last third of all tokens to the first
_CAPPED = 0.98  # of the clock that the cap was at the start


def judged(
    sensors: Sequence[SensorFacts],
    tracks: dict[str, Track],
    rates: Sequence[tuple[float, float]],
    *,
    gone: bool,
) -> Throttling:
    """The verdict over one case or over a profile.

    Args:
        sensors: what was there.
        tracks: their values over the time in question.
        rates: moment and seconds of every decoded token, in order.
        gone: whether the device vanished in that time.
    """
    facts = {sensor.name: sensor for sensor in sensors}
    hot, critical, held = list[str](), list[str](), list[str]()
    for name, track in tracks.items():
        if len(track.values) == 0 or name not in facts:
            continue
        sensor, peak = facts[name], float(track.values.max())
        if sensor.quantity == "temperature":
            _heat(sensor, peak, hot, critical)
        elif sensor.quantity == "frequency" and name.endswith(" cap"):
            _cap(sensor, track, held)
        elif sensor.quantity in ("level", "flag") and _is_status(name) and peak > _before(name, track):
            held.append(f"{name} was {peak:g}")
    slower = _slower(rates)
    verdict = _verdict(hot, critical, held, slower, gone, known=bool(tracks) or bool(rates))
    return Throttling(verdict, (*critical, *hot, *held, *([slower] if slower else [])))


def worst(found: Sequence[Throttling]) -> Throttling:
    """The worst of several verdicts, with the evidence of all that are as bad."""
    verdict: Verdict = max((each.verdict for each in found), key=_ORDER.index, default="unknown")
    evidence = dict.fromkeys(text for each in found if each.verdict == verdict for text in each.evidence)
    return Throttling(verdict, tuple(evidence))


def _verdict(
    hot: list[str], critical: list[str], held: list[str], slower: str | None, gone: bool, *, known: bool
) -> Verdict:
    if gone and (critical or hot):
        return "shut down"
    if held or critical or hot:
        return "throttled"
    if slower:
        return "suspected"
    return "none" if known else "unknown"


def _heat(sensor: SensorFacts, peak: float, hot: list[str], critical: list[str]) -> None:
    if sensor.critical is not None and peak >= sensor.critical:
        critical.append(f"{sensor.name} reached {peak:.1f} °C, its critical trip is {sensor.critical:.1f} °C")
    elif sensor.limit is not None and peak >= sensor.limit:
        hot.append(f"{sensor.name} reached {peak:.1f} °C, its passive trip is {sensor.limit:.1f} °C")


def _cap(sensor: SensorFacts, track: Track, held: list[str]) -> None:
    """The largest clock that is allowed fell; one that was low from the start is a choice, and of the regime."""
    allowed = float(track.values[0])
    if track.values.min() < _CAPPED * allowed:
        held.append(f"{sensor.name} was down to {track.values.min() / 1e6:.0f} MHz of {allowed / 1e6:.0f}")


def _is_status(name: str) -> bool:
    return any(word in name for word in _STATUSES)


def _before(name: str, track: Track) -> float:
    """What a status may be: 0, and where it remembers since the boot, what it was at first."""
    return float(track.values[0]) if name.endswith(" since boot") else 0.0


def _slower(rates: Sequence[tuple[float, float]]) -> str | None:
    """Whether the last third of the tokens took longer than the first, beyond what their spread explains."""
    if len(rates) < 90:
        return None
    third = len(rates) // 3
    first = np.array([seconds for _, seconds in rates[:third]])
    last = np.array([seconds for _, seconds in rates[-third:]])
    ratio = float(np.median(last) / np.median(first))
    if ratio < _SLOWER or np.quantile(last, 0.25) <= np.quantile(first, 0.75):
        return None
    return f"a token took {ratio:.2f} times as long in the last third of the time as in the first"
