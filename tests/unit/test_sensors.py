"""Discovery: one script in a real shell, one list of sensors; each once, named, and never an exception."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.errors import EdgeError
from edgesdk.profile import sensors
from edgesdk.profile.sensors.base import UNITS, Asked, Files, Sensor, Sum
from edgesdk.profile.sensors.ios import battery_values, thermal_state
from edgesdk.profile.sensors.meters.base import parsed_line

RECORDINGS = Path(__file__).parent / "sensor_recordings"
LISTINGS = sorted(path.name for path in RECORDINGS.glob("*.txt") if not path.name.startswith("tegrastats"))
TEXTS = [path.read_text() for path in sorted(RECORDINGS.iterdir())]
SHELLS = [
    command
    for command in (["sh"], ["dash"], ["busybox", "sh"], ["mksh"], ["bash", "--posix"], ["zsh", "--emulate", "sh"])
    if shutil.which(command[0])
]


def found(name: str) -> dict[str, Sensor]:
    return {sensor.name: sensor for sensor in sensors.discovered((RECORDINGS / name).read_text())}


ONCE = {"dumpsys": "thermalservice", "vcgencmd": "pmic_read_adc", "cmd": "battery"}  # programs, and when they speak


def make_device(text: str, root: Path, commands: Path) -> None:
    """The files and programs that a recording was taken from."""
    printed = dict.fromkeys(ONCE, "")
    source, energy = "", ""
    for line in text.removesuffix("@end\n").splitlines():
        word, _, rest = line.partition(" ")
        if word == "@source":
            source, energy = rest, ""
        elif word == "@odpm":
            energy = rest
        elif energy:
            write(root / energy[1:], line)
        elif word == "current_now":
            printed["cmd"] += f"{rest}\n"
        elif source in ("android", "raspberry"):
            printed["dumpsys" if source == "android" else "vcgencmd"] += f"{line}\n"
        else:
            make_file(root, *line.split("=", 1))
    make_programs(commands, printed)


def make_file(root: Path, path: str, value: str) -> None:
    if not path.endswith("/parent"):
        return write(root / path[1:], value)
    target = root / "sys/devices" / value  # where the link that every chip has leads
    target.mkdir(parents=True, exist_ok=True)
    (root / path[1:]).with_name("device").symlink_to(target)
    return None


def make_programs(folder: Path, printed: dict[str, str]) -> None:
    folder.mkdir()
    for name, said in printed.items():
        if said:
            (folder / f"{name}.txt").write_text(said)
            (folder / name).write_text(f'#!/bin/sh\n[ "$1" != {ONCE[name]} ] || exec /bin/cat "{folder}/{name}.txt"\n')
            (folder / name).chmod(0o755)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(f"{text}\n")


def listed(shell: list[str], root: Path, commands: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(shutil.which(shell[0])), *shell[1:]],
        input=sensors.listing(),
        env={"root": str(root), "PATH": str(commands)},  # no other program is there: what is built in must do
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def without(root: Path, sensor: Sensor) -> Sensor:
    reading = sensor.reading
    if isinstance(reading, Files):
        return replace(sensor, reading=Files(tuple(p.removeprefix(str(root)) for p in reading.paths), reading.scale))
    if isinstance(reading, Asked):
        command = reading.command.replace(str(root), "").replace("'", "")
        return replace(sensor, reading=replace(reading, command=command))
    return sensor


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("name", LISTINGS)
def test_a_real_shell_lists_what_was_recorded_without_any_program(shell, name, tmp_path) -> None:
    text = (RECORDINGS / name).read_text()
    root, commands = tmp_path / "the root", tmp_path / "bin"  # with a blank: nothing may split
    make_device(text, root, commands)
    done = listed(shell, root, commands)
    assert done.returncode == 0, done.stderr
    again = [without(root, sensor) for sensor in sensors.discovered(done.stdout)]
    assert again == sensors.discovered(text)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_listing_without_any_file_or_program_is_empty_frames(shell, tmp_path) -> None:
    done = listed(shell, tmp_path, tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"@source", "@end"}
    assert sensors.discovered(done.stdout) == []


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_a_file_that_fails_to_read_harms_no_other(shell, tmp_path) -> None:
    zones = tmp_path / "sys/class/thermal"
    (zones / "thermal_zone0/temp").mkdir(parents=True)  # readable, and an error when it is read
    write(zones / "thermal_zone0/type", "broken")
    write(zones / "thermal_zone1/type", "cpu-thermal")
    (zones / "thermal_zone1/temp").write_text("45000")  # no end of line
    done = listed(shell, tmp_path, tmp_path)
    assert [sensor.name for sensor in sensors.discovered(done.stdout)] == ["cpu-thermal"]


@dataclass(frozen=True)
class Broken:
    name: str = "broken"
    listing: str = "if then ((("

    def found(self, text: str) -> list[Sensor]:
        return []

    def values(self, text: str) -> dict[str, float]:
        return {}


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("broken", ["if then (((", "exit 3", "set -e; false", "echo 'open"])
def test_a_source_that_does_not_even_parse_harms_no_other(shell, broken, tmp_path, monkeypatch) -> None:
    real = sensors.SOURCES

    class Table:
        def names(self) -> list[str]:
            return ["thermal_zones", "broken", "cpufreq"]

        def get(self, name: str):
            return Broken(listing=broken) if name == "broken" else real.get(name)

    monkeypatch.setattr(sensors, "SOURCES", Table())
    monkeypatch.setattr(sensors, "_BEST_FIRST", ("broken",))
    write(tmp_path / "sys/class/thermal/thermal_zone0/type", "cpu")
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", "45000")
    done = listed(shell, tmp_path, tmp_path)
    assert [sensor.name for sensor in sensors.discovered(done.stdout)] == ["cpu"]


@pytest.mark.parametrize("name", LISTINGS)
def test_every_recording_gives_sensors_with_names_of_their_own(name) -> None:
    all_of_it = sensors.discovered((RECORDINGS / name).read_text())
    names = [sensor.name for sensor in all_of_it]
    assert len(set(names)) == len(names) > 0
    for sensor in all_of_it:
        assert sensor.unit == UNITS[sensor.quantity]
        assert len(sensor.evidence) > 10
        assert sensor.source in sensors.SOURCES.names()
        if isinstance(sensor.reading, Sum):
            assert set(sensor.reading.names) <= set(names)


@pytest.mark.parametrize("name", LISTINGS)
def test_every_asked_sensor_is_in_what_its_source_reads_from_the_same_text(name) -> None:
    text = (RECORDINGS / name).read_text()
    for sensor in sensors.discovered(text):
        if isinstance(sensor.reading, Asked) and sensor.source != "power_supply":
            assert sensor.reading.key in sensors.values(sensor.source, text)


def test_best_source_first_and_each_sensor_once() -> None:
    nano = found("jetson_orin_nano.txt")
    assert nano["cpu-thermal"].source == "thermal_zones"  # hwmon's cpu_thermal is the same zone, without limits
    assert "cpu_thermal" not in nano
    pixel = found("google_pixel.txt")
    assert pixel["battery voltage"].source == "power_supply"
    assert pixel["battery temperature"].source == "power_supply"
    assert "battery" not in pixel  # of the thermal HAL
    assert pixel["VIRTUAL-SKIN"].source == "thermal_zones"
    assert (pixel["VIRTUAL-SKIN"].limit, pixel["VIRTUAL-SKIN"].critical) == (39, 56)  # which the thermal HAL knows
    assert pixel["battery powered"].source == "android"


def test_one_name_for_two_quantities_is_told_apart() -> None:
    line = (RECORDINGS / "tegrastats.txt").read_text().splitlines()[0]
    both = sensors.discovered(f"@source jetson\n{line} GPU 41/41\n@end\n")
    assert {sensor.name for sensor in both if sensor.name.startswith("GPU")} == {"GPU", "GPU temperature"}


def test_a_cut_last_line_is_not_believed() -> None:
    text = "@source thermal_zones\n/sys/class/thermal/thermal_zone0/type=cpu\n/sys/class/thermal/thermal_zone0/temp=45"
    assert sensors.discovered(text) == []
    assert len(sensors.discovered(f"{text}000\n")) == 1


def test_lines_that_end_as_windows_does_are_read() -> None:
    text = (RECORDINGS / "google_pixel.txt").read_text()
    assert sensors.discovered(text.replace("\n", "\r\n")) == sensors.discovered(text)


def test_an_unknown_source_is_an_error_with_those_there_are() -> None:
    with pytest.raises(EdgeError, match="hwmon"):
        sensors.values("hwmom", "")
    assert sensors.discovered("@source hwmom\n/a/b=1\n@end\n") == []


def test_sources_import_nothing_heavy() -> None:
    code = (
        "import sys; from edgesdk.profile import sensors; from edgesdk.profile.sensors.meters import METERS;"
        "sensors.listing(); [METERS.get(name) for name in METERS.names()];"
        "heavy = {'torch', 'onnx', 'serial', 'numpy', 'pyjoulescope_driver', 'ppk2_api'};"
        "sys.exit(str(heavy & set(sys.modules) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert done.stderr.strip() == ""


SOURCES = st.sampled_from(sensors.SOURCES.names())


@given(
    SOURCES, st.one_of(st.text(), st.sampled_from(TEXTS).flatmap(lambda t: st.integers(0, len(t)).map(lambda n: t[:n])))
)
@settings(max_examples=150, deadline=None)
def test_no_parser_raises(source, text) -> None:
    one = sensors.SOURCES.get(source)
    one.found(text)
    assert all(isinstance(value, float) for value in one.values(text).values())
    sensors.discovered(text)
    sensors.discovered(f"@source {source}\n{text}")
    battery_values(text)
    thermal_state(text)
    parsed_line(text)


@given(SOURCES, st.sampled_from(TEXTS), st.lists(st.tuples(st.integers(0, 5000), st.characters()), max_size=12))
@settings(max_examples=150, deadline=None)
def test_no_parser_raises_on_spoiled_recordings(source, text, changes) -> None:
    letters = list(text)
    for place, letter in changes:
        letters[place % len(letters)] = letter
    spoiled = "".join(letters)
    one = sensors.SOURCES.get(source)
    one.values(spoiled)
    kept = sensors.discovered(f"@source {source}\n{spoiled}") + sensors.discovered(spoiled)
    assert all(sensor.name for sensor in kept)
    battery_values(spoiled)
