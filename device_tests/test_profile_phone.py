"""Profiles on the emulated phone, over real adb: what vendors' phones print, charging, heat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import edgesdk
from edgesdk.bundle import open_bundle
from edgesdk.devices import Settings
from edgesdk.devices.adb import AdbDevice
from edgesdk.devices.runner.native import RunnerUnavailableError
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope
from edgesdk.profile.profiling import profile
from edgesdk.profile.sampler import discover, once
from edgesdk.profile.schema import Plan, Profile

from .conftest import _or_skip
from .lab import Lab
from .models import answered

SPEC = DecoderSpec("llama", 96, 64, 128, (Layer(Attention(4, 2, 16, 0.25, Rope(10000.0)), Mlp(96, "silu")),) * 2, 1e-5)
PLAN = Plan(
    prompt_tokens=(32,), new_tokens=16, threads=(1,), repeats=3, starts=1, warmup=0, idle=2.0, cost=1, operators=False
)
RECORDINGS = Path(__file__).parents[1] / "tests" / "unit" / "sensor_recordings"
# Of each vendor's recording: hottest zones by name in °C, the battery's °C and volts, and whether something feeds it.
VENDORS = {
    "google_pixel": ({"VIRTUAL-SKIN": 22.77, "BIG": 52.0, "qi_therm": 22.27}, 28.4, 4.213, False),
    "samsung_galaxy": ({"AP": 44.8, "SKIN": 38.0, "PA": 36.9}, 32.6, 4.063, False),
    "xiaomi_hyperos": ({"CPU0": 52.1, "CPU7": 50.3, "skin": 37.4}, 32.0, 4.213, True),
    "qualcomm_oneplus": ({"cpu-1-4-usr": 33.5, "gpuss-0-usr": 35.2, "xo_therm": 33.4}, 28.4, 4.213, True),
    "huawei_emui": ({"TYPE_CPU": 24.0, "TYPE_SKIN": 25.3, "TYPE_POWER_AMPLIFIER": 31.0}, 28.4, 4.213, False),
}


@pytest.fixture(scope="module")
def phone(lab: Lab, server: int) -> Iterator[AdbDevice]:
    """A phone of its own, whose services print what a test puts there."""
    with _or_skip(lab.phone) as found:
        device = AdbDevice("phone", Settings(f"adb:{found.serial}"))
        device.run("mkdir -p /data/lab/dumpsys", check=True)
        yield device
        device.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profiled") / "bundle"
    model = edgesdk.Model(SPEC, RandomWeights(SPEC, 1))
    return answered(model, "linux-arm64", "w4g32", SPEC.context, [1, 2, 3], folder, 2).bundle


def _become(phone: AdbDevice, vendor: str) -> None:
    """Have the phone's services print what a vendor's do."""
    text = (RECORDINGS / f"{vendor}.txt").read_text(encoding="utf-8")
    own = text.split("@source android\n", 1)[1].split("\n@", 1)[0] + "\n"
    thermal, title, battery = own.partition("Current Battery Service state:")
    for service, said in (("thermalservice", thermal), ("battery", title + battery)):
        phone.run(f"cat > /data/lab/dumpsys/{service}", stdin=said.encode(), check=True)


@pytest.mark.parametrize("vendor", VENDORS)
def test_each_vendors_services_are_understood(phone: AdbDevice, vendor: str) -> None:
    hide = "mkdir /sys/hidden && mv /sys/class/power_supply /sys/class/thermal /sys/hidden"
    phone.run(hide, check=True)  # as on phones whose shell may not read them
    try:
        _become(phone, vendor)
        found = discover(phone).sensors
        now = once(phone, found)
    finally:
        phone.run("mv /sys/hidden/* /sys/class && rmdir /sys/hidden", check=True)
    zones, celsius, volt, fed = VENDORS[vendor]
    assert zones == {name: now[name] for name in zones}
    assert now["battery temperature"] == pytest.approx(celsius)
    assert now["battery voltage"] == pytest.approx(volt)
    assert bool(now["battery powered"]) is fed


def test_energy_is_invalid_while_the_phone_charges(phone: AdbDevice, bundle: Path, tmp_path: Path) -> None:
    _become(phone, "xiaomi_hyperos")
    made = _profiled(phone, bundle, tmp_path / "p.json")
    energy = made.cases[0].energy
    assert energy.validity == "invalid" and [each.code for each in energy.reasons] == ["charging"]
    assert {(value.value, value.reason) for value in energy.values.values()} == {(None, "charging")}
    assert made.cases[0].temperature.values["peak"].value == 52.1
    assert len(made.cases[0].latency.values["decode_rate"].each) == 3


def test_a_battery_whose_unit_cannot_be_told_gives_no_energy(phone: AdbDevice, bundle: Path, tmp_path: Path) -> None:
    _become(phone, "google_pixel")
    made = _profiled(phone, bundle, tmp_path / "p.json")
    assert [each.code for each in made.cases[0].energy.reasons] == ["unit-unsure"]
    assert made.throttling.verdict == "none"


def test_a_phone_that_says_that_it_throttles_is_believed(phone: AdbDevice, bundle: Path, tmp_path: Path) -> None:
    _become(phone, "samsung_galaxy")
    made = _profiled(phone, bundle, tmp_path / "p.json")
    assert made.throttling.verdict == "throttled" and "thermal status was 1" in made.throttling.evidence


def _profiled(phone: AdbDevice, bundle: Path, out: Path) -> Profile:
    with open_bundle(bundle) as opened:
        return profile(phone, opened, out, PLAN)


def test_the_cpp_runner_is_profiled_too(phone: AdbDevice, tmp_path: Path) -> None:
    _become(phone, "google_pixel")
    model = edgesdk.Model(SPEC, RandomWeights(SPEC, 1))
    bundle = answered(model, "android-arm64", "w4g32", SPEC.context, [1, 2, 3], tmp_path / "bundle", 2).bundle
    try:
        made = _profiled(phone, bundle, tmp_path / "p.json")
    except RunnerUnavailableError as failure:
        pytest.skip(f"{failure.message} ({failure.hint})")
    (case,) = made.cases
    assert len(case.latency.values["decode_rate"].each) == 3 and made.clock.uncertainty is not None
    assert made.memory.values["pss"].value
    assert case.temperature.values["peak"].value == 42.0  # the kernel's own zone goes before the service's
