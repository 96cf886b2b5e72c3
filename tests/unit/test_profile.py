"""Profiles: the time axis, energy, what is null and why, heat, the record and the schema."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.profile.compare import read_policy
from edgesdk.profile.derive import derived
from edgesdk.profile.energy import Track, added, chosen, energy_of_counter, energy_of_power, unwrapped
from edgesdk.profile.record import Record, read_record
from edgesdk.profile.schema import ProfileError, SensorFacts, Throttling, read_profile, write_profile
from edgesdk.profile.throttling import judged

from .profile_records import BOARD, TICK, TOKENS, ZONE, record


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


def test_what_other_programs_used_is_a_doubt_with_its_code() -> None:
    def made(**used: float):
        whole = {"seconds": 1.0, "foreign": 0.01, "wanted": 2.0, "stolen": 0.0, "count": 4} | used
        lines = [{**line, "used": whole} if line["key"].startswith("repeat/") else line for line in record()]
        return derived([lines[0], {"key": "start", "used": None}, *lines[1:]])

    quiet, loud = made(), made(foreign=1.0)
    assert quiet.validity == "valid" and quiet.contention.values["foreign"].value == pytest.approx(0.01)
    assert quiet.contention.values["start"].reason == "not-reported"
    assert loud.validity == "degraded" and [each.code for each in loud.reasons] == ["contended"]
    assert loud.cases[0].latency.values == quiet.cases[0].latency.values  # what was measured stays
    assert [each.code for each in made(stolen=0.5).reasons] == ["stolen"]
    assert derived(record()).contention.validity == "invalid"


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
    with pytest.raises(ProfileError, match="other: plan"):
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
