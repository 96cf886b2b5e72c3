"""Profiles: the record, the time axis, energy, what is null and why, comparisons and budgets."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgesdk
from edgesdk.bundle import open_bundle
from edgesdk.cli import run
from edgesdk.devices import DeviceError, Settings
from edgesdk.devices.local import LocalDevice
from edgesdk.errors import EdgeError
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope
from edgesdk.profile import profiling
from edgesdk.profile.budget import checked, read_budget
from edgesdk.profile.compare import Policy, Rule, compared, read_policy
from edgesdk.profile.derive import derived
from edgesdk.profile.energy import Track, added, chosen, energy_of_counter, energy_of_power, unwrapped
from edgesdk.profile.record import Record, read_record
from edgesdk.profile.sampler import Sampler
from edgesdk.profile.schema import Plan, Profile, ProfileError, SensorFacts, Throttling, read_profile, write_profile
from edgesdk.profile.sensors.base import Asked, Files, Metered, Sensor
from edgesdk.profile.statistics import interval, outliers, paired_interval, ratio_interval, summarised
from edgesdk.profile.throttling import judged

BOARD = SensorFacts("VDD_IN", "power", "W", "board", "hwmon", "mV and mA", total=True)
ZONE = SensorFacts("cpu-thermal", "temperature", "°C", "zone", "thermal_zones", "m°C", limit=90.0, critical=100.0)
TOKENS, TICK = 20, 50_000_000  # decoded tokens of a repeat, and nanoseconds of each


def record(
    *,
    repeats: int = 3,
    sensors: tuple[SensorFacts, ...] = (BOARD, ZONE),
    power=lambda at: 5.0 + at,
    celsius=lambda at: 50.0,
    boot: float = 1000.0,
    **changes,
) -> list[dict]:
    """Of a device whose power and heat are functions of its clock; a repeat is 1 s of prompt and 1 s of answer."""
    plan = {**_plain(Plan(prompt_tokens=(10,), new_tokens=TOKENS, repeats=repeats)), **changes.pop("plan", {})}
    header = {
        "key": "header",
        "version": 1,
        "bundle": _plain_bundle(),
        "device": {"name": "board", "identity": "ssh:board"} | changes.pop("device", {}),
        "plan": plan,
        "started": "2026-11-22T12:00:00+00:00",
        "sensors": [vars(each) for each in sensors],
        "raw": [{"name": each.name, "wraps_at": None, "parts": []} for each in sensors],
        "regime": {"policy0": "performance 1000-2000 kHz"},
        "commit": None,
    }
    hello = {
        "runner": "python 3.11",
        "runtime": "onnxruntime 1.31.1",
        "ticks_per_second": 10**9,
        "clock": "CLOCK_MONOTONIC",
    }
    lines = [header, {"key": "session/1"}, {"key": "load/0", "seconds": 0.5, "hello": hello | changes.pop("hello", {})}]
    values = {"VDD_IN": power, "cpu-thermal": celsius}
    for index in range(repeats):
        start = 10.0 + 3 * index  # of the runner's clock; the sampler's is ``boot`` ahead
        at = [int((start + 1) * 1e9) + number * TICK for number in range(1, TOKENS + 1)]
        tokens = [{"event": "token", "ticks": TICK, "sample_ticks": 1000, "at": moment, "host": 0.0} for moment in at]
        moments = list(np.arange(start - 0.15, start + 2.3, 0.1))
        lines.append(
            {
                "key": f"repeat/10/0/{index}",
                "length": 10,
                "threads": None,
                "index": index,
                "cooled": None,
                "events": [
                    {"event": "prefill", "ticks": 10**9, "at": int((start + 1) * 1e9), "host": 1.0},
                    *tokens,
                    {**tokens[-1], "ticks": 0},
                    {"event": "done", "host": 2.0},
                ],
                "started": 5.0 + start,
                "clock": {
                    "at": int(start * 1e9),
                    "boottime": int((start + boot) * 1e9),
                    "host": [5.0 + start, 5.0 + start],
                },
                "samples": {
                    "device": {
                        "moments": {each.name: [m + boot for m in moments] for each in sensors},
                        "values": {each.name: [values[each.name](m) for m in moments] for each in sensors},
                    }
                },
                "jump": 0.0,
                "uncertainty": 0.005,
                "lost": None,
                **changes,
            }
        )
    return [*lines, {"key": "end"}]


def _plain(plan: Plan) -> dict:
    return json.loads(json.dumps(vars(plan)))


def _plain_bundle() -> dict:
    return {"digest": "d" * 64, "model": "m", "target": "t", "converter": "onnx", "recipe": "w4g32", "bytes": 1}


def test_energy_is_the_integral_between_the_runners_own_events() -> None:
    made = derived(record())
    values = made.cases[0].energy.values
    for index in range(3):
        start = 10.0 + 3 * index
        assert values["prefill_energy"].each[index] * 10 == pytest.approx(5 + start + 0.5)
        assert values["decode_energy"].each[index] * TOKENS == pytest.approx(5 + start + 1.5)
    assert values["efficiency"].each[0] == pytest.approx(TOKENS / 16.5)
    assert made.energy_scope == "board: VDD_IN" and made.validity == "valid"
    latency = made.cases[0].latency.values
    assert latency["decode_rate"].value == pytest.approx(20.0) and latency["prefill_rate"].value == pytest.approx(10.0)
    assert latency["time_to_first_token"].value == pytest.approx(1.000001)
    assert latency["token_p99"].value == pytest.approx(0.05)


@given(st.lists(st.floats(0, 50), min_size=8, max_size=40), st.floats(0.5, 1.5), st.floats(5, 6.5))
def test_the_trapezoid_is_exact_between_samples(watts: list[float], start: float, end: float) -> None:
    seconds = np.arange(len(watts), dtype=float)
    found = energy_of_power(Track(seconds, np.array(watts)), start, end)
    fine = np.linspace(start, end, 20001)
    assert found == pytest.approx(np.trapezoid(np.interp(fine, seconds, watts), fine), rel=1e-3, abs=1e-3)


@given(st.lists(st.floats(0.1, 9), min_size=6, max_size=30))
def test_a_counter_that_wraps_counts_on(steps: list[float]) -> None:
    whole = np.cumsum(steps)
    seconds = np.arange(len(steps), dtype=float)
    wrapped = Track(seconds, whole % 10.0)
    end = float(len(steps) - 1)
    assert energy_of_counter(unwrapped(wrapped, 10.0), 0.0, end) == pytest.approx(whole[-1] - whole[0], abs=1e-6)


def test_windows_that_samples_do_not_cover_have_no_energy() -> None:
    track = Track(np.arange(10.0), np.ones(10))
    assert energy_of_power(track, 2.5, 8.5) == pytest.approx(6.0)
    for start, end in ((-1.0, 5.0), (5.0, 9.5), (2.1, 2.9), (5.0, 5.0), (6.0, 5.0)):
        assert energy_of_power(track, start, end) is None
        assert energy_of_counter(track, start, end) is None
    assert energy_of_counter(Track(np.arange(5.0), np.array([5.0, 6, 0, 1, 2])), 0.0, 4.0) is None  # it was reset
    assert added([track, Track(np.arange(2.0, 5.0), np.ones(3))]).seconds.tolist() == [2.0, 3.0, 4.0]


def test_only_a_sensor_that_holds_all_stands_for_the_device() -> None:
    rail = replace(BOARD, name="VDD_SOC", scope="rail", total=False)
    battery = replace(BOARD, name="battery power", scope="battery")
    assert chosen([rail]) is None and chosen([rail, battery, BOARD]) == BOARD and chosen([battery, rail]) == battery
    missing = derived(record(sensors=(replace(BOARD, total=False),))).cases[0].energy
    assert missing.validity == "invalid" and missing.values["decode_energy"].reason == "no-total"
    none = derived(record(sensors=())).cases[0]
    assert none.energy.values["decode_energy"].value is None and none.energy.reasons[0].code == "no-sensor"
    assert none.temperature.values["peak"].reason == "no-sensor" and none.latency.validity == "valid"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"jump": 3.0}, "clock-jump"),
        ({"plan": {"repeats": 5}}, "cut-short"),
        ({"plan": {"cooldown_to": 35.0}, "cooled": {"seconds": 600.0, "hottest": 41.0}}, "not-cooled"),
        ({"device": {"emulated": "its device tree"}}, "emulated"),
    ],
)
def test_doubts_are_said_with_their_code(changes: dict, code: str) -> None:
    latency = derived(record(**changes)).cases[0].latency
    assert latency.validity == "degraded" and code in {each.code for each in latency.reasons}
    assert latency.values["decode_rate"].value is not None


def test_a_changed_regime_within_a_run_is_said() -> None:
    changed = {"key": "regime/0/1", "regime": {"policy0": "powersave 1000-2000 kHz"}}
    made = derived([*record(), changed])
    assert made.validity == "degraded" and "regime-changed" in {each.code for each in made.reasons}


def test_ticks_that_are_no_time_stay_ticks() -> None:
    made = derived(record(hello={"emulated": 1}))
    assert {value.unit for value in made.cases[0].latency.values.values()} == {"ticks", "tokens/tick"}
    assert made.cases[0].latency.values["token_p50"].value == TICK


def test_a_session_after_a_reboot_goes_on_behind_the_first() -> None:
    lines = record()
    second = {**json.loads(json.dumps(lines[3])), "key": "repeat/10/0/9", "index": 9}  # the same clock values again
    made = derived([*lines[:-1], {"key": "session/2"}, second, lines[-1]])
    starts = [stretch.start for stretch in made.stretches]
    assert starts == sorted(starts) and len(set(starts)) == 4
    assert made.cases[0].energy.values["decode_energy"].each[3] == made.cases[0].energy.values["decode_energy"].each[0]


def test_what_came_before_a_failure_is_kept_and_said() -> None:
    lines = [*record()[:-2], {"key": "failed/1", "code": "device-gone", "text": "gone"}]
    made = derived(lines)
    assert made.validity == "degraded" and made.reasons[0].code == "device-gone"
    assert len(made.cases[0].latency.values["decode_rate"].each) == 2
    nothing = derived([*record()[:3], {"key": "failed/1", "code": "runner-failed", "text": "no"}])
    assert nothing.validity == "invalid" and nothing.cases[0].latency.values["decode_rate"].reason == "cut-short"


@pytest.mark.parametrize(
    ("celsius", "gone", "verdict"), [(80.0, False, "none"), (91.0, False, "throttled"), (101.0, True, "shut down")]
)
def test_heat_past_a_trip(celsius: float, gone: bool, verdict: str) -> None:
    tracks = {ZONE.name: Track(np.arange(3.0), np.array([50.0, celsius, 60.0]))}
    found = judged([ZONE], tracks, [], gone=gone)
    assert found.verdict == verdict and bool(found.evidence) == (verdict != "none")


def test_clocks_and_rates_are_evidence() -> None:
    cap = SensorFacts("policy0 cap", "frequency", "Hz", "core", "cpufreq", "kHz", limit=2e9)
    capped = {cap.name: Track(np.arange(3.0), np.array([2e9, 1.2e9, 1.2e9]))}
    assert judged([cap], capped, [], gone=False).verdict == "throttled"
    slower = [(float(i), 0.01 if i < 60 else 0.02) for i in range(120)]
    assert judged([], {}, slower, gone=False).verdict == "suspected"
    assert judged([], {}, [(float(i), 0.01) for i in range(120)], gone=False) == Throttling("none")
    assert judged([], {}, [], gone=False).verdict == "unknown"
    boot = SensorFacts("throttled since boot", "flag", "", "device", "raspberry", "bit 18")
    assert judged([boot], {boot.name: Track(np.arange(2.0), np.ones(2))}, [], gone=False).verdict == "none"


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
    for ratio in (ratio_interval, paired_interval):
        middle, low, high = ratio(a, a * 1.05)
        assert low <= middle <= high and middle == pytest.approx(1.05, rel=0.01) and low > 1
        _, low, high = ratio(a, draws.permutation(a))
        assert low <= 1 <= high
    drift = np.linspace(1, 2, 10)  # hides a difference between the medians, and none within pairs
    assert ratio_interval(a * drift, 1.05 * a * drift)[1] < 1 < paired_interval(a * drift, 1.05 * a * drift)[1]


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


def test_a_profile_is_read_as_it_was_written_and_no_newer_one(tmp_path: Path) -> None:
    path, made = tmp_path / "p.json", derived(record())
    write_profile(made, path)
    assert read_profile(path) == made
    data = json.loads(path.read_text())
    for change, words in (
        ({"schema": 99}, "schema 99"),
        ({"validty": "valid"}, "validty"),
        ({"schema": "x"}, "no profile"),
    ):
        path.write_text(json.dumps({**data, **change}))
        with pytest.raises(ProfileError, match=words):
            read_profile(path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(ProfileError, match="no profile"):
        read_profile(path)
    with pytest.raises(ProfileError, match="no such profile"):
        read_profile(tmp_path / "nothing")
    with pytest.raises(ProfileError, match="unknown key"):
        policy = tmp_path / "policy.toml"
        policy.write_text("[metrics.decode_rate]\nallowence = 1\n")
        read_policy(policy)


@given(st.integers(0, 400))
def test_a_record_that_was_cut_anywhere_goes_on(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "r.jsonl"
        first = Record(path, {"bundle": 1, "device": 2, "plan": 3})
        for number in range(5):
            first.add({"key": f"repeat/{number}", "text": "ü" * number})
        first.close()
        path.write_bytes(path.read_bytes()[: max(cut, 70)])
        again = Record(path, {"bundle": 1, "device": 2, "plan": 3})
        whole = sum(f"repeat/{number}" in again for number in range(5))
        again.add({"key": "next"})
        again.close()
        assert [line["key"] for line in read_record(path)] == ["header", *(f"repeat/{n}" for n in range(whole)), "next"]


def test_a_record_of_another_run_is_not_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    Record(path, {"bundle": 1, "device": 2, "plan": 3}).close()
    with pytest.raises(ProfileError, match="its plan differ"):
        Record(path, {"bundle": 1, "device": 2, "plan": 4})
    path.write_text("something else\n")
    with pytest.raises(ProfileError, match="no record"):
        Record(path, {"bundle": 1, "device": 2, "plan": 3})
    assert path.read_text() == "something else\n"


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    """In a process of its own, whose files may not grow beyond a limit."""
    import subprocess
    import sys

    path = tmp_path / "r.jsonl"
    script = f"""
import resource, signal
from pathlib import Path
from edgesdk.profile.record import Record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
record = Record(Path({str(path)!r}), {{}})
record.add({{"key": "one"}})
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
    record.add({{"key": "two", "text": "x" * 1000}})
except Exception as failure:
    print(type(failure).__name__, failure.hint)
record.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ProfileError make room"), done.stdout + done.stderr
    assert [line["key"] for line in read_record(path)] == ["header", "one"]
    assert path.read_bytes().endswith(b"\n")


@pytest.fixture
def mine(tmp_path: Path) -> LocalDevice:
    return LocalDevice("local", Settings("local", store=str(tmp_path / "store")))


def test_the_sampler_reads_files_and_commands_on_one_clock(mine: LocalDevice, tmp_path: Path) -> None:
    (tmp_path / "volt").write_text("4800\n")
    (tmp_path / "ampere").write_text("1600")  # no end of line
    found = [
        Sensor(
            "power", "power", "board", "hwmon", Files((f"{tmp_path}/volt", f"{tmp_path}/ampere"), 1e-6), "", total=True
        ),
        Sensor("gone", "temperature", "zone", "hwmon", Files((f"{tmp_path}/nothing",), 1e-3), ""),
        Sensor(
            "temperature BIG", "temperature", "zone", "android", Asked(f"cat {tmp_path}/hal", "temperature BIG"), ""
        ),
    ]
    (tmp_path / "hal").write_text(
        "Current temperatures from HAL:\n\tTemperature{mValue=42.5, mType=0, mName=BIG, mStatus=0}\n"
    )
    sampler = Sampler(mine, found, 0.02)
    try:
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        sampler.resume()
        for _ in range(5):
            sampler.settle()
        assert sampler.now({"temperature BIG", "gone"}) == {"temperature BIG": 42.5, "gone": None}
        sampler.pause()
        after = time.clock_gettime(time.CLOCK_BOOTTIME)
        taken = sampler.taken()
        cost = sampler.cost()
    finally:
        sampler.close()
    assert taken.values["power"] == pytest.approx([7.68] * len(taken.values["power"]))
    assert set(taken.values["gone"]) == {None}
    assert taken.values["temperature BIG"][0] == 42.5
    assert all(before - 0.02 <= moment <= after + 0.02 for moment in taken.moments["power"])
    assert cost is not None and 0 <= cost.cpu < cost.elapsed
    assert sampler.failure is None


def test_a_sampler_that_is_killed_says_so_and_blocks_nothing(mine: LocalDevice, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("1\n")
    sampler = Sampler(mine, [Sensor("t", "level", "zone", "hwmon", Files((f"{tmp_path}/t",)), "")], 0.02)
    try:
        sampler.resume()
        sampler.settle()
        os.kill(sampler._line._running.pid, 9)
        sampler.settle()
        sampler.settle()
        assert isinstance(sampler.failure, EdgeError)
        assert sampler.cost() is None
    finally:
        sampler.close()


SPEC = DecoderSpec("llama", 96, 64, 128, (Layer(Attention(4, 2, 16, 0.25, Rope(10000.0)), Mlp(96, "silu")),) * 2, 1e-5)
SMALL = Plan((8, 24), 6, (1,), repeats=3, starts=2, warmup=1, idle=0.3, cost=1, interval=0.02)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profiled") / "bundle"
    model = edgesdk.Model(SPEC, RandomWeights(SPEC, 1))
    edgesdk.export(model, "linux-x86_64", folder, recipe="w4g32", context=128, checks=edgesdk.Checks(skip=True))
    return folder


def test_a_bundle_is_profiled_here_and_the_run_goes_on_where_it_stopped(
    mine: LocalDevice, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.json"
    with open_bundle(bundle) as opened:
        made = profiling.profile(mine, opened, out, SMALL)
        lines = out.with_suffix(".raw.jsonl").read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith((b'{"key":"repeat/24/1/2"', b'{"key":"end"'))]
        out.with_suffix(".raw.jsonl").write_bytes(b"".join(kept)[:-5])
        again = profiling.profile(mine, opened, out, SMALL)
    assert [case.prompt_tokens for case in made.cases] == [8, 24]
    assert all(len(case.latency.values["decode_rate"].each) == 3 for case in (*made.cases, *again.cases))
    assert made.cases[0].latency == again.cases[0].latency != again.cases[1].latency
    assert made.memory.values["pss"].value and made.memory.values["peak_rss"].value
    assert {each.phase for each in made.operators} == {"prefill", "decode"}
    assert any(each.name == "MatMulNBits" and each.seconds > 0 for each in made.operators)
    assert made.sampler.values["cpu_share"].value is not None
    assert made.bundle.compression and made.device.architecture
    assert read_profile(out) == again
    with open_bundle(bundle) as opened:  # nothing was missing: it is measured anew, and the record before is kept
        anew = profiling.profile(mine, opened, out, replace(SMALL, cost=0, operators=False, memory=False, idle=0.0))
    assert anew.cases[0].latency != again.cases[0].latency
    assert out.with_suffix(".raw.jsonl.before").is_file()


class Fails:
    """A meter that is unplugged after its first values."""

    sensors = (Sensor("meter power", "power", "device", "csv", Metered("power"), "a stand-in", total=True),)

    def __init__(self) -> None:
        self.asked = 0

    def start(self) -> None:
        pass

    def taken(self) -> list[tuple[float, dict[str, float]]]:
        self.asked += 1
        if self.asked > 3:
            raise EdgeError("the meter is gone")
        return [(time.monotonic() - 0.1 + step / 100, {"meter power": 2.0}) for step in range(20)]

    def stop(self) -> None:
        pass


def test_a_meter_that_is_unplugged_costs_its_figures_alone(mine: LocalDevice, bundle: Path, tmp_path: Path) -> None:
    plan = replace(SMALL, cost=0, operators=False, memory=False)
    with open_bundle(bundle) as opened:
        made = profiling.profile(mine, opened, tmp_path / "p.json", plan, meters=[Fails()])
    assert made.validity == "degraded" and ("sensor-lost", True) in {
        (each.code, "the meter is gone" in each.text) for each in made.reasons
    }
    assert all(len(case.latency.values["decode_rate"].each) == 3 for case in made.cases)


def test_two_bundles_in_turns_are_a_pair(mine: LocalDevice, bundle: Path, tmp_path: Path) -> None:
    outs = tmp_path / "a.json", tmp_path / "b.json"
    plan = replace(SMALL, cost=0, operators=False, memory=False)
    with open_bundle(bundle) as opened:
        a, b = profiling.profile_in_turns((mine, mine), (opened, opened), outs, plan)
    assert a.paired is not None and a.paired == b.paired
    assert {change.verdict for change in compared(a, b)} - {"not comparable"}


def test_a_runner_that_dies_leaves_its_repeats(mine: LocalDevice, bundle: Path, tmp_path: Path) -> None:
    class Dies(LocalDevice):
        """Its runner is killed at the second repeat."""

        def stream(self, command: str = ""):
            line = super().stream(command)
            if "runner.pyz" in command:
                send, sent = line.send, []

                def counted(data: bytes) -> None:
                    sent.append(data)
                    if sum(b"measure" in each for each in sent) == 3:  # a warm-up, a repeat, and this
                        os.kill(line._running.pid, 9)
                    send(data)

                line.send = counted
            return line

    out = tmp_path / "p.json"
    with open_bundle(bundle) as opened, pytest.raises(DeviceError, match="ended"):
        profiling.profile(Dies("local", mine.settings), opened, out, replace(SMALL, memory=False))
    made = read_profile(out)
    assert made.validity == "degraded" and made.reasons[0].code == "runner-failed"
    assert len(made.cases[0].latency.values["decode_rate"].each) == 1
    assert made.cases[1].latency.validity == "invalid"


def test_the_command_line_says_what_is_wrong(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["-o", str(tmp_path / "p.json"), "-d", "local", "--no-history"]
    for arguments, words in (
        ([str(bundle), "--prompt-tokens", "500", *out], "need a context of 565; the bundle has 128"),
        ([str(bundle), "--prompt-tokens", "a", *out], "no list of whole numbers"),
        ([str(bundle), "--sustained", "soon", *out], "no length of time"),
        ([str(bundle), "--cooldown-to", "cold", *out], "no temperature"),
        ([str(bundle), "--meter", "nonsense:1", *out], "nonsense"),
        ([str(tmp_path / "nothing"), *out], "nothing"),
    ):
        assert run(["profile", *arguments]) != 0
        assert words in capsys.readouterr().err, arguments
    assert not (tmp_path / "p.json").exists()


def test_what_a_failure_left_undone_is_made_up_for(mine: LocalDevice, bundle: Path, tmp_path: Path) -> None:
    """All repeats are there; the sustained run, the operators and memory are not."""
    out = tmp_path / "p.json"
    plan = replace(SMALL, prompt_tokens=(8,), sustained=0.2)
    with open_bundle(bundle) as opened:
        profiling.profile(mine, opened, out, plan)
        raw = out.with_suffix(".raw.jsonl")
        kept = [line for line in raw.read_bytes().splitlines(keepends=True) if b'"key":"sustained' not in line]
        gone = (b'{"key":"operators"', b'{"key":"memory"', b'{"key":"end"', b'{"key":"cost"')
        raw.write_bytes(b"".join(line for line in kept if not line.startswith(gone)))
        made = profiling.profile(mine, opened, out, plan)
    assert made.operators and made.memory.values["pss"].value and made.sampler.values["cpu_share"].value is not None
    assert {stretch.kind for stretch in made.stretches} == {"repeat", "sustained"}
    assert len(made.cases[0].latency.values["decode_rate"].each) == 3


def test_a_sensor_that_goes_silent_invents_nothing() -> None:
    lines = record()
    for line in lines[4:6]:
        for name, moments in line["samples"]["device"][
            "moments"
        ].items():  # it spoke before the prompt and after the end
            outer = [index for index, at in enumerate(moments) if index < 1 or index > len(moments) - 2]
            line["samples"]["device"]["moments"][name] = [moments[index] for index in outer]
            values = line["samples"]["device"]["values"]
            values[name] = [values[name][index] for index in outer]
    energy = derived(lines).cases[0].energy
    assert len(energy.values["decode_energy"].each) == 1 and energy.validity == "degraded"


def test_a_power_of_zero_is_no_energy() -> None:
    energy = derived(record(power=lambda at: 0.0)).cases[0].energy
    assert energy.validity == "invalid"
    assert {value.reason for value in energy.values.values()} == {"sensor-stuck"} | {
        energy.values["decode_energy_net"].reason
    }


def test_a_jump_of_the_clock_leaves_the_repeat_out_of_the_energy() -> None:
    lines = record()
    lines[4]["jump"] = 5.0
    energy = derived(lines).cases[0].energy
    assert len(energy.values["decode_energy"].each) == 2
    assert "clock-jump" in {each.code for each in energy.reasons}


def test_samples_of_two_sessions_stay_in_order() -> None:
    lines = record()
    idle = {"key": "idle/0", "clock": lines[3]["clock"], "samples": json.loads(json.dumps(lines[3]["samples"]))}
    second = {**json.loads(json.dumps(lines[3])), "key": "repeat/10/0/9", "index": 9}
    made = derived([*lines[:-1], {"key": "session/2"}, idle, second, lines[-1]])
    (power,) = [series for series in made.series if series.sensor == "VDD_IN"]
    assert np.diff(power.seconds[: 3 * 25]).min() > 0
    assert min(power.seconds[3 * 25 :]) > made.stretches[2].tokens[-1]


def test_memory_that_grew_is_worse_and_a_cap_from_the_start_is_a_choice() -> None:
    looks = {"after_load": "VmRSS:\t 100 kB\n", "after_run": "VmHWM:\t 200 kB\nPss:\t 150 kB\n"}
    line = {"key": "memory", "looks": looks, "done": {}, "hello": {}}
    grown = {**line, "looks": {**looks, "after_run": "VmHWM:\t 400 kB\nPss:\t 150 kB\n"}}
    a, b = derived([*record(), line]), derived([*record(), grown])
    verdicts = {change.metric: change.verdict for change in compared(a, b)}
    assert (verdicts["peak_rss"], verdicts["pss"]) == ("worse", "same")
    cap = SensorFacts("policy0 cap", "frequency", "Hz", "core", "cpufreq", "kHz", limit=2e9)
    assert judged([cap], {cap.name: Track(np.arange(3.0), np.full(3, 1.2e9))}, [], gone=False).verdict == "none"
