"""Sources that ask commands: vendors' peculiarities, sentinels, and numbers that only look like what is wanted."""

from __future__ import annotations

import pytest

from edgesdk.profile import sensors
from edgesdk.profile.sensors.base import Asked

from .test_sensors import RECORDINGS, found

TEGRASTATS = (RECORDINGS / "tegrastats.txt").read_text().splitlines()


def values(source: str, name: str) -> dict[str, float]:
    return sensors.values(source, (RECORDINGS / name).read_text())


def test_only_the_block_of_current_temperatures_is_read() -> None:
    pixel = values("android", "google_pixel.txt")
    assert pixel["temperature VIRTUAL-SKIN"] == 22.77  # 40.0 is cached
    xiaomi = values("android", "xiaomi_hyperos.txt")
    assert xiaomi["temperature CPU0"] == 52.1
    cached = "Thermal Status: 0\nCached temperatures:\n Temperature{mValue=40.0, mType=3, mName=SKIN, mStatus=0}\n"
    assert sensors.values("android", cached) == {"thermal status": 0}


def test_pixel_limiters_and_differences_are_no_temperatures() -> None:
    names = {name for name in values("android", "google_pixel.txt") if name.startswith("temperature ")}
    assert names == {f"temperature {name}" for name in ("TPU", "BIG", "VIRTUAL-SKIN", "battery", "qi_therm")}


def test_qualcomm_percentage_of_charge_is_no_temperature() -> None:
    oneplus = values("android", "qualcomm_oneplus.txt")
    assert "temperature soc" not in oneplus
    assert "temperature pmic" not in oneplus  # -99.9
    assert oneplus["temperature xo_therm"] == 33.4
    assert set(found("qualcomm_oneplus.txt")) >= {"xo-therm", "shell_front", "cpu-0-0-0", "cpu-0-0-0 2", "gpuss-0-usr"}


def test_huawei_counts_types_differently_and_is_told_by_name() -> None:
    huawei = found("huawei_emui.txt")
    assert huawei["TYPE_SKIN"].evidence.endswith("skin")
    assert huawei["TYPE_BATTERY"].scope == "battery"
    assert "TYPE_POWER_AMPLIFIER" in huawei  # type 6, which elsewhere is a voltage limiter
    assert values("android", "huawei_emui.txt")["temperature TYPE_SKIN"] == 25.3


def test_samsung_unfitted_sensors_are_left_out() -> None:
    samsung = found("samsung_galaxy.txt")
    assert {"AP", "BAT", "PA", "SKIN"} <= set(samsung)
    assert not {"SUBBAT", "USB"} & set(samsung)
    assert samsung["BAT"].scope == "battery"
    assert values("android", "samsung_galaxy.txt")["thermal status"] == 1


def test_samsung_lines_that_look_like_others_are_not_them() -> None:
    samsung = values("android", "samsung_galaxy.txt")
    assert samsung["battery charging"] == 0  # LED Charging: true
    assert samsung["battery powered"] == 0
    assert samsung["battery temperature"] == pytest.approx(32.6)  # not mSavedBatteryMaxTemp
    assert "battery charge" not in samsung  # a counter of 0 is none
    assert "battery current" not in samsung  # its "current now" is stale, and in milliampere


def test_a_row_that_is_listed_twice_stands_once_and_nan_never() -> None:
    xiaomi = found("xiaomi_hyperos.txt")
    assert [name for name in xiaomi if "skin" in name] == ["skin"]
    assert "GPU0" not in xiaomi


def test_a_charging_phone_says_so() -> None:
    xiaomi = values("android", "xiaomi_hyperos.txt")
    assert (xiaomi["battery charging"], xiaomi["battery powered"]) == (1, 1)
    full = values("android", "qualcomm_oneplus.txt")
    assert (full["battery charging"], full["battery powered"]) == (1, 1)


def test_a_faked_state_is_not_believed() -> None:
    moto = values("android", "motorola_no_hal.txt")
    assert moto == {"thermal status": 0}
    assert list(found("motorola_no_hal.txt")) == ["thermal status"]


def test_current_of_the_battery_service_only_where_it_answers() -> None:
    xiaomi = found("xiaomi_hyperos.txt")["battery current"]
    assert "unit" in xiaomi.evidence
    assert values("android", "xiaomi_hyperos.txt")["battery current"] == pytest.approx(-1286e-6)
    power = found("xiaomi_hyperos.txt")["battery power"]
    assert power.total
    assert values("android", "xiaomi_hyperos.txt")["battery power"] == pytest.approx(-1286e-6 * 4.213)
    for nothing in ("0", "-2147483648", "", "null"):
        assert "battery current" not in sensors.values("android", f"current_now {nothing}\n")


def test_battery_units() -> None:
    pixel = values("android", "google_pixel.txt")
    assert pixel["battery voltage"] == pytest.approx(4.213)
    assert pixel["battery temperature"] == pytest.approx(28.4)
    assert pixel["battery charge"] == pytest.approx(3.12 * 3600)  # 3.12 Ah
    box = "Current Battery Service state:\n  voltage: 13\n  status: 4\n"  # a box without a battery
    assert sensors.values("android", box) == {"battery charging": 1}


def test_limits_come_from_the_thresholds_of_the_hal() -> None:
    text = (RECORDINGS / "google_pixel.txt").read_text().partition("@source android")[2]
    pixel = {sensor.name: sensor for sensor in sensors.discovered(f"@source android{text}")}
    assert (pixel["VIRTUAL-SKIN"].limit, pixel["VIRTUAL-SKIN"].critical) == (39, 56)
    assert (pixel["BIG"].limit, pixel["BIG"].critical) == (115, 115)
    hidl = "Threshold{.type = SKIN, .name = skin, .hotThrottlingThresholds = [NaN, NaN, 44.5, NaN, NaN, NaN, NaN]}"
    row = "Current temperatures from HAL:\n Temperature{mValue=30.0, mType=3, mName=skin, mStatus=0}\n"
    (skin,) = sensors.discovered(f"@source android\n{row}Temperature{hidl}\n@end\n")
    assert (skin.limit, skin.critical) == (44.5, None)


def test_thermal_status_is_a_level() -> None:
    status = found("google_pixel.txt")["thermal status"]
    assert (status.quantity, status.scope, status.limit, status.critical) == ("level", "device", 1, 6)
    assert "thermal status" not in sensors.values("android", "Thermal Status: 7\n")


def test_odpm_rails_go_by_the_name_in_brackets_and_are_cumulative() -> None:
    pixel = found("google_pixel.txt")
    rail = pixel["S2M_VDD_CPUCL2"]
    assert (rail.quantity, rail.scope, rail.total) == ("energy", "rail", False)
    assert "cumulative" in rail.evidence
    assert values("android", "google_pixel.txt")["S2M_VDD_CPUCL2"] == pytest.approx(30.203502)
    assert isinstance(rail.reading, Asked)
    assert rail.reading.command.count("energy_value") == 2  # one command for both chips
    assert rail.reading.command == pixel["VSYS_PWR_DISPLAY"].reading.command  # type: ignore[union-attr]
    assert sensors.values("android", "CH7(T=1)[S2M_VDD_CPUCL2], 2000000\n") == {"S2M_VDD_CPUCL2": 2}


def test_raspberry_power_is_volt_times_ampere_of_each_rail() -> None:
    pi = values("raspberry", "raspberry_pi_5.txt")
    assert pi["VDD_CORE"] == pytest.approx(0.8126299 * 0.8606585)
    assert pi["PMIC rails"] == pytest.approx(sum(pi[name] for name in found("raspberry_pi_5.txt") if name in _RAILS))
    assert pi["PMIC rails"] < 3  # every current times 5 V would be 8.4 W
    total = found("raspberry_pi_5.txt")["PMIC rails"]
    assert (total.scope, total.total) == ("board", True)
    assert "USB" in total.evidence
    assert not {"EXT5V", "BATT"} & set(pi)


_RAILS = (
    *("3V7_WL_SW", "3V3_SYS", "1V8_SYS", "DDR_VDD2", "DDR_VDDQ", "1V1_SYS", "0V8_SW", "VDD_CORE"),
    *("3V3_DAC", "3V3_ADC", "0V8_AON", "HDMI"),
)


def test_raspberry_nan_makes_no_total_unless_nothing_flows() -> None:
    text = (RECORDINGS / "raspberry_pi_5.txt").read_text()
    core = sensors.values("raspberry", text.replace("volt(15)=0.86065850V", "volt(15)=nanV"))
    assert "PMIC rails" not in core
    assert "VDD_CORE" not in core
    unused = sensors.values("raspberry", text.replace("volt(20)=3.31318500V", "volt(20)=nanV"))
    assert unused["PMIC rails"] == pytest.approx(sensors.values("raspberry", text)["PMIC rails"])


def test_raspberry_a_reading_that_was_cut_off_makes_no_total() -> None:
    lines = (RECORDINGS / "raspberry_pi_5.txt").read_text().partition("@source raspberry\n")[2].splitlines()
    for end in range(24):
        rest = sensors.values("raspberry", "\n".join(lines[:end]))
        assert "PMIC rails" not in rest or len(rest) == 13


def test_raspberry_throttled_bits() -> None:
    pi = values("raspberry", "raspberry_pi_5.txt")  # 0x50005
    assert [name for name, value in pi.items() if value == 1 and not name[0].isupper()] == [
        "under-voltage",
        "under-voltage since boot",
        "throttled",
        "throttled since boot",
    ]
    assert pi["frequency capped"] == 0
    assert found("raspberry_pi_5.txt")["throttled since boot"].evidence.endswith("bit 18")
    assert pi["SoC"] == 48.3


def test_jetpack_4_rails_stand_once_though_two_ways_lead_to_them() -> None:
    nano = found("jetson_nano_jetpack4.txt")
    assert {name for name, sensor in nano.items() if sensor.quantity == "power"} == {
        "POM_5V_IN",
        "POM_5V_GPU",
        "POM_5V_CPU",
    }
    assert nano["POM_5V_IN"].total
    assert nano["POM_5V_IN"].reading.scale == 1e-3  # type: ignore[union-attr]
    assert "PMIC-Die" not in nano  # says 100 °C of a sensor that is not there


def test_tegrastats_of_all_versions_takes_the_instantaneous_value() -> None:
    first, second, third = (sensors.values("jetson", line) for line in TEGRASTATS)
    assert first["POM_5V_IN"] == 1.66
    assert second["VDD_IN"] == 4.862
    assert (third["VDD_GPU_SOC"], third["cpu@"]) == (5.139, 52.968)
    for read in (first, second, third):
        assert not {"RAM", "SWAP", "IRAM", "GR3D_FREQ", "EMC_FREQ"} & set(read)


def test_tegrastats_sensors_that_are_off_are_left_out() -> None:
    first, second, _ = (sensors.values("jetson", line) for line in TEGRASTATS)
    assert "PMIC@" not in first
    assert not [key for key in second if key.startswith("CV")]


def test_tegrastats_totals_follow_the_same_rule() -> None:
    for line, total in zip(TEGRASTATS, ("POM_5V_IN", "VDD_IN", "GPU_SOC + CPU_CV + SYS_5V0"), strict=True):
        read = sensors.discovered(f"@source jetson\n{line}\n@end\n")
        assert [sensor.name for sensor in read if sensor.total] == [total]
