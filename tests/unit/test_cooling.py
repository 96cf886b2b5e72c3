"""The wait for a cool device: never for a zone that cannot fall."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import count
from typing import Any, cast

import pytest

from edgesdk.profile import run
from edgesdk.profile.run import Measuring
from edgesdk.profile.schema import Plan
from edgesdk.profile.sensors.base import Files, Sensor

ZONES = ("cpu", "stuck")


def waiting(monkeypatch: pytest.MonkeyPatch, cpu: Callable[[int], float | None], stuck: float | None) -> Measuring:
    """A measurement whose looks are a second apart, by a clock that only they move."""
    seconds = count()
    moment = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: moment[0])
    monkeypatch.setattr(run.time, "sleep", lambda _: moment.__setitem__(0, float(next(seconds)) + 1))

    class Sampler:
        def now(self, names: Collection[str]) -> dict[str, float | None]:
            return {"cpu": cpu(int(moment[0])), "stuck": stuck}

    measuring = cast(Any, Measuring.__new__(Measuring))
    measuring._plan = Plan(cooldown_to=45.0, cooldown_limit=600.0)
    measuring._sampler, measuring._spans = Sampler(), {"cpu": (40.0, 70.0), "stuck": (50.0, 50.0)}
    measuring._sensors = tuple(
        Sensor(name, "temperature", "zone", "thermal_zones", Files((name,)), "") for name in ZONES
    )
    return cast(Measuring, measuring)


@pytest.mark.parametrize(
    ("cpu", "stuck", "seconds", "hottest", "ignored"),
    [
        (lambda at: 60.0 - at, 40.0, 15, 45.0, []),
        (lambda at: 60.0 - at, 50.0, 15, 45.0, ["stuck"]),
        (lambda at: 44.0, 50.0, 15, 44.0, ["stuck"]),  # not the 600 seconds of the limit
        (lambda at: 47.0, 40.0, 60, 47.0, []),  # the room is as warm
        (lambda at: 60.0 - at / 30, None, 450, 45.0, []),  # slowly, but it falls
        (lambda at: None, None, 0, None, []),
        (lambda at: None, 50.0, 15, None, ["stuck"]),
    ],
)
def test_it_waits_for_what_can_fall(
    monkeypatch: pytest.MonkeyPatch,
    cpu: Callable[[int], float | None],
    stuck: float | None,
    seconds: int,
    hottest: float | None,
    ignored: list[str],
) -> None:
    assert waiting(monkeypatch, cpu, stuck)._cooled() == {"seconds": seconds, "hottest": hottest, "ignored": ignored}


def test_a_zone_that_moved_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = waiting(monkeypatch, lambda at: 40.0, 50.0)
    cast(Any, measuring)._spans["stuck"] = (48.0, 50.0)
    found = measuring._cooled()
    assert found is not None and found["seconds"] == 60 and found["hottest"] == 50.0 and found["ignored"] == []
