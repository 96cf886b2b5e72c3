"""Profiles of a firmware in an emulator that counts instructions: ticks, always the same, never shown as time."""

from __future__ import annotations

import numpy as np
import pytest

import edgesdk
from edgesdk.cli import run
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope
from edgesdk.profile.compare import compared
from edgesdk.profile.schema import Profile, read_profile

from .lab import Lab, LabUnavailableError

SPEC = DecoderSpec(
    "llama", 256, 64, 64, (Layer(Attention(4, 2, 16, 0.25, Rope(10000.0)), Mlp(128, "silu")),) * 2, 1e-5, tied=True
)
_INTERRUPT = 20  # ticks, of some hundred thousand
PLAN = ["--prompt-tokens", "8", "--new-tokens", "12", "--repeats", "3", "--warmup", "1", "--no-history"]


@pytest.fixture(scope="module")
def profiles(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> list[Profile]:
    """Two profiles of one bundle, flashed by gdb and measured by the command line."""
    folder = tmp_path_factory.mktemp("profiled")
    model = edgesdk.Model(SPEC, RandomWeights(SPEC, 1))
    checks = edgesdk.Checks(skip=True)
    edgesdk.export(model, "cortex-m4f", folder / "bundle", recipe="w8", context=64, checks=checks)
    bundle, found = str(folder / "bundle"), []
    try:
        with lab.microcontroller("mps2-an386", "-icount", "shift=6") as board:
            device = ["-d", f"serial:{board.uart}"]
            flash = ["--board", "mps2-an386", "--with", "gdb", "--probe", board.gdb]
            assert run(["flash", bundle, *device, *flash]) == 0
            for number in range(2):
                out = folder / f"{number}.json"
                assert run(["profile", bundle, *device, *PLAN, "-o", str(out)]) == 0
                found.append(read_profile(out))
    except LabUnavailableError as failure:
        pytest.skip(f"{failure.message} ({failure.hint})")
    return found


def test_profiles_of_one_bundle_are_identical(profiles: list[Profile]) -> None:
    """But for the interrupt of a command's last byte, which may come a few instructions into the measurement."""
    one, other = (profile.cases[0].latency.values for profile in profiles)
    for name in ("time_to_first_token", "token_p50", "token_p90", "token_p99", "sampling"):
        assert np.ptp([*one[name].each, *other[name].each]) <= _INTERRUPT, name
    for name in ("prefill_rate", "decode_rate"):
        assert np.ptp([12 / each for each in (*one[name].each, *other[name].each)]) <= _INTERRUPT, name
    assert profiles[0].memory == profiles[1].memory
    assert {change.verdict for change in compared(*profiles) if change.ratio is not None} == {"same"}


def test_ticks_are_never_seconds(profiles: list[Profile]) -> None:
    (case,) = profiles[0].cases
    assert {value.unit for value in case.latency.values.values()} == {"ticks", "tokens/tick"}
    assert "emulated" in {reason.code for reason in case.latency.reasons}
    assert profiles[0].validity == "degraded"
    assert case.energy.values["decode_energy"].reason == "no-sensor"
    assert profiles[0].memory.values["arena"].value and profiles[0].memory.values["stack"].value
