"""What a battery's current means: its sign and its unit, which vendors do not agree on, told from what it did.

``BATTERY_PROPERTY_CURRENT_NOW`` and ``current_now`` are documented in microampere, negative or positive while
discharging by vendor; many phones give milliampere. No threshold on the size tells them apart: an idle phone draws few
enough microampere to look like one that counts in milliampere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

MICROAMPERE, MILLIAMPERE = 1e-6, 1e-3
_MICROAMPERE_HOUR = 3600e-6
_STEPS = 2  # of the counter: the first and the last may be cut, so that fewer say nothing
_FAR = 10.0  # the two units are a factor of 1000 apart; what fits neither within this is no answer
_FEW = 3
_COVERED = 0.9


@dataclass(frozen=True)
class Belief:
    """What is believed, or None where nothing can be; and why."""

    value: float | None
    evidence: str


def sign(currents: Sequence[float], statuses: Sequence[str]) -> Belief:
    """Which sign of the current means discharge: -1 or 1.

    Args:
        currents: readings, in any unit.
        statuses: the kernel's word at the time of each: ``Charging``, ``Discharging``, others are passed over.
    """
    out, into = (
        [current for current, status in zip(currents, statuses, strict=False) if status == word and current]
        for word in ("Discharging", "Charging")
    )
    spent, filled = _agreed(out), _agreed(into)
    if len(out) < _FEW:
        return Belief(None, f"{len(out)} readings while the status was Discharging are too few to tell the sign")
    if spent is None:
        return Belief(None, "the current had both signs while the status was Discharging")
    if into and filled == spent:
        return Belief(None, "the current had the same sign while charging and while discharging")
    told = "negative" if spent < 0 else "positive"
    if filled is not None:
        return Belief(spent, f"{told} in {len(out)} readings while discharging, the opposite in {len(into)} charging")
    return Belief(spent, f"{told} in {len(out)} readings while the status was Discharging; no step to charging seen")


def unit(currents: Sequence[tuple[float, float]], counters: Sequence[tuple[float, float]]) -> Belief:
    """Amperes for one raw unit of current: 1e-6 or 1e-3.

    The integral of the current must be what the charge counter moved by; both may be read at moments of their own.

    Args:
        currents: seconds and raw reading, in order.
        counters: seconds and the charge counter in µAh, in order.
    """
    moved = _moved(counters)
    if moved is None:
        return Belief(None, "the charge counter moved too little to check the current's unit against it")
    start, end, micro_hours = moved
    integral = _integral(currents, start, end)
    if integral is None:
        return Belief(None, "the current was not read over the time in which the charge counter moved")
    if not integral:
        return Belief(None, "the current was 0 while the charge counter moved")
    ratio = micro_hours * _MICROAMPERE_HOUR / abs(integral)
    for scale, name in ((MICROAMPERE, "microampere"), (MILLIAMPERE, "milliampere")):
        if scale / _FAR < ratio < scale * _FAR:
            evidence = f"the charge counter moved by {micro_hours:g} µAh in {end - start:.0f} s, and the current as"
            return Belief(scale, f"{evidence} {name} by {abs(integral) * scale / _MICROAMPERE_HOUR:.0f} µAh")
    return Belief(None, "neither microampere nor milliampere fits what the charge counter moved by")


def _agreed(currents: Sequence[float]) -> float | None:
    """-1 or 1 where all have that sign."""
    signs = {1.0 if current > 0 else -1.0 for current in currents}
    return signs.pop() if len(signs) == 1 else None


def _moved(counters: Sequence[tuple[float, float]]) -> tuple[float, float, float] | None:
    """From when to when the counter moved, and by how much: between its changes, whose moments are known best."""
    changes = [(after[0], after[1]) for before, after in pairwise(counters) if after[1] != before[1]]
    if len(changes) < _STEPS + 1:
        return None
    step = min(abs(after[1] - before[1]) for before, after in pairwise(changes))
    moved = abs(changes[-1][1] - changes[0][1])
    return (changes[0][0], changes[-1][0], moved) if step and moved >= _STEPS * step else None


def _integral(readings: Sequence[tuple[float, float]], start: float, end: float) -> float | None:
    """Trapezoids of the readings from ``start`` to ``end``; None where they do not cover that time."""
    total = covered = 0.0
    for (left, before), (right, after) in pairwise(readings):
        low, high = max(left, start), min(right, end)
        if right > left and high > low:
            slope = (after - before) / (right - left)
            total += (high - low) * (before + slope * ((low + high) / 2 - left))
            covered += high - low
    return total if covered >= _COVERED * (end - start) else None
