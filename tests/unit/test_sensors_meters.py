"""Meters beside the device: programs, serial lines, instruments and servers, each with a stand-in of its speech."""

from __future__ import annotations

import json
import os
import pty
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from edgesdk.errors import EdgeError, MissingExtraError
from edgesdk.profile.sensors.base import Meter
from edgesdk.profile.sensors.ios import IosBattery, battery_values, thermal_state
from edgesdk.profile.sensors.meters import METERS, open_meter
from edgesdk.profile.sensors.meters.base import Clock, parsed_line

from .test_sensors import RECORDINGS

GO_IOS = (RECORDINGS / "go_ios_battery.json").read_text()
PYMOBILE = (RECORDINGS / "pymobiledevice3_battery.json").read_text()


def readings(meter: Meter, wanted: int, limit: float = 20) -> list[tuple[float, dict[str, float]]]:
    found: list[tuple[float, dict[str, float]]] = []
    give_up = time.monotonic() + limit
    while len(found) < wanted and time.monotonic() < give_up:
        found += meter.taken()
        time.sleep(0.01)
    return found


def program(tmp_path, code: str) -> str:
    path = tmp_path / "meter.py"
    path.write_text(code)
    return f"{sys.executable} {path}"


def test_a_program_that_prints_lines_is_a_meter(tmp_path) -> None:
    code = (
        "import time\nprint('t,V,A', flush=True)\nfor i in range(5): print(f'{i},3.3,0.5', flush=True)\ntime.sleep(60)"
    )
    meter = open_meter(f"csv:{program(tmp_path, code)}")
    before = time.monotonic()
    meter.start()
    found = readings(meter, 5)
    meter.stop()
    assert [set(values) for _, values in found] == [{"meter voltage", "meter current", "meter power"}] * 5
    assert found[0][1]["meter power"] == pytest.approx(1.65)
    moments = [moment for moment, _ in found]
    assert moments[0] >= before - 10  # its seconds are put on the host's clock
    assert {sensor.name for sensor in meter.sensors if sensor.total} == {"meter power"}
    assert {sensor.scope for sensor in meter.sensors} == {"board"}


def test_a_program_that_ends_is_told_after_what_it_measured(tmp_path) -> None:
    code = "import sys\nprint('0,3.3,0.5')\nprint('no such device', file=sys.stderr)\nsys.exit(3)"
    meter = open_meter(f"ppk2:{program(tmp_path, code)}")
    meter.start()
    assert len(readings(meter, 1)) == 1
    with pytest.raises(EdgeError, match=r"status 3: no such device"):
        readings(meter, 1)
    meter.stop()


def test_a_program_that_does_not_end_is_ended(tmp_path) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('0,1,1', flush=True)\ntime.sleep(60)"
    )
    meter = open_meter(f"csv:{program(tmp_path, code)}")
    meter.start()
    readings(meter, 1)
    before = time.monotonic()
    meter.stop()
    assert time.monotonic() - before < 10


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("csv:", "csv:COMMAND"),
        ("ppk2:", "GPL"),
        ("csv:/no/such/program --fast", "install it"),
        ("ina228:", "ina228:/dev/"),
        ("ina228:/dev/ttyACM0@fast", "ina228:/dev/"),
        ("ina228:/dev/no-such-port", "plugged in"),
        ("otii://host:port", "otii://"),
        ("otii://127.0.0.1:1", "otii_server"),
        ("joulescope", "pip install pyjoulescope_driver"),
        ("ios:0000", "go-ios"),
    ],
)
def test_what_is_missing_is_an_error_with_the_way_out(url, says, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(sys.modules, "pyjoulescope_driver", None)
    with pytest.raises(EdgeError) as failure:
        open_meter(url).start()
    assert says in f"{failure.value.message} {failure.value.hint}"


def test_an_unknown_meter_lists_those_there_are() -> None:
    with pytest.raises(EdgeError, match="joulescope"):
        open_meter("joulscope:")
    assert METERS.names() == ["csv", "ina228", "ios", "joulescope", "otii", "ppk2"]


def test_without_pyserial_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(MissingExtraError, match="serial"):
        open_meter("ina228:/dev/ttyACM0").start()


def test_firmware_on_a_serial_port_is_a_meter() -> None:
    pytest.importorskip("serial")
    ours, theirs = pty.openpty()
    meter = open_meter(f"ina228:{os.ttyname(theirs)}")
    meter.start()
    os.write(ours, b"5,0.01\r\n")  # the rest of a line
    for index in range(3):
        os.write(ours, f"{index * 0.1:.1f},3.30,0.0{index}\r\n".encode())
    os.write(ours, b"boot \xff\xfe\r\n0.3,3.3")
    found = readings(meter, 3)
    meter.stop()
    os.close(ours)
    os.close(theirs)
    assert [round(values["meter current"], 3) for _, values in found] == [0, 0.01, 0.02]
    assert found[2][0] - found[0][0] == pytest.approx(0.2)


def test_a_meters_clock_is_put_on_the_hosts_by_what_came_soonest() -> None:
    clock = Clock()
    for seconds, now in ((10, 105), (11, 105.1), (12, 105.2), (13, 110)):  # a burst, and one that comes late
        clock.heard(seconds, now)
    assert [clock.host(seconds) for seconds in (10, 11, 12, 13)] == pytest.approx([103.2, 104.2, 105.2, 106.2])
    clock.heard(14, 104)
    assert clock.host(14) == pytest.approx(106.2)  # time does not go back


@pytest.mark.parametrize("line", ["", "t,V,A", "1,2", "1,2,3,4", "1,2,nan", "1,inf,3", "1,2,"])
def test_lines_that_are_no_sample(line) -> None:
    assert parsed_line(line) is None


class FakeDriver:
    """As ``pyjoulescope_driver.Driver``: topics are published, and values heard."""

    paths: tuple[str, ...] = ("u/js220/000415",)
    busy = False
    made: FakeDriver | None = None

    def __init__(self) -> None:
        FakeDriver.made = self
        self.published: dict[str, object] = {}
        self.heard: dict[str, Callable[[str, Any], None]] = {}
        self.closed: list[str] = []

    def device_paths(self) -> list[str]:
        return list(self.paths)

    def open(self, path: str) -> None:
        if self.busy:
            raise RuntimeError("jsdrv_open timed out | error code 11")

    def publish(self, topic: str, value: object) -> None:
        self.published[topic] = value

    def subscribe(self, topic: str, flags: str, heard: Callable[[str, Any], None]) -> None:
        self.heard[topic] = heard

    def close(self, path: str) -> None:
        self.closed.append(path)

    def finalize(self) -> None:
        self.closed.append("driver")


@pytest.fixture
def joulescope(monkeypatch) -> type[FakeDriver]:
    module = ModuleType("pyjoulescope_driver")
    driver = type("Driver", (FakeDriver,), {})
    module.Driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyjoulescope_driver", module)
    return driver


def test_joulescope_means_are_heard(joulescope) -> None:
    meter = open_meter("joulescope")
    meter.start()
    driver = FakeDriver.made
    assert driver is not None
    assert driver.published["u/js220/000415/s/stats/scnt"] == 20_000
    heard = driver.heard["u/js220/000415/s/stats/value"]
    before = time.monotonic()
    heard("topic", {"signals": {"voltage": {"avg": {"value": 5.0}}, "current": {"avg": {"value": 0.25}}}})
    ((moment, values),) = meter.taken()
    assert values == {"meter voltage": 5, "meter current": 0.25, "meter power": 1.25}
    assert before - 0.02 < moment < time.monotonic()
    heard("topic", {"signals": {}})
    with pytest.raises(EdgeError, match="not understood"):
        meter.taken()
    meter.stop()
    meter.stop()
    assert driver.closed == ["u/js220/000415", "driver"]


def test_a_joulescope_that_another_program_has(joulescope) -> None:
    joulescope.busy = True
    with pytest.raises(EdgeError, match="timed out") as failure:
        open_meter("joulescope").start()
    assert "closed" in str(failure.value.hint)


def test_several_joulescopes_need_a_serial_number(joulescope) -> None:
    joulescope.paths = ("u/js220/000415", "u/js110/002557")
    with pytest.raises(EdgeError, match="002557"):
        open_meter("joulescope").start()
    meter = open_meter("joulescope:002557")
    meter.start()
    assert FakeDriver.made is not None
    assert FakeDriver.made.published["u/js110/002557/s/stats/scnt"] == 40_000
    meter.stop()


class OtiiServer:
    """As Otii's TCP server: a greeting, then one answer a request; samples grow with every question for their count."""

    def __init__(self, refuses: str = "", hangs_up_after: int = 10**9, devices: int = 1) -> None:
        self.refuses, self.hangs_up_after = refuses, hangs_up_after
        self.devices = [{"type": "Arc", "device_id": f"arc{index}", "name": f"Arc {index}"} for index in range(devices)]
        self.asked: list[str] = []
        self.samples = {"mc": 0, "mv": 0}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"otii://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b'{"type": "information", "info": "connected", "data": {}}\r\n')
            for line in lines:
                if len(self.asked) >= self.hangs_up_after:
                    return
                request = json.loads(line)
                self.asked.append(request["cmd"])
                answer = {"type": "response", "cmd": request["cmd"], "trans_id": request["trans_id"]}
                if request["cmd"] == self.refuses:
                    answer |= {"type": "error", "errorcode": "No license", "data": {"message": "no licence"}}
                else:
                    answer["data"] = self._answer(request["cmd"], request.get("data", {}))
                whole = json.dumps(answer).encode() + b"\r\n"
                connection.sendall(whole[:7])  # an answer comes in pieces
                connection.sendall(whole[7:])

    def _answer(self, command: str, data: dict[str, Any]) -> dict[str, Any]:
        if command == "otii_get_devices":
            return {"devices": self.devices}
        if command == "otii_get_active_project":
            return {"project_id": -1}
        if command == "otii_create_project":
            return {"project_id": 4}
        if command == "project_get_last_recording":
            return {"recording_id": 9, "name": "Recording"}
        if command == "recording_get_channel_data_count":
            self.samples[data["channel"]] += {"mc": 400, "mv": 100}[data["channel"]]
            return {"count": self.samples[data["channel"]]}
        if command == "recording_get_channel_data":
            interval = {"mc": 0.00025, "mv": 0.001}[data["channel"]]
            value = {"mc": 0.02, "mv": 3.3}[data["channel"]]
            return {
                "data_type": "analog",
                "timestamp": data["index"] * interval,
                "interval": interval,
                "values": [value] * data["count"],
            }
        return {}


@pytest.fixture
def otii() -> Iterator[Callable[..., OtiiServer]]:
    servers: list[OtiiServer] = []

    def make(**options: Any) -> OtiiServer:
        servers.append(OtiiServer(**options))
        return servers[-1]

    yield make
    for server in servers:
        server.listener.close()


def test_otii_gives_means_over_ten_milliseconds(otii) -> None:
    server = otii()
    meter = open_meter(server.url)
    before = time.monotonic()
    meter.start()
    found = readings(meter, 20)
    meter.stop()
    assert len(found) >= 20
    assert found[0][1] == pytest.approx({"meter voltage": 3.3, "meter current": 0.02, "meter power": 0.066})
    moments = [moment for moment, _ in found]
    assert moments[0] == pytest.approx(before, abs=1)
    assert moments[10] - moments[0] == pytest.approx(0.1)
    assert server.asked.count("arc_enable_channel") == 2
    assert "arc_set_main" not in server.asked  # power is the user's
    assert server.asked[-1] == "project_stop_recording"


def test_otii_refusals_and_missing_devices_are_told(otii) -> None:
    with pytest.raises(EdgeError, match="no licence") as failure:
        open_meter(otii(refuses="project_start_recording").url).start()
    assert "licence" in str(failure.value.hint)
    with pytest.raises(EdgeError, match="Arc 0, Arc 1"):
        open_meter(otii(devices=2).url).start()
    with pytest.raises(EdgeError, match="none"):
        open_meter(otii(devices=0).url).start()


def test_otii_that_goes_away_is_told_and_stops(otii) -> None:
    meter = open_meter(otii(hangs_up_after=9).url)
    meter.start()
    with pytest.raises(EdgeError, match="Otii server"):
        readings(meter, 10**6, limit=20)
    meter.stop()


def test_ios_battery_in_volts_and_amperes() -> None:
    values = battery_values(GO_IOS)
    assert values == pytest.approx(
        {
            "battery current": -0.413,  # 18446744073709551203 is -413 mA
            "battery voltage": 3.902,
            "battery power": 0.413 * 3.902,
            "battery temperature": 29.19,
            "battery charging": 0,
            "battery powered": 0,
        }
    )
    charging = battery_values(PYMOBILE)
    assert (charging["battery charging"], charging["battery current"], charging["battery voltage"]) == (1, 0.402, 4.12)


@pytest.mark.parametrize(
    ("raw", "amperes"),
    [
        (402, 0.402),
        (-413, -0.413),
        (2**64 - 413, -0.413),
        (2**32 - 413, -0.413),
        (65123, -0.413),
        (0, 0),
        (10**9, None),
    ],
)
def test_ios_current_may_have_lost_its_sign(raw, amperes) -> None:
    assert battery_values(json.dumps({"InstantAmperage": raw})).get("battery current") == amperes


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "7", "{", "[" * 100_000, '{"InstantAmperage": "x", "Voltage": null}']
)
def test_ios_answers_that_are_none(text) -> None:
    assert battery_values(text) == {}


def test_ios_is_read_once_a_second_and_gives_up_after_three_failures(monkeypatch) -> None:
    monkeypatch.setattr("edgesdk.profile.sensors.ios.PERIOD", 0.01)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}" if name == "pymobiledevice3" else None)
    asked: list[list[str]] = []

    def called(command):
        asked.append(list(command))
        if len(asked) > 3:
            raise EdgeError("gone")
        return GO_IOS

    meter = IosBattery("00008120", called)
    meter.start()
    assert len(readings(meter, 3)) == 3
    with pytest.raises(EdgeError, match="gone"):
        readings(meter, 1)
    meter.stop()
    assert asked[0] == ["/bin/pymobiledevice3", "diagnostics", "battery", "single", "--udid", "00008120"]
    assert len(asked) == 6
    assert [sensor.name for sensor in meter.sensors if sensor.total] == ["battery power"]


def test_ios_device_that_does_not_answer_is_told_at_once(monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    with pytest.raises(EdgeError, match="no battery") as failure:
        IosBattery("", lambda command: "{}").start()
    assert "unlock" in str(failure.value.hint)


def test_thermal_state_words() -> None:
    assert [thermal_state(word) for word in ("nominal", "Fair", "serious", " CRITICAL ", "warm", "")] == [
        0,
        1,
        2,
        3,
        None,
        None,
    ]
