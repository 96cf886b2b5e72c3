"""Sign and unit of a battery's current, from what it did and never from its size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.profile.sensors.battery import sign, unit


def run(amperes: float, raw_per_ampere: float, seconds: int, step: float = 1000, charge: float = 3e6):
    """Readings and a counter in steps of µAh, once a second."""
    currents = [(float(t), -amperes * raw_per_ampere) for t in range(seconds)]
    counters = [(float(t), (charge - amperes * 1e6 * t / 3600) // step * step) for t in range(seconds)]
    return currents, counters


@pytest.mark.parametrize("amperes", [0.003, 0.05, 1.2, 5.0])
@pytest.mark.parametrize("raw_per_ampere", [1e6, 1e3])
@pytest.mark.parametrize("direction", [1, -1])
def test_the_unit_is_what_the_charge_counter_says(amperes, raw_per_ampere, direction) -> None:
    currents, counters = run(amperes, raw_per_ampere * direction, int(3600 / amperes * 0.01) + 10)
    belief = unit(currents, counters)
    assert belief.value == pytest.approx(1 / raw_per_ampere)
    assert "charge counter moved by" in belief.evidence


def test_an_idle_phone_in_microampere_is_not_read_as_milliampere() -> None:
    currents, counters = run(0.0045, 1e6, 3600)  # 4500: below the usual 10000
    assert unit(currents, counters).value == 1e-6


def test_unknown_while_the_counter_moved_too_little() -> None:
    for seconds in (10, 60):
        assert unit(*run(0.1, 1e6, seconds)).value is None
    assert unit([], []).value is None
    assert "too little" in unit(*run(0.1, 1e6, 60)).evidence


def test_unknown_where_the_current_was_not_read_while_the_counter_moved() -> None:
    currents, counters = run(1.0, 1e6, 120)
    assert unit(currents[:20], counters).value is None
    assert unit([], counters).value is None
    assert unit([(time, 0.0) for time, _ in currents], counters).value is None


def test_unknown_where_neither_unit_fits() -> None:
    currents, counters = run(1.0, 3e4, 120)
    assert unit(currents, counters).value is None


def test_readings_at_moments_of_their_own_are_integrated() -> None:
    currents, counters = run(2.0, 1e3, 200)
    assert unit([(time + 0.37, value) for time, value in currents[::7]], counters).value == 1e-3


@pytest.mark.parametrize("discharge", [-1, 1])
def test_the_sign_comes_from_a_step(discharge) -> None:
    currents = [discharge * 400.0] * 5 + [-discharge * 900.0] * 3
    belief = sign(currents, ["Discharging"] * 5 + ["Charging"] * 3)
    assert belief.value == discharge
    assert "opposite" in belief.evidence


def test_the_sign_while_only_discharging_says_that_no_step_was_seen() -> None:
    belief = sign([412.0] * 4, ["Discharging"] * 4)
    assert belief.value == 1
    assert "no step" in belief.evidence


@pytest.mark.parametrize(
    ("currents", "statuses"),
    [
        ([], []),
        ([-400.0] * 2, ["Discharging"] * 2),
        ([-400.0, 300.0, -200.0], ["Discharging"] * 3),
        ([400.0] * 6, ["Discharging"] * 3 + ["Charging"] * 3),
        ([400.0] * 6, ["Charging"] * 6),  # a weak charger does not keep it from discharging
        ([400.0] * 6, ["Full"] * 6),
        ([0.0] * 6, ["Discharging"] * 6),
    ],
)
def test_the_sign_is_unknown(currents, statuses) -> None:
    belief = sign(currents, statuses)
    assert belief.value is None
    assert belief.evidence


numbers = st.floats(-1e9, 1e9)


@given(st.lists(st.tuples(st.floats(0, 1e6), numbers)), st.lists(st.tuples(st.floats(0, 1e6), numbers)))
def test_unit_never_raises(currents, counters) -> None:
    assert unit(sorted(currents), sorted(counters)).value in (None, 1e-6, 1e-3)


@given(st.lists(numbers), st.lists(st.sampled_from(["Charging", "Discharging", "Full", ""])))
def test_sign_never_raises(currents, statuses) -> None:
    assert sign(currents, statuses).value in (None, -1, 1)
