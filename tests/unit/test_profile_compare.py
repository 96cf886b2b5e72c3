"""Comparisons of profiles and budgets, and the statistics under them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesdk.cli import run
from edgesdk.profile.budget import checked, read_budget
from edgesdk.profile.compare import Policy, Rule, compared
from edgesdk.profile.derive import derived
from edgesdk.profile.energy import Track
from edgesdk.profile.schema import Profile, ProfileError, SensorFacts, read_profile, write_profile
from edgesdk.profile.statistics import interval, outliers, paired_interval, ratio_interval, summarised
from edgesdk.profile.throttling import judged

from .profile_records import TICK, TOKENS, record


def test_medians_have_intervals_and_outliers_stay() -> None:
    value = summarised([10.0, 10.1, 9.9, 10.0, 30.0], "s", "cut-short")
    assert value.value == 10.0 and value.outliers == (4,) and value.each[4] == 30.0
    assert value.low is not None and value.high is not None and value.low <= 10.0 <= value.high
    assert summarised([], "s", "no-sensor").reason == "no-sensor"
    assert summarised([1.0, 2.0], "s", "").low is None
    assert outliers([1.0, 1.0, 1.0]) == ()
    low, high = interval(list(np.random.default_rng(1).normal(5, 1, 200)))
    assert low < 5.1 and high > 4.9 and high - low < 0.6


def test_ratios_leave_out_one_only_where_they_differ() -> None:
    draws = np.random.default_rng(3)
    a = draws.normal(10, 0.05, 10)
    for b, differ in ((a * 1.05, True), (draws.permutation(a), False)):
        for middle, low, high in (ratio_interval(a, b), paired_interval(b / a)):
            assert (
                low <= middle <= high and (low > 1) == differ and middle == pytest.approx(1 + 0.05 * differ, rel=0.01)
            )
    drift = np.linspace(1, 2, 10)  # hides a difference between the medians, and none within pairs
    assert ratio_interval(a * drift, 1.05 * a * drift)[1] < 1 < paired_interval(1.05 * a * drift / (a * drift))[1]


def timed(times: Sequence[Sequence[float]], starts: int) -> Profile:
    """A profile measured in turns whose tokens took so many times as long, repeat by repeat."""
    lines = record(repeats=len(times), sensors=(), plan={"repeats": len(times), "starts": starts})
    lines[0]["paired"] = "both"
    repeats = (line for line in lines if line["key"].startswith("repeat/"))
    for line, longer in zip(repeats, times, strict=True):
        tokens = [event for event in line["events"] if event["event"] == "token" and event["ticks"]]
        for event, by in zip(tokens, longer, strict=True):
            event["ticks"] = int(event["ticks"] * by)
    return derived(lines)


def test_the_floor_is_of_all_tokens_of_a_start() -> None:
    quick, slow = [1.0] * TOKENS, [2.0] * TOKENS
    some = [1.0] + [2.0] * (TOKENS - 1)  # too few to be the start's tenth
    floor = timed([quick, slow, slow, slow, some, slow], 3).cases[0].latency.values["token_floor"]
    assert [each / (TICK / 1e9) for each in floor.each] == pytest.approx([1.0, 2.0, 2.0])


def disturbed(draws: np.random.Generator, slower: float) -> Profile:
    """Of starts with speeds of their own, and of tokens that other work delays, at times all of a repeat."""
    speeds = np.repeat(1 + draws.normal(0, 0.01, 7), 5)
    return timed(
        [(1 + slower) * each * (1 + draws.exponential(draws.choice([0.02, 0.5]), TOKENS)) for each in speeds], 7
    )


def test_other_work_hides_a_slow_down_in_the_rate_and_not_in_the_undisturbed_tokens() -> None:
    draws, worse, wrong = np.random.default_rng(5), Counter[str](), Counter[str]()
    for slower, said, verdicts in ((0.05, worse, ("worse",)), (0.0, wrong, ("worse", "better"))):
        for _ in range(8):
            changes = compared(disturbed(draws, 0.0), disturbed(draws, slower))
            said.update(each.metric for each in changes if each.verdict in verdicts)
    assert worse["token_floor"] == 8 and worse["decode_rate"] <= 4
    assert not wrong["token_floor"] and wrong["decode_rate"] <= 1


def test_repeats_measured_beside_each_other_are_compared_with_each_other() -> None:
    drift = [1.0, 3.0, 2.0, 5.0, 4.0, 7.0, 6.0, 9.0, 8.0]  # of the device, meets both
    a, b = (timed([[by * each] * TOKENS for each in drift], 3) for by in (1.0, 1.05))
    apart = replace(b, paired=None)
    (paired,), (alone,) = ([c for c in compared(a, each) if c.metric == "token_floor"] for each in (b, apart))
    assert paired.verdict == "worse" and paired.low == pytest.approx(1.05, rel=1e-6) == paired.high
    assert alone.verdict == "unsure"


def scaled(profile: Profile, rate: float) -> Profile:
    """The profile with all decode rates multiplied."""
    (case,) = profile.cases
    value = case.latency.values["decode_rate"]
    jitter = [1.001, 0.999, 1.0]
    each = tuple(rate * one * by for one, by in zip(value.each, jitter, strict=True))
    values = {**case.latency.values, "decode_rate": summarised(each, value.unit, "")}
    return replace(profile, cases=(replace(case, latency=replace(case.latency, values=values)),))


def test_verdicts_follow_direction_allowance_and_interval() -> None:
    a = scaled(derived(record()), 1.0)

    def verdict(by: float, policy: Policy | None = None) -> str:
        return next(each.verdict for each in compared(a, scaled(a, by), policy) if each.metric == "decode_rate")

    assert [verdict(by) for by in (0.9, 0.999, 1.1)] == ["worse", "same", "better"]
    assert verdict(0.9, Policy(metrics={"decode_rate": Rule(allowance=0.15)})) != "worse"
    assert verdict(1.1, Policy(metrics={"decode_rate": Rule(direction="lower")})) == "worse"
    kept = compared(a, a, Policy(metrics={"decode_rate": Rule(ignore=True)}))
    assert "decode_rate" not in {each.metric for each in kept}


@pytest.mark.parametrize(
    ("b", "words", "allow"),
    [
        ({"bundle": {"digest": "e" * 64}}, "A is of", "bundle"),
        ({"regime": {"policy0": "powersave 1000-2000 kHz"}}, "clocks", "regime"),
        ({"energy_scope": "battery: battery power"}, "energy", "energy"),
        ({"device": {"model": "another"}}, "A ran on", "device"),
    ],
)
def test_profiles_that_do_not_compare_are_refused_unless_that_is_meant(b: dict, words: str, allow: str) -> None:
    one = derived(record())
    changed = {
        key: replace(getattr(one, key), **value) if key in ("bundle", "device") else value for key, value in b.items()
    }
    other = replace(one, **changed)
    with pytest.raises(ProfileError, match=words) as refused:
        compared(one, other)
    assert f"--allow {allow}" in (refused.value.hint or "")
    assert compared(one, other, allow=[allow])


def test_a_budget_is_met_by_figures_and_by_nothing_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.json"
    write_profile(derived(record()), path)
    budget = tmp_path / "b.toml"
    for text, status in (
        ("[decode_rate]\nmin = 19\n", 0),
        ("[decode_rate]\nmin = 21\n", 1),
        ("[decode_rate]\nmin = 19\nprompt_tokens = 999\n", 1),
        ("[pss]\nmax = 1e9\n", 1),
        ("[time_to_first_token]\nmax = 1.1\ninterval = true\n", 0),
        ("[decode_rat]\nmin = 1\n", 1),
        ("[decode_rate]\nmost = 1\n", 1),
        ("[decode_rate]\n", 1),
        ("", 1),
        ("[[", 1),
    ):
        budget.write_text(text)
        assert run(["check", str(path), "--budget", str(budget)]) == status, text
    assert "no metric 'decode_rat'" in capsys.readouterr().err
    budget.write_text("[pss]\nmax = 1e9\n")
    (row,) = checked(read_profile(path), read_budget(budget))
    assert (row.met, row.why) == (False, "cut-short")


def test_memory_that_grew_is_worse_and_a_cap_from_the_start_is_a_choice() -> None:
    looks = {"after_load": "VmRSS:\t 100 kB\n", "after_run": "VmHWM:\t 200 kB\nPss:\t 150 kB\n"}
    line = {"key": "memory", "looks": looks, "done": {}, "hello": {}}
    grown = {**line, "looks": {**looks, "after_run": "VmHWM:\t 400 kB\nPss:\t 150 kB\n"}}
    a, b = derived([*record(), line]), derived([*record(), grown])
    verdicts = {change.metric: change.verdict for change in compared(a, b)}
    assert (verdicts["peak_rss"], verdicts["pss"]) == ("worse", "same")
    cap = SensorFacts("policy0 cap", "frequency", "Hz", "core", "cpufreq", "kHz", limit=2e9)
    assert judged([cap], {cap.name: Track(np.arange(3.0), np.full(3, 1.2e9))}, [], gone=False).verdict == "none"
