"""Which zones have no sensor, told by what they said over a whole run: at rest a real one may stand still too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .energy import Track
from .schema import SensorFacts
from .sensors.boards import is_constant

_FEW = 10  # values, before which nothing is said
_MOVED = 2.0  # °C by which another zone moved while one that says what is known of constants did not
_FAR = 8.0  # the same, where it says something else: more than a slow zone or a coarse one is behind by


def without_sensor(sensors: Sequence[SensorFacts], tracks: Mapping[str, Track]) -> dict[str, str]:
    """Zones that never moved although the device warmed, each with the reason to believe that it has no sensor."""
    zones = [s.name for s in sensors if s.quantity == "temperature" and s.name in tracks and tracks[s.name].values.size]
    spans = {name: float(tracks[name].values.max() - tracks[name].values.min()) for name in zones}
    moved = max(spans.values(), default=0.0)
    found = {}
    for name in zones:
        values = tracks[name].values
        if spans[name] or len(values) < _FEW:
            continue
        constant = is_constant(float(values[0]))
        if moved >= _FAR or (constant and (moved >= _MOVED or len(zones) == 1)):
            found[name] = f"said {values[0]:g} °C {len(values)} times while others moved by {moved:.1f} °C"
    return found
