"""Boards as their owners know them: totals, zones without a sensor, gated parts, several batteries, closed counters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgesdk.profile import batteries, zones
from edgesdk.profile.energy import Track, chosen
from edgesdk.profile.schema import SensorFacts
from edgesdk.profile.sensors import discovered, remarked, values
from edgesdk.profile.sensors.base import Sensor, Sum
from edgesdk.profile.sensors.boards import connected, known

RECORDINGS = Path(__file__).parent / "sensor_recordings"


def listing(name: str) -> str:
    return (RECORDINGS / f"{name}.txt").read_text()


def facts(sensor: Sensor) -> SensorFacts:
    return SensorFacts(
        sensor.name, sensor.quantity, sensor.unit, sensor.scope, sensor.source, sensor.evidence, sensor.total
    )


@pytest.mark.parametrize(
    ("board", "source", "parts"),
    [
        ("jetson_agx_thor", "VIN", ()),
        ("jetson_agx_orin", "GPU_SOC + CPU_CV + SYS_5V0", ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")),
        (
            "tegrastats_jetson_agx_xavier",
            "GPU + CPU + SOC + CV + VDDRQ + SYS5V",
            ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
        ),
        ("tegrastats_jetson_xavier_nx", "VDD_IN", ()),
        ("jetson_orin_nano", "VDD_IN", ()),
        ("tegrastats_jetson_tx2", "VDD_IN", ()),
        ("jetson_nano_jetpack4", "POM_5V_IN", ()),
        ("raspberry_pi_5", "PMIC rails", ()),
        ("rk3588", None, ()),
        ("google_pixel", "battery power", ()),
        ("samsung_galaxy", None, ()),
        ("qualcomm_oneplus", None, ()),
        ("xiaomi_hyperos", "battery power", ()),
        ("laptop_two_batteries", "batteries power", ("BAT0 power", "BAT1 power")),
    ],
)
def test_what_energy_is_taken_from(board: str, source: str | None, parts: tuple[str, ...]) -> None:
    found = discovered(listing(board))
    taken = chosen([facts(sensor) for sensor in found])
    assert (taken.name if taken else None) == source
    sums = [sensor.reading.names for sensor in found if sensor.total and isinstance(sensor.reading, Sum)]
    powers = {sensor.name for sensor in found if sensor.quantity == "power"}
    for names in sums:
        assert {*names} <= powers
        assert [name.removesuffix(" power") if not name.startswith("BAT") else name for name in names] == [*parts]


@pytest.mark.parametrize("missing", ["GPU 463/463 ", "CV 0/0 ", "SYS5V 3306/3306"])
def test_a_sum_without_one_of_its_rails_is_none(missing: str) -> None:
    assert not any(sensor.total for sensor in discovered(listing("tegrastats_jetson_agx_xavier").replace(missing, "")))


def test_a_channel_that_is_not_connected_is_none() -> None:
    rails = "NC 0mW/0mW VDD_GPU_SOC 2340mW/2340mW NC2 1mW/1mW VDD_NC 5mW/5mW VDD_SYNC 7mW/7mW VDD_CPU_CV -12mW/3mW"
    assert values("jetson", f"RAM 1/2MB {rails}") == {"VDD_GPU_SOC": 2.34, "VDD_SYNC": 0.007, "VDD_CPU_CV": -0.012}
    assert [connected(label) for label in ("NC", "NC1", "A_NC_B", "VDD_SYNC", "")] == [False, False, False, True, False]


def test_a_negative_rail_is_kept_from_files_too() -> None:
    text = "@source hwmon\n" + "".join(
        f"/sys/class/hwmon/hwmon0/{name}\n"
        for name in ("name=ina3221", "in1_label=CV", "in1_input=5000", "curr1_input=-8")
    )
    assert [sensor.name for sensor in discovered(f"{text}@end\n")] == ["CV"]


@pytest.mark.parametrize("celsius", ["50", "100"])
def test_the_pmic_without_a_sensor_is_left_out_of_both(celsius: str) -> None:
    zone = "/sys/class/thermal/thermal_zone1"
    files = f"@source thermal_zones\n{zone}/type=PMIC-Die\n{zone}/temp={celsius}000\n@end\n"
    told = f"@source jetson\nRAM 1/2MB PMIC@{celsius}C CPU@41C VDD_IN 1mW/1mW\n@end\n"
    assert discovered(files) == [] and [sensor.name for sensor in discovered(told)] == ["VDD_IN", "CPU"]
    assert [sensor.name for sensor in discovered(files.replace(f"{celsius}000", "47500"))] == ["PMIC-Die"]


def test_a_part_without_power_is_asked_again() -> None:
    zone = "/sys/class/thermal/thermal_zone1"
    trips = f"{zone}/trip_point_0_type=critical\n{zone}/trip_point_0_temp=99000"
    by_trips = f"@source thermal_zones\n{zone}/type=gpu\n{trips}\n@end\n"
    by_value = f"@source thermal_zones\n{zone}/type=GPU-therm\n{zone}/temp=-256000\n@end\n"
    told = "@source jetson\nRAM 1/2MB CV0@-256C CPU@41C\n@end\n"
    (gpu,), (therm,) = discovered(by_trips), discovered(by_value)
    assert gpu.rests and gpu.critical == 99 and therm.rests
    assert {sensor.name: sensor.rests for sensor in discovered(told)} == {"CV0": True, "CPU": False}
    assert values("jetson", told) == {"CPU@": 41.0}  # at this moment it says nothing
    assert values("jetson", told.replace("-256", "44.5")) == {"CPU@": 41.0, "CV0@": 44.5}
    assert discovered(f"@source thermal_zones\n{zone}/type=gpu\n@end\n") == []  # nothing says that it is a sensor


def test_rapl_that_may_not_be_read_says_so() -> None:
    text = listing("laptop_two_batteries")
    (remark,) = remarked(text)
    assert remark.code == "not-permitted" and "chmod a+r /sys/class/powercap/intel-rapl:0/energy_uj" in remark.text
    assert remarked(text.replace("=core", "=core\n/sys/class/powercap/intel-rapl:0:0/energy_uj=1").replace(
        "=package-0", "=package-0\n/sys/class/powercap/intel-rapl:0/energy_uj=1")) == []  # fmt: skip
    assert remarked(listing("rk3588")) == []


def track(*values: float) -> Track:
    return Track(np.arange(len(values), dtype=float), np.array(values))


def zone(name: str) -> SensorFacts:
    return SensorFacts(name, "temperature", "°C", "zone", "thermal_zones", "", False)


def test_a_zone_that_never_moves_has_no_sensor_once_others_moved() -> None:
    warming = track(*np.linspace(40, 44, 30))
    hot = track(*np.linspace(40, 52, 30))
    for stuck, other, found in (
        (track(*[50.0] * 30), warming, True),
        (track(*[16.0] * 30), warming, True),
        (track(*[41.0] * 30), warming, False),  # a slow zone that is read in whole degrees
        (track(*[41.0] * 30), hot, True),
        (track(*[50.0] * 30), track(*[43.0] * 30), False),  # at rest nothing is told
        (track(*[50.0] * 4), hot, False),
        (track(*[50.0] * 29, 50.5), hot, False),
    ):
        said = zones.without_sensor([zone("a"), zone("b")], {"a": stuck, "b": other})
        assert ("a" in said) is found and "b" not in said
    assert "a" in zones.without_sensor([zone("a")], {"a": track(*[50.0] * 30)})


def flag(name: str) -> SensorFacts:
    return SensorFacts(name, "flag", "", "battery", "power_supply", "", False)


def test_a_charger_that_says_so_decides_and_a_resting_battery_is_none() -> None:
    names = [flag(name) for name in ("AC online", "BAT0 charging", "BAT1 charging")]
    for online, first, second, found in (
        (0, 0, 0, None),
        (0, 1, 0, None),  # one rests, and is Full or Not charging
        (1, 0, 0, "AC online"),
        (0, 1, 1, "BAT0 charging"),
    ):
        tracks = {"AC online": track(online), "BAT0 charging": track(first), "BAT1 charging": track(second)}
        assert batteries.plugged(names, tracks) == found
    assert batteries.plugged([flag("battery charging")], {"battery charging": track(0, 0, 1)}) == "battery charging"
    assert batteries.plugged([flag("battery charging")], {"battery charging": track(0, 0)}) is None


def test_batteries_add_up_each_with_its_own_state() -> None:
    seconds = np.arange(0.0, 400.0, 1.0)
    left = 13.19 * 3600 - 6.274 * seconds
    drops = np.floor(left / 36) * 36  # the gauge counts in steps of 10 mWh
    tracks = {
        "BAT0 power": Track(seconds, np.zeros_like(seconds)),
        "BAT0 charging": Track(seconds[:0], seconds[:0]),  # Unknown is no answer
        "BAT1 power": Track(seconds, np.full_like(seconds, 6.274)),
        "BAT1 energy": Track(seconds, drops),
        "BAT1 charging": Track(seconds, np.zeros_like(seconds)),
    }
    sensors = {sensor.name: sensor for sensor in discovered(listing("laptop_two_batteries"))}
    tracks["batteries power"] = Track(seconds, np.full_like(seconds, 6.274))
    source = facts(sensors["batteries power"])
    power, doubt, evidence = batteries.spent(source, tracks, ("BAT0 power", "BAT1 power"))
    assert doubt is None and power is not None and np.allclose(power.values, 6.274)
    assert "BAT0 power: it gave nothing" in evidence and "BAT1 power: positive" in evidence
    del tracks["BAT1 energy"]
    power, doubt, _ = batteries.spent(source, tracks, ("BAT0 power", "BAT1 power"))
    assert power is None and doubt is not None and doubt.code == "unit-unsure" and "BAT1 power" in doubt.text


def test_the_table_names_its_sources() -> None:
    table = known()
    assert table.checked >= "2026-12-01"
    assert all(row.source and row.boards and row.why for row in table.total)
    assert all((row.name is None) == (len(row.rails) == 1) for row in table.total)
