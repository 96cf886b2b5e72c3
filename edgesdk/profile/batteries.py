"""Power on a battery's side: its sign and its unit are told from what the battery did, or it is not used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .energy import Track
from .reasons import reason
from .schema import Reason, SensorFacts
from .sensors import battery

_POWER, _CURRENT, _CHARGE = "battery power", "battery current", "battery charge"
_MICRO, _COULOMBS = 1e-6, 3.6e-3  # the documented unit of the current; coulombs in a µAh
_KNOWN = ("ios",)  # sources whose sign and unit are fixed


def plugged(sensors: Sequence[SensorFacts], tracks: Mapping[str, Track]) -> str | None:
    """The name of a sensor that says that the battery was being charged, or was not alone in feeding the device."""
    flags = [s.name for s in sensors if s.quantity == "flag" and s.name.endswith((" charging", " powered", " online"))]
    return next((name for name in flags if name in tracks and (tracks[name].values > 0).any()), None)


def spent(source: SensorFacts, tracks: Mapping[str, Track]) -> tuple[Track | None, Reason | None, str]:
    """The power that a battery gave, positive, from what its driver calls power.

    Args:
        source: the sensor.
        tracks: all sensors.

    Returns:
        The track, or None with the reason; and the evidence.
    """
    raw = tracks[source.name]
    if source.source in _KNOWN:
        return raw, None, source.evidence
    current = tracks.get(_CURRENT, raw)
    believed = battery.sign(list(current.values), _statuses(current, tracks))
    if believed.value is None:
        return None, reason("sign-unknown", believed.evidence), ""
    charge = tracks.get(_CHARGE)
    if charge is None or _CURRENT not in tracks:
        return None, reason("unit-unsure", "there is no charge counter to check it against"), ""
    pairs = list(zip(current.seconds, current.values / _MICRO, strict=True))
    unit = battery.unit(pairs, list(zip(charge.seconds, charge.values / _COULOMBS, strict=True)))
    if unit.value is None:
        return None, reason("unit-unsure", f"{unit.evidence}; a longer run (--sustained) moves it further"), ""
    power = Track(raw.seconds, raw.values * believed.value * unit.value / _MICRO)
    return power, None, f"{believed.evidence}; {unit.evidence}"


def _statuses(current: Track, tracks: Mapping[str, Track]) -> list[str]:
    flag = next((track for name, track in tracks.items() if name.endswith(" charging")), None)
    if flag is None or not flag.seconds.size:
        return []
    at = np.clip(np.searchsorted(flag.seconds, current.seconds), 0, len(flag.seconds) - 1)
    return ["Charging" if charging > 0 else "Discharging" for charging in flag.values[at]]
