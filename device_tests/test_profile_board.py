"""Profiles on the emulated board: rails and zones by name, energy against a known curve, heat, and what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from edgesdk.bundle import open_bundle
from edgesdk.devices import DeviceError
from edgesdk.devices.ssh import SshDevice
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope
from edgesdk.profile.profiling import profile, record_path, rederived
from edgesdk.profile.sampler import discover, once
from edgesdk.profile.schema import Plan, Profile, read_profile

from .conftest import board_settings
from .lab import Lab
from .lab.board import Board
from .models import answered

SPEC = DecoderSpec("llama", 96, 64, 2048, (Layer(Attention(4, 2, 16, 0.25, Rope(10000.0)), Mlp(96, "silu")),) * 2, 1e-5)
PLAN = Plan(
    prompt_tokens=(1500,),
    new_tokens=150,
    threads=(1,),
    repeats=3,
    starts=1,
    warmup=1,
    idle=2.0,
    share=None,
    cost=0,
    operators=False,
    memory=False,
)
MILLIVOLT = 4800
# Rises and falls in steps of 5 %, so that prefill and decode see different powers; each step says when it was.
RAMP = """
at=1000; by=48
while :; do
    read -r before _ < /proc/uptime
    lab-sensor rail 1 {millivolt} $at
    read -r after _ < /proc/uptime
    echo "$before $after $at"
    at=$((at + by)); [ $at -gt 2900 ] && by=-48; [ $at -lt 600 ] && by=48
    sleep 0.15
done
"""


# What the board's ramp and this machine's other work do to it, truly; the quiet of a board is no matter here.
BESIDE = {"busy-start", "contended", "wide-interval"}


def _codes(made: Profile) -> set[str]:
    return {reason.code for reason in made.reasons} - BESIDE


@dataclass
class Ramp:
    """The power that the board is made to show, in the background; ``steps`` are moment and watts."""

    device: SshDevice

    def __post_init__(self) -> None:
        self.steps: list[tuple[float, float]] = []
        self._line = self.device.stream(RAMP.format(millivolt=MILLIVOLT))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while True:
                before, after, milliampere = (float(word) for word in self._line.line(30).split())
                self.steps.append(((before + after) / 2 + 0.005, MILLIVOLT * (milliampere // 8 * 8) * 1e-6))
        except DeviceError:
            pass

    def close(self) -> None:
        self._line.close()
        self._thread.join(5)

    def joules(self, start: float, end: float) -> float:
        """The integral of the steps between two moments of the board's clock."""
        at = np.array([moment for moment, _ in self.steps])
        watts = np.array([power for _, power in self.steps])
        edges = np.concatenate([[start], at[(at > start) & (at < end)], [end]])
        held = watts[np.searchsorted(at, edges[:-1], side="right") - 1]
        return float((held * np.diff(edges)).sum())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import edgesdk
    from edgesdk.model.random_weights import RandomWeights

    folder = tmp_path_factory.mktemp("profiled") / "bundle"
    model = edgesdk.Model(SPEC, RandomWeights(SPEC, 1))
    return answered(model, "linux-arm64", "w4g32", SPEC.context, [1, 2, 3], folder, 2).bundle


@pytest.fixture
def board(lab_board: Board) -> SshDevice:
    return SshDevice("board", board_settings(lab_board))


def test_rails_and_zones_are_found_by_name(board: SshDevice, lab_board: Board) -> None:
    lab_board.set_rail(1, 4800, 1600)
    lab_board.set_temperature("gpu", 48.5)
    found = {sensor.name: sensor for sensor in discover(board).sensors}
    assert {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC", "cpu-thermal", "gpu-thermal", "tj-thermal"} <= set(found)
    assert (found["VDD_IN"].quantity, found["VDD_IN"].scope, found["VDD_IN"].total) == ("power", "board", True)
    assert (found["cpu-thermal"].limit, found["cpu-thermal"].critical) == (99.0, 104.5)
    now = once(board, list(found.values()))
    assert now["VDD_IN"] == pytest.approx(7.68) and now["gpu-thermal"] == 48.5


def test_energy_per_token_is_the_curves(board: SshDevice, bundle: Path, tmp_path: Path) -> None:
    ramp = Ramp(board)
    try:
        with open_bundle(bundle) as opened:
            made = profile(board, opened, tmp_path / "p.json", PLAN)
    finally:
        ramp.close()
    assert made.energy_scope == "board: VDD_IN" and made.device.emulated
    (case,) = made.cases
    errors = _errors(made, tmp_path / "p.json", ramp)
    print(f"\nenergy against the curve, relative: {errors}; {case.energy.values}")
    assert len(errors) == 2 * PLAN.repeats
    assert all(abs(error) <= 0.02 for error in errors.values()), errors
    assert made.validity == "degraded" and _codes(made) == {"emulated"}


def _errors(made: Profile, out: Path, ramp: Ramp) -> dict[str, float]:
    """Relative error of every repeat's energy per token, for both phases, on the board's own clock."""
    from edgesdk.profile.record import read_record

    lines = [line for line in read_record(record_path(out)) if line["key"].startswith("repeat/")]
    (case,) = made.cases
    found = {}
    for index, line in enumerate(lines):
        offset = (line["clock"]["boottime"] - line["clock"]["at"]) / 1e9
        prefill = next(event for event in line["events"] if event["event"] == "prefill")
        tokens = [event for event in line["events"] if event["event"] == "token"][:-1]
        end = prefill["at"] / 1e9 + offset
        start, last = end - prefill["ticks"] / 1e9, tokens[-1]["at"] / 1e9 + offset
        prefilled, decoded = ramp.joules(start, end) / prefill["tokens"], ramp.joules(end, last) / len(tokens)
        found[f"prefill {index}"] = case.energy.values["prefill_energy"].each[index] / prefilled - 1
        found[f"decode {index}"] = case.energy.values["decode_energy"].each[index] / decoded - 1
    return found


class Meanwhile(threading.Thread):
    """Does something on the board when so many repeats are on record."""

    def __init__(self, out: Path, repeats: int, act: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._record, self._repeats, self._act = record_path(out), repeats, act
        self.over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.1):
            if self._record.is_file() and self._record.read_bytes().count(b'"key":"repeat/') >= self._repeats:
                self._act()
                return


SHORT = replace(PLAN, prompt_tokens=(64,), new_tokens=100, idle=0.5)


def _profiled(device: SshDevice, bundle: Path, out: Path, act: Callable[[], object], plan: Plan = SHORT) -> Profile:
    meanwhile = Meanwhile(out, 1, act)
    try:
        with open_bundle(bundle) as opened:
            return profile(device, opened, out, plan)
    finally:
        meanwhile.over.set()
        meanwhile.join()


def test_a_zone_past_its_trip_is_throttling(board: SshDevice, lab_board: Board, bundle: Path, tmp_path: Path) -> None:
    lab_board.set_temperature("cpu", 60)
    try:
        made = _profiled(
            board, bundle, tmp_path / "p.json", lambda: lab_board.set_temperature("cpu", 100), replace(SHORT, repeats=6)
        )
    finally:
        lab_board.set_temperature("cpu", 45)
    assert made.throttling.verdict == "throttled"
    assert any("cpu-thermal reached 100.0 °C, its passive trip is 99.0" in each for each in made.throttling.evidence)
    assert made.cases[0].temperature.values["peak"].each[-1] == 100.0


def test_a_critical_zone_shuts_the_board_down_and_what_came_before_is_kept(
    lab: Lab, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.json"
    with lab.board() as found:
        device = SshDevice("board", board_settings(found))
        with pytest.raises(DeviceError):
            _profiled(device, bundle, out, lambda: found.set_temperature("cpu", 106), replace(SHORT, repeats=1000))
    made = read_profile(out)
    assert (made.validity, made.throttling.verdict) == ("degraded", "shut down")
    assert "device-gone" in {reason.code for reason in made.reasons}
    assert any("critical trip" in each for each in made.throttling.evidence)
    assert made.cases[0].latency.values["decode_rate"].each
    assert rederived(out) == made


def test_a_runner_that_is_killed_leaves_what_it_did_and_the_next_run_goes_on(
    board: SshDevice, lab_board: Board, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.json"
    with pytest.raises(DeviceError, match="ended"):
        _profiled(board, bundle, out, lambda: lab_board.run("pkill -9 -f runner.pyz"), replace(SHORT, repeats=8))
    cut = read_profile(out)
    assert cut.validity == "degraded" and "runner-failed" in {reason.code for reason in cut.reasons}
    kept = cut.cases[0].latency.values["decode_rate"].each
    assert 1 <= len(kept) < 8
    with open_bundle(bundle) as opened:
        whole = profile(board, opened, out, replace(SHORT, repeats=8))
    assert whole.cases[0].latency.values["decode_rate"].each[: len(kept)] == kept
    assert len(whole.cases[0].latency.values["decode_rate"].each) == 8
    assert _codes(whole) == {"emulated"}


def test_a_sensor_that_goes_takes_its_figures_along(
    board: SshDevice, lab_board: Board, bundle: Path, tmp_path: Path
) -> None:
    driver = "/sys/bus/i2c/drivers/ina3221"
    chip = lab_board.run(f"cd {driver} && ls -d *-*").split()[0]
    try:
        made = _profiled(
            board,
            bundle,
            tmp_path / "p.json",
            lambda: lab_board.run(f"echo {chip} > {driver}/unbind"),
            replace(SHORT, repeats=6),
        )
    finally:
        lab_board.run(f"echo {chip} > {driver}/bind")
    assert made.validity == "degraded"
    (lost,) = [reason.text for reason in made.reasons if reason.code == "sensor-lost"]
    assert "VDD_IN" in lost
    energy = made.cases[0].energy
    assert "sensor-lost" in {reason.code for reason in energy.reasons}
    assert len(energy.values["decode_energy"].each) < 6 == len(made.cases[0].latency.values["decode_rate"].each)


def test_setting_the_wall_clock_changes_nothing(
    board: SshDevice, lab_board: Board, bundle: Path, tmp_path: Path
) -> None:
    made = _profiled(board, bundle, tmp_path / "p.json", lambda: lab_board.run("date -s 2031-05-05"))
    assert _codes(made) == {"emulated"}
    assert all(b > a for stretch in made.stretches for a, b in zip(stretch.tokens, stretch.tokens[1:], strict=False))
