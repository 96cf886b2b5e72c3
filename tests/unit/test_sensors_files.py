"""Sources that read small files: units, limits, totals, and what is left out."""

from __future__ import annotations

import pytest

from edgesdk.profile import sensors
from edgesdk.profile.sensors.base import Asked, Files, Sum

from .test_sensors import found


def zones(*entries: tuple[str, object]) -> list[str]:
    lines = [
        f"/sys/class/thermal/thermal_zone{index}/{file}={value}"
        for index, (kind, temp) in enumerate(entries)
        for file, value in (("type", kind), ("temp", temp))
    ]
    return [sensor.name for sensor in sensors.discovered("\n".join(["@source thermal_zones", *lines, "@end", ""]))]


def test_jetson_rails_are_millivolt_times_milliampere() -> None:
    nano = found("jetson_orin_nano.txt")
    rail = nano["VDD_IN"]
    assert isinstance(rail.reading, Files)
    assert [path.rpartition("/")[2] for path in rail.reading.paths] == ["in1_input", "curr1_input"]
    assert rail.reading.scale == 1e-6
    assert (rail.scope, rail.total) == ("board", True)
    assert (nano["VDD_SOC"].scope, nano["VDD_SOC"].total) == ("rail", False)
    assert nano["VDD_IN over-current"].quantity == "flag"


def test_jetson_sum_of_shunts_and_unconnected_channels_are_left_out() -> None:
    assert not [name for name in found("jetson_orin_nano.txt") if "shunt" in name or "in7" in name]
    agx = found("jetson_agx_orin.txt")
    assert not [name for name in agx if "NC" in name]
    assert "VDDQ_VDD2_1V8AO" in agx


def test_agx_orin_total_is_a_sum_that_says_what_it_lacks() -> None:
    totals = [sensor for sensor in found("jetson_agx_orin.txt").values() if sensor.total]
    assert [sensor.reading for sensor in totals] == [Sum(("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))]
    assert "carrier board is not measured" in totals[0].evidence


def test_rails_are_found_by_name_wherever_hwmon_puts_them() -> None:
    one = found("jetson_orin_nano.txt")["VDD_IN"]
    assert one.name == "VDD_IN"
    moved = "@source hwmon\n" + "".join(
        f"/sys/class/hwmon/hwmon7/{file}\n"
        for file in ("name=ina3221", "in2_label=VDD_IN", "in2_input=1", "curr2_input=1")
    )
    (rail,) = sensors.discovered(f"{moved}@end\n")
    assert (rail.name, rail.total) == ("VDD_IN", True)


def test_chips_of_one_name_are_told_apart_by_their_device_not_by_their_number() -> None:
    laptop = found("x86_laptop.txt")
    assert {"Composite nvme nvme0", "Composite nvme nvme1"} <= set(laptop)


def test_hwmon_units() -> None:
    laptop = found("x86_laptop.txt")
    scales = {
        name: laptop[name].reading.scale  # type: ignore[union-attr]
        for name in ("Package id 0", "PPT", "ina228", "ina228 voltage", "ina228 current", "ina228 energy")
    }
    assert list(scales.values()) == [1e-3, 1e-6, 1e-6, 1e-3, 1e-3, 1e-6]
    assert laptop["Package id 0"].critical == 100
    assert "averaged" in laptop["PPT"].evidence


def test_a_battery_that_the_kernel_shows_as_a_chip_stands_once() -> None:
    laptop = found("x86_laptop.txt")
    assert [name for name in laptop if "BAT0" in name] == []
    assert laptop["battery power"].reading == Files(("/sys/class/power_supply/BAT0/power_now",), 1e-6)


def test_zone_limits() -> None:
    nano = found("jetson_orin_nano.txt")
    assert (nano["cpu-thermal"].limit, nano["cpu-thermal"].critical) == (99, 104.5)
    assert (nano["soc0-thermal"].limit, nano["soc0-thermal"].critical) == (None, None)
    assert found("x86_laptop.txt")["x86_pkg_temp"].limit is None  # a trip of 0 is none


def test_a_hot_trip_limits_where_there_is_no_passive_one() -> None:
    base = "/sys/class/thermal/thermal_zone0"
    trips = f"{base}/trip_point_0_type=hot\n{base}/trip_point_0_temp=90000\n"
    (zone,) = sensors.discovered(f"@source thermal_zones\n{base}/type=a\n{base}/temp=50000\n{trips}@end\n")
    assert zone.limit == 90


@pytest.mark.parametrize("temp", [-273000, -273150, -40000, 150000, 2147483647, -99900, 0, 42, "", "nan", "x"])
def test_zones_whose_temperature_is_a_sentinel_or_of_another_unit_are_left_out(temp) -> None:
    assert zones(("cpu", temp), ("gpu", 45000)) == ["gpu"]


def test_zones_that_are_no_temperature_are_left_out() -> None:
    kinds = ("soc", "pm8550b-ibat-lvl0", "pm8550b_vbat", "bcl-lvl0", "vdroop1", "ocp_cpu1", "batoilo")
    assert zones(*((kind, 8000) for kind in kinds), ("PMIC-Die", 100000), ("soc0-thermal", 47000)) == ["soc0-thermal"]


def test_zones_of_one_type_get_a_suffix_in_the_order_of_their_numbers() -> None:
    assert zones(*[("tsens", 40000)] * 3) == ["tsens", "tsens 2", "tsens 3"]


def test_cpufreq_is_hertz_with_limit_and_cap() -> None:
    pixel = found("google_pixel.txt")
    assert pixel["policy6"].reading == Files(("/sys/devices/system/cpu/cpufreq/policy6/scaling_cur_freq",), 1000)
    assert pixel["policy6"].limit == pixel["policy6 cap"].limit == 2_914_000_000
    assert isinstance(pixel["policy6 cap"].reading, Files)
    assert pixel["policy6 cap"].reading.paths[0].endswith("scaling_max_freq")


def test_cores_stand_once_where_policies_are_links_of_them() -> None:
    assert [name for name in found("jetson_orin_nano.txt") if name.startswith("cpu0")] == []
    core = "/sys/devices/system/cpu/cpu0/cpufreq"
    lab = f"@source cpufreq\n{core}/scaling_cur_freq=1704000\n{core}/scaling_max_freq=2914000\n@end\n"
    assert [sensor.name for sensor in sensors.discovered(lab)] == ["cpu0", "cpu0 cap"]


def test_power_supply_units_and_flags() -> None:
    pixel = found("google_pixel.txt")
    folder = "/sys/class/power_supply/battery"
    assert pixel["battery charge"].reading == Files((f"{folder}/charge_counter",), 3600e-6)
    assert pixel["battery power"].reading == Files((f"{folder}/voltage_now", f"{folder}/current_now"), 1e-12)
    assert pixel["battery power"].total
    assert pixel["usb online"].reading == Files(("/sys/class/power_supply/usb/online",))
    for name in ("battery current", "battery power"):
        assert "to be confirmed" in pixel[name].evidence
    charging = pixel["battery charging"].reading
    assert isinstance(charging, Asked)
    assert charging.command == f'read -r s < {folder}/status; echo "status $s"'


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("Charging", 1),
        ("Full", 1),
        ("Not charging", 1),
        ("Discharging", 0),
        ("Unknown", None),
        ("", None),
        ("Disch", None),
    ],
)
def test_a_battery_with_a_charger_is_never_said_to_discharge(word, value) -> None:
    assert sensors.values("power_supply", f"status {word}\n").get("charging") == value


def test_a_mouse_is_not_the_device() -> None:
    assert not [name for name in found("x86_laptop.txt") if "hidpp" in name]


def test_rapl_package_wraps_and_unreadable_zones_are_left_out() -> None:
    laptop = found("x86_laptop.txt")
    package = laptop["package-0"]
    assert (package.quantity, package.total, package.scope) == ("energy", True, "package")
    assert package.wraps_at == pytest.approx(262143.32885)
    assert not laptop["core"].total
    assert "psys" not in laptop


def test_several_packages_are_summed() -> None:
    lines = [
        f"/sys/class/powercap/intel-rapl:{index}/{file}"
        for index in (0, 1)
        for file in (f"name=package-{index}", "energy_uj=5", "max_energy_range_uj=100")
    ]
    found_sensors = sensors.discovered("\n".join(["@source rapl", *lines, "@end", ""]))
    assert [(sensor.name, sensor.total) for sensor in found_sensors] == [
        ("package-0", False),
        ("package-1", False),
        ("packages", True),
    ]
    assert found_sensors[-1].reading == Sum(("package-0", "package-1"))
