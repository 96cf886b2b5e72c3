"""The benchmark app's measurement, run on a JVM over ExecuTorch's real runner, and its file read back."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edgesdk.devices.runner.link import answered
from edgesdk.profile.app_result import Result, read_result
from edgesdk.profile.schema import ProfileError

from .android.kotlin import App

TOKENS, REPEATS = 16, 3


@pytest.fixture(scope="module")
def file(android_app: App, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("result") / "result.jsonl"
    said = android_app.main(
        "dev.edgesdk.benchmark.MeasuredKt", android_app.model, out, TOKENS, REPEATS, "L", "AAA", "A:"
    )
    assert said == out.read_text(encoding="utf-8")  # logcat and the file say the same
    return out


@pytest.fixture(scope="module")
def result(file: Path) -> Result:
    return read_result(file)


def test_the_plan_was_carried_out(result: Result) -> None:
    assert result.complete and result.failure is None and result.hello["text"] == 'ü"\\'
    kinds = [run.kind for run in result.runs]
    assert kinds[: 3 * (REPEATS + 1)] == ["warmup", *["repeat"] * REPEATS] * 3
    assert set(kinds[3 * (REPEATS + 1) :]) == {"sustained"}
    assert result.load_seconds is not None and result.load_seconds > 0
    assert [look["pss_kb"] for look in result.memory] == [1234, 1234]


def test_tokens_are_read_by_the_protocols_own_reader(result: Result) -> None:
    run = next(run for run in result.runs if run.kind == "repeat" and run.prompt_tokens == 1)
    answer = answered(run.events, result.hello)
    assert (answer.prompt_tokens, answer.new_tokens, answer.stop) == (1, TOKENS, "length")
    assert answer.prefill_seconds is not None and answer.prefill_seconds > 0
    assert answer.decode_seconds is not None and answer.decode_seconds > 0
    tokens = [event for event in run.events if event["event"] == "token"]
    assert len(tokens) == TOKENS and tokens[-1]["ticks"] is None  # nothing was decoded after the last
    assert sorted(event["at"] for event in tokens) == [event["at"] for event in tokens]
    assert run.events[-1]["peak_rss_kb"] > 10000  # of the JVM


def test_pieces_that_are_no_tokens_are_not_said_to_be(result: Result) -> None:
    """Of characters that take two tokens."""
    run = next(run for run in result.runs if run.kind == "repeat" and run.prompt_tokens == 2)
    assert [event["event"] for event in run.events] == ["prefill", "pieces", "done"]
    assert run.events[1]["count"] == 6 and run.events[-1]["stop"] == "eos"


def test_what_the_phone_says_lies_around_each_run(result: Result) -> None:
    for run in result.runs:
        before, after = run.sensors
        assert before["at"] < run.events[0]["at"] < after["at"]
        assert before["battery_celsius"] == 25.5 and before["thermal_headroom"] is None


def test_the_summary_counts_what_was_measured(result: Result) -> None:
    lines = result.summary().splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == ["1 tokens", "2 tokens", "3 tokens"]
    assert all(f"{REPEATS} repeats" in line and "tokens/s" in line for line in lines[1:])


def test_a_changed_line_is_refused_and_a_cut_one_left_out(file: Path, tmp_path: Path) -> None:
    data = file.read_bytes()
    changed, cut = tmp_path / "changed", tmp_path / "cut"
    changed.write_bytes(data.replace(b'"tokens":1', b'"tokens":9', 1))
    with pytest.raises(ProfileError, match=r"line \d+ was changed"):
        read_result(changed)
    cut.write_bytes(data[: len(data) // 2])
    found = read_result(cut)
    assert not found.complete and found.runs and "cut off" in found.summary()


def test_the_script_brings_the_result_back(android_app: App, file: Path, tmp_path: Path) -> None:
    """With programs in the place of Gradle and adb that note their arguments: the order, and how it ends."""
    log, there = tmp_path / "log", tmp_path / "there"
    gradle, adb = tmp_path / "gradle", tmp_path / "adb"
    gradle.write_text(f'#!/bin/sh\necho "gradle $*" >> {log}\n')
    adb.write_text(
        f'#!/bin/sh\necho "adb $*" >> {log}\ncase "$*" in\n'
        f'*"am start"*) touch {there} ;;\n"shell [ -f"*) test -f {there} ;;\n"pull "*) cp {file} "$3" ;;\nesac\n'
    )
    for program in (gradle, adb):
        program.chmod(0o755)
    command = [
        str(android_app.project / "scripts/benchmark.sh"),
        "--repeats",
        "3",
        "--out",
        str(tmp_path / "out.jsonl"),
    ]
    environment = os.environ | {"GRADLE": str(gradle), "ADB": str(adb)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "out.jsonl").complete
    said = log.read_text().splitlines()
    assert said[0] == "gradle :benchmark:assembleRelease"
    order = ["install -r", "push app/src/main/assets/edgemodel", "am start", "pull"]
    places = [next(number for number, line in enumerate(said) if each in line) for each in order]
    assert places == sorted(places) and "--ei repeats 3" in next(line for line in said if "am start" in line)
