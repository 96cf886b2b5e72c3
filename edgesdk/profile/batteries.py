"""Power on a battery's side: its sign and its unit are told from what the battery did, or it is not used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .energy import Track, added
from .reasons import reason
from .schema import Reason, SensorFacts
from .sensors import battery

_POWER, _CURRENT, _CHARGE, _ENERGY, _CHARGING = " power", " current", " charge", " energy", " charging"
_MICRO, _MICRO_HOURS = 1e-6, 3.6e-3  # the documented units: of the current or power; of what is left
_KNOWN = ("ios",)  # sources whose sign and unit are fixed


def plugged(sensors: Sequence[SensorFacts], tracks: Mapping[str, Track]) -> str | None:
    """The name of a sensor that says that a charger fed the device; None where batteries alone did.

    A charger that says so decides. Otherwise a battery that discharges does, whatever the others say: one of two rests
    while the other is used, and is then Full or Not charging.
    """
    flags = [s.name for s in sensors if s.quantity == "flag" and s.name in tracks and tracks[s.name].values.size]
    chargers = [name for name in flags if name.endswith((" powered", " online"))]
    if supplying := next((name for name in chargers if (tracks[name].values > 0).any()), None):
        return supplying
    states = [name for name in flags if name.endswith(_CHARGING)]
    if any((tracks[name].values == 0).all() for name in states):
        return None
    return next((name for name in states if (tracks[name].values > 0).any()), None)


def spent(
    source: SensorFacts, tracks: Mapping[str, Track], parts: Sequence[str]
) -> tuple[Track | None, Reason | None, str]:
    """The power that batteries gave, positive, from what their drivers call power.

    Args:
        source: the sensor.
        tracks: all sensors.
        parts: of a sum, the names of the sensors that it adds up; none: it is one battery's own.

    Returns:
        The track, or None with the reason; and the evidence.
    """
    if source.source in _KNOWN:
        return tracks[source.name], None, source.evidence
    given, why = list[Track](), list[str]()
    for part in parts or (source.name,):
        power, doubt, evidence = _spent_by(part, tracks)
        if power is None:
            named = doubt if not parts or doubt is None else Reason(doubt.code, f"{part}: {doubt.text}")
            return None, named, ""
        given.append(power)
        why.append(f"{part}: {evidence}" if parts else evidence)
    return added(given), None, "; ".join(why)


def _spent_by(power: str, tracks: Mapping[str, Track]) -> tuple[Track | None, Reason | None, str]:
    """As :func:`spent`, of one battery by the name of its power."""
    name, raw = power.removesuffix(_POWER), tracks[power]
    if not raw.values.any():
        return raw, None, "it gave nothing and took nothing"
    current = tracks.get(name + _CURRENT, raw)
    believed = battery.sign(list(current.values), _statuses(current, tracks.get(name + _CHARGING)))
    if believed.value is None:
        return None, reason("sign-unknown", believed.evidence), ""
    charge, energy = tracks.get(name + _CHARGE), tracks.get(name + _ENERGY)
    if charge is not None and name + _CURRENT in tracks:
        gauge, counter = current, charge
    elif energy is not None:
        gauge, counter = raw, energy  # PCs: µW and µWh, which go together as µA and µAh do
    else:
        return None, reason("unit-unsure", "there is no charge counter to check it against"), ""
    pairs = list(zip(gauge.seconds, gauge.values / _MICRO, strict=True))
    unit = battery.unit(pairs, list(zip(counter.seconds, counter.values / _MICRO_HOURS, strict=True)))
    if unit.value is None:
        return None, reason("unit-unsure", f"{unit.evidence}; a longer run (--sustained) moves it further"), ""
    scaled = Track(raw.seconds, raw.values * believed.value * unit.value / _MICRO)
    return scaled, None, f"{believed.evidence}; {unit.evidence}"


def _statuses(current: Track, flag: Track | None) -> list[str]:
    if flag is None or not flag.seconds.size:
        return []
    at = np.clip(np.searchsorted(flag.seconds, current.seconds), 0, len(flag.seconds) - 1)
    return ["Charging" if charging > 0 else "Discharging" for charging in flag.values[at]]
