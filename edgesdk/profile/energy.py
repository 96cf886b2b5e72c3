"""Energy over windows: the trapezoid of power, or the difference of a counter, between the runner's own events.

The window is bounded by events, not by when the sampler happened to run: samples are interpolated at its two ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .schema import SensorFacts

_LEAST = 3  # samples inside a window
_GAPS, _GAP = 5.0, 1.5  # of the usual distance of samples, and seconds: a longer silence is no measurement
_ORDER = ("device", "board", "package", "battery", "rail")


@dataclass(frozen=True)
class Track:
    """One sensor's readable values on the runner's clock, in seconds."""

    seconds: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, seconds: Sequence[float], values: Sequence[float | None]) -> Track:
        kept = [(at, value) for at, value in zip(seconds, values, strict=True) if value is not None]
        return cls(np.array([at for at, _ in kept]), np.array([value for _, value in kept]))

    def covers(self, start: float, end: float) -> bool:
        """Whether there are samples on both sides of a window, and enough in it."""
        if len(self.seconds) < _LEAST or end <= start:
            return False
        first, last = np.searchsorted(self.seconds, [start, end], side="right")
        if self.seconds[0] > start or self.seconds[-1] < end or last - first < _LEAST:
            return False
        around = self.seconds[first - 1 : min(last, len(self.seconds) - 1) + 1]
        return bool(np.diff(around).max() <= max(_GAPS * float(np.median(np.diff(self.seconds))), _GAP))


def energy_of_power(track: Track, start: float, end: float) -> float | None:
    """Joules between two moments; None where the samples do not cover them."""
    if not track.covers(start, end):
        return None
    inside = (track.seconds > start) & (track.seconds < end)
    at = np.concatenate([[start], track.seconds[inside], [end]])
    power = np.interp(at, track.seconds, track.values)
    return float(np.trapezoid(power, at))


def energy_of_counter(track: Track, start: float, end: float) -> float | None:
    """Joules between two moments of a cumulative counter; None where its samples do not cover them, or it was reset."""
    if not track.covers(start, end):
        return None
    first, last = np.searchsorted(track.seconds, [start, end], side="right")
    if (np.diff(track.values[first - 1 : last + 1]) < 0).any():
        return None
    low, high = np.interp([start, end], track.seconds, track.values)
    return float(high - low)


def unwrapped(track: Track, wraps_at: float) -> Track:
    """A counter that starts again from 0 at a value, as one that never does."""
    steps = np.diff(track.values, prepend=track.values[:1])
    return Track(track.seconds, track.values + wraps_at * np.cumsum(steps < 0))


def added(tracks: Sequence[Track]) -> Track:
    """The sum of sensors, at the moments of the first of them that all cover."""
    first = tracks[0]
    if any(not track.seconds.size for track in tracks):
        return Track(np.array([]), np.array([]))
    start, end = max(t.seconds[0] for t in tracks), min(t.seconds[-1] for t in tracks)
    at = first.seconds[(first.seconds >= start) & (first.seconds <= end)]
    return Track(at, np.sum([np.interp(at, track.seconds, track.values) for track in tracks], axis=0))


def chosen(found: Sequence[SensorFacts]) -> SensorFacts | None:
    """The sensor that energy is computed from: one that holds all of its scope, the widest scope first.

    A rail by itself never stands for the device, and rails are not added here: they overlap.
    """
    able = [s for s in found if s.total and s.quantity in ("power", "energy")]
    return min(able, key=lambda s: _ORDER.index(s.scope) if s.scope in _ORDER else len(_ORDER), default=None)
