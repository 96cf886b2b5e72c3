"""Profiles measured on this machine: the sampler, the protocol, what goes wrong in a run."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

import edgesdk
from edgesdk.bundle import open_bundle
from edgesdk.cli import run
from edgesdk.devices import DeviceError, Settings
from edgesdk.devices.local import LocalDevice
from edgesdk.errors import EdgeError
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope
from edgesdk.profile import profiling
from edgesdk.profile.compare import compared
from edgesdk.profile.derive import derived
from edgesdk.profile.sampler import Sampler
from edgesdk.profile.schema import Plan, Profile, Section, read_profile
from edgesdk.profile.sensors.base import Asked, Files, Metered, Sensor
from edgesdk.profile.statistics import summarised

from .profile_records import record


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


def test_against_takes_more_starts_and_says_what_became_of_the_first_bundle(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def measured(devices: object, bundles: object, outs: object, plan: Plan, **_: object) -> tuple[Profile, Profile]:
        asked.append(plan)
        fast, slow = (replace(derived(record()), load=load) for load in _loads(1.0, 2.0))
        return slow, fast

    monkeypatch.setattr(profiling, "profile_in_turns", measured)
    arguments = ["profile", str(bundle), "--against", str(bundle), "--device", "local", "--no-history"]
    assert run([*arguments, "-o", str(tmp_path / "p.json")]) == 0
    assert (asked[0].repeats, asked[0].starts) == (profiling.IN_TURNS.repeats, profiling.IN_TURNS.starts)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("load_time"))
    assert "1 s" in line and line.index("1 s") < line.index("2 s") and "worse" in line


def _loads(*seconds: float) -> list[Section]:
    return [Section(values={"seconds": summarised([each, each, each], "s", "")}) for each in seconds]


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
