"""Phones as an adb server lists them: one by two ways, names with blanks, states of several words, its own hints."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgesdk.devices import DeviceBusyError, DeviceError, Settings
from edgesdk.devices.adb import AdbDevice, client, states
from edgesdk.devices.address import read_fleet
from edgesdk.devices.base import Completed
from edgesdk.devices.discovery import attached, discover, only_device
from edgesdk.devices.local import LocalDevice
from edgesdk.devices.locks import alone
from edgesdk.devices.phones import identities, listed, preferred
from edgesdk.signing.pins import Pin, Pins

pytest.importorskip("adbutils", reason="adbutils (extra 'devices') is not installed")

MDNS = "adb-R5CT1-a1B2c3 (2)._adb-tls-connect._tcp"
BOOT, OTHER_BOOT = "3c2f2f0e-0d9a-4c8e-9f57-6f0b3f1f4b1a\n", "9b0e6f64-5f3a-4d4b-8a8e-2f6b1c7d9e10\n"
UDEV = "no permissions (user in plugdev group; are your udev rules wrong?); see [http://developer.android.com/tools]"


@dataclass
class Phone:
    """What a transport leads to."""

    properties: dict[str, str] = field(default_factory=dict)
    boot: str = "b0"
    old: bool = False  # without the plain shell service

    def answer(self, command: str) -> str:
        if command.startswith("getprop "):
            return self.properties.get(command.partition(" ")[2], "")
        return self.boot if command.endswith("boot_id") else ""


@dataclass
class Server:
    """A small adb server: it lists, and answers short commands."""

    short: str = ""
    detailed: str = ""
    phones: dict[str, Phone] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def add(self, serial: str, number: str, state: str = "device", **more: object) -> None:
        self.short += f"{serial}\t{state}\n"
        self.phones[serial] = Phone({"ro.serialno": number}, **more)  # type: ignore[arg-type]

    def serve(self, connection: socket.socket) -> None:
        with closing(connection), suppress(EOFError, OSError):
            chosen: Phone | None = None
            while True:
                request = self._read(connection, int(self._read(connection, 4), 16)).decode()
                kind, _, rest = request.partition(":")
                if request == "host:version":
                    return connection.sendall(b"OKAY00040029")
                self.requests.append(request)
                if request in ("host:devices", "host:devices-l"):
                    data = (self.detailed if request.endswith("-l") else self.short).encode()
                    return connection.sendall(b"OKAY" + b"%04x" % len(data) + data)
                if request in self.refusals:
                    data = self.refusals[request].encode()
                    return connection.sendall(b"FAIL" + b"%04x" % len(data) + data)
                if request.endswith(":features"):
                    return connection.sendall(b"OKAY000cshell_v2,cmd")
                if request.startswith("host:transport:"):
                    chosen = self.phones.get(request.removeprefix("host:transport:"))
                    connection.sendall(b"OKAY" if chosen else b"FAIL0010device not found")
                elif chosen is not None and kind == "shell" and not rest.startswith("v2") and not chosen.old:
                    return connection.sendall(b"OKAY" + f"{chosen.answer(rest)}\n".encode())
                elif chosen is not None and kind.startswith("shell,v2"):
                    data = f"{chosen.answer(rest)}\n".encode()
                    frames = struct.pack("<BI", 1, len(data)) + data + struct.pack("<BIB", 3, 1, 0)
                    return connection.sendall(b"OKAY" + frames)
                else:
                    return connection.sendall(b"FAIL0007unknown")

    @staticmethod
    def _read(connection: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = connection.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    found = Server()
    listener = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(listener.getsockname()[1]))
    monkeypatch.setenv("EDGESDK_DEVICES", str(tmp_path / "none.toml"))
    (tmp_path / "none.toml").write_text("")

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=found.serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield found
    listener.close()


def phones(server: Server) -> dict[str, str]:
    return identities(client(), listed(server.short))


def test_one_phone_by_cable_and_by_network_is_one(server: Server) -> None:
    for serial in ("R5CT1", "192.168.0.104:5555", MDNS):
        server.add(serial, "R5CT1")
    assert set(phones(server).values()) == {"R5CT1"}
    assert [address for address in attached() if address.startswith("adb:")] == ["adb:R5CT1"]
    assert only_device() == "adb:R5CT1"
    assert AdbDevice("phone", Settings("adb:")).serial == "R5CT1"
    made = [AdbDevice("phone", Settings(f"adb:{serial}")) for serial in ("R5CT1", "192.168.0.104:5555", MDNS)]
    assert {device.identity for device in made} == {"adb:R5CT1"}  # and so one lock


def test_a_pin_of_any_way_to_a_phone_counts_for_all(server: Server) -> None:
    server.add("192.168.0.104:5555", "R5CT1")
    pins = Pins((Pin("mine", "adb:192.168.0.104:5555", ("key",)),))
    phone = AdbDevice("adb:", Settings("adb:"))  # named by no address
    assert pins.for_device(phone.name, *phone.addresses) is not None
    server.add("R5CT1", "R5CT1")
    by_cable = AdbDevice("adb:R5CT1", Settings("adb:R5CT1"))
    assert pins.for_device(by_cable.name, *by_cable.addresses) is not None
    server.add("OTHER9", "OTHER9")
    other = AdbDevice("adb:OTHER9", Settings("adb:OTHER9"))
    assert pins.for_device(other.name, *other.addresses) is None


def test_the_fleet_names_a_phone_once(server: Server, tmp_path: Path) -> None:
    server.add("R5CT1", "R5CT1")
    server.add("192.168.0.104:5555", "R5CT1")
    fleet = tmp_path / "devices.toml"
    fleet.write_text('[mine]\naddress = "adb:192.168.0.104:5555"\n')
    assert only_device(fleet) == "mine" and read_fleet(fleet)


@pytest.mark.parametrize(
    "number",
    [
        *("", "unknown", "0123456789ABCDEF", "0123456789abcdef", "1234567890abcdef", "1234567890ABCDEF", "1234567890"),
        *("12345678", "ABCDEF01", "ABCDEF0123456789", "00000000", "EMULATOR36X1X10X0"),
    ],
)
def test_numbers_that_many_have_are_no_identity(server: Server, number: str) -> None:
    server.add("192.168.0.5:5555", number)
    server.add("192.168.0.6:5555", number)
    assert phones(server) == {"192.168.0.5:5555": "192.168.0.5:5555", "192.168.0.6:5555": "192.168.0.6:5555"}
    with pytest.raises(DeviceError, match="2 devices and none is named"):
        only_device()


def test_two_phones_with_one_number_are_told_apart_by_their_boot(server: Server) -> None:
    server.add("192.168.0.5:5555", "CLONE77", boot="one")
    server.add("192.168.0.6:5555", "CLONE77", boot="two")
    assert len(set(phones(server).values())) == 2
    server.phones["192.168.0.6:5555"].boot = "one"
    assert len(set(phones(server).values())) == 1


def test_emulators_are_known_by_their_transport(server: Server) -> None:
    server.add("emulator-5554", "ABC123")
    server.add("127.0.0.1:6520", "CUTTLEFISH1")
    server.phones["127.0.0.1:6520"].properties["ro.boot.qemu"] = "1"
    assert phones(server) == {"emulator-5554": "emulator-5554", "127.0.0.1:6520": "127.0.0.1:6520"}


def test_other_numbers_and_other_services_are_tried(server: Server) -> None:
    server.add("192.168.0.5:5555", "")
    server.phones["192.168.0.5:5555"].properties["ro.boot.serialno"] = "R5CT1"
    server.add("R5CT1", "R5CT1", old=True)
    assert set(phones(server).values()) == {"R5CT1"}


def test_a_transport_that_cannot_be_asked_is_itself(server: Server) -> None:
    server.add("R5CT1", "R5CT1")
    server.add("192.168.0.104:5555", "R5CT1", state="offline")
    assert phones(server) == {"R5CT1": "R5CT1", "192.168.0.104:5555": "192.168.0.104:5555"}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (UDEV, "no permissions (user in plugdev group; are your udev rules wrong?)"),
        ("unauthorized", "allow USB debugging"),
        ("recovery", "restart the device"),
        ("sideload", "restart the device"),
        ("connecting", "wait a moment"),
        ("some new state", "in the state 'some new state'"),
    ],
)
def test_states_are_passed_on_in_adbs_words(server: Server, state: str, said: str) -> None:
    server.add("R5 CT1", "R5CT1", state=state)
    with pytest.raises(DeviceError) as refused:
        AdbDevice("phone", Settings("adb:R5 CT1"))
    assert said in f"{refused.value.message} {refused.value.hint}"
    if state == UDEV:
        assert "see [http://developer.android.com/tools]" in refused.value.message  # adb's own hint


def test_the_list_is_read_as_the_server_writes_it() -> None:
    assert listed(f"{MDNS}\tdevice\nR5\t{UDEV}\n\t\n\nx\n") == {MDNS: "device", "R5": UDEV}
    assert listed("R5CT1            device\n") == {"R5CT1": "device"}
    assert preferred([MDNS, "192.168.0.104:5555", "R5CT1"]) == "R5CT1"
    assert preferred([MDNS, "192.168.0.104:5555"]) == "192.168.0.104:5555"


def test_words_of_the_server_are_passed_on(server: Server) -> None:
    server.short = "R5CT1\tdevice\n"
    with pytest.raises(DeviceError) as refused:
        AdbDevice("phone", Settings("adb:R5CT1")).open("true")
    assert "not found" in refused.value.message or "adb says" in refused.value.message


def test_the_fleet_may_name_both_ways_to_a_phone(server: Server, tmp_path: Path) -> None:
    server.add("R5CT1", "R5CT1")
    server.add("192.168.0.104:5555", "R5CT1")
    fleet = tmp_path / "devices.toml"
    fleet.write_text('[wifi]\naddress = "adb:192.168.0.104:5555"\n[cable]\naddress = "adb:R5CT1"\n')
    assert only_device(fleet) == "cable"


def test_several_are_listed_with_their_states(server: Server) -> None:
    server.add("192.168.0.104:5555", "", state="offline")
    server.add("R5CT1", "R5CT1")
    with pytest.raises(DeviceError) as refused:
        only_device()
    assert "adb:192.168.0.104:5555 (offline), adb:R5CT1" in refused.value.message
    assert refused.value.hint == "--device adb:R5CT1"  # the one that can be used
    with pytest.raises(DeviceError, match=r"adb:192.168.0.104:5555 \(offline\), adb:R5CT1"):
        AdbDevice("phone", Settings("adb:"))


def test_who_is_named_alone_is_asked_alone(server: Server) -> None:
    server.add("R5CT1", "R5CT1")
    server.add("R5CT2", "R5CT2")
    AdbDevice("phone", Settings("adb:R5CT1")).marks()
    assert "host:transport:R5CT1" in server.requests and "host:transport:R5CT2" not in server.requests


def test_a_list_alone_asks_nobody(server: Server) -> None:
    server.add("R5CT1", "R5CT1")
    server.add("192.168.0.104:5555", "R5CT1")
    names = {found.name for found in discover(ask=False)}
    assert {"adb:R5CT1", "adb:192.168.0.104:5555"} <= names
    assert not any(request.startswith("host:transport") for request in server.requests)


def test_devices_of_one_number_are_known_by_their_ports(server: Server) -> None:
    same, hidden = "0123456789ABCDEF", "????????????"
    server.short = f"{same}\tdevice\n{same}\tdevice\n{hidden}\t{UDEV}\n"
    server.detailed = "".join(
        f"{name:<22} {state} {port} transport_id:{number}\n"
        for number, (name, state, port) in enumerate(
            [
                (same, "device", "usb:1-2 product:a model:b device:c"),
                (same, "device", "usb:1-3"),
                (hidden, UDEV, "usb:2-1"),
            ]
        )
    )
    server.phones |= {"usb:1-2": Phone({"ro.serialno": same}), "usb:1-3": Phone({"ro.serialno": same})}
    assert states(client()) == {"usb:1-2": "device", "usb:1-3": "device", "usb:2-1": UDEV}
    assert AdbDevice("phone", Settings("adb:usb:1-3")).identity == "adb:usb:1-3"
    with pytest.raises(DeviceError, match="no permissions") as refused:
        AdbDevice("phone", Settings("adb:usb:2-1"))
    assert "udev rules" in str(refused.value.hint)
    server.detailed = ""
    with pytest.raises(DeviceError, match="listed more than once") as refused:
        AdbDevice("phone", Settings(f"adb:{same}"))
    assert "unplug all but one" in str(refused.value.hint)
    with pytest.raises(DeviceError, match="no permissions"):  # a name that is none, but adb's own
        AdbDevice("phone", Settings(f"adb:{hidden}"))


def test_what_adb_says_to_a_state_is_passed_on_in_one_line(server: Server) -> None:
    server.add("R5CT1", "R5CT1", state="unauthorized")
    server.refusals["host:transport:R5CT1"] = (
        "device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set\n"
        "Try 'adb kill-server' if that seems wrong."
    )
    with pytest.raises(DeviceError) as refused:
        AdbDevice("phone", Settings("adb:R5CT1"))
    assert "adb says: device unauthorized. This adb server's $ADB_VENDOR_KEYS is not set" in refused.value.message
    assert "\n" not in refused.value.message and "allow USB debugging" in str(refused.value.hint)


def test_phones_with_one_number_do_not_lock_each_other_out(server: Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path))
    server.add("192.168.0.5:5555", "CLONE77", boot="one")
    server.add("192.168.0.6:5555", "CLONE77", boot="two")
    server.add("R5CT1", "R5CT1", boot="three")
    server.add(MDNS, "R5CT1", boot="three")
    first, second, cable, air = (AdbDevice(name, Settings(f"adb:{name}")) for name in server.phones)
    with alone(first, "test"), alone(second, "test"):
        pass
    with alone(cable, "test"), pytest.raises(DeviceBusyError), alone(air, "test"):
        raise AssertionError


@dataclass
class Board(LocalDevice):
    """A board, by what it prints."""

    name: str
    said: str

    def __post_init__(self) -> None:
        super().__init__(self.name, Settings(f"ssh:{self.name}"))

    def run(self, command: str, **more: object) -> Completed:  # type: ignore[override]
        return Completed(0, self.said.encode(), b"")


@pytest.mark.parametrize(
    ("first", "second", "one"),
    [
        (BOOT, BOOT, True),  # an address and a name of one board
        (f"a banner\n{BOOT}", BOOT, True),
        (BOOT, OTHER_BOOT, False),  # a copied card
        ("", "", False),  # nothing is known
        ("00000000-0000-0000-0000-000000000000\n", "00000000-0000-0000-0000-000000000000\n", False),
        (BOOT + OTHER_BOOT, BOOT + OTHER_BOOT, False),
    ],
)
def test_boards_are_locked_by_the_kernel_that_runs(
    first: str, second: str, one: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path))
    with alone(Board("jetson", first), "test"):
        if one:
            with (
                pytest.raises(DeviceBusyError, match=r"jetson\.local is in use"),
                alone(Board("jetson.local", second), "t"),
            ):
                raise AssertionError
        else:
            with alone(Board("jetson.local", second), "test"):
                pass
    with alone(Board("jetson.local", second), "test"):
        pass


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({}, [("dtr", True), ("rts", True)]),
        ({"dtr": "low"}, [("rts", True), ("dtr", False)]),
        ({"dtr": "low", "rts": "low"}, [("rts", False), ("dtr", False)]),  # never DTR low beside RTS high
        ({"dtr": "high", "rts": "low"}, [("rts", False), ("dtr", True)]),
        ({"dtr": "keep", "rts": "low"}, [("rts", False)]),
        ({"dtr": "keep", "rts": "keep"}, []),
    ],
)
def test_modem_lines_are_set_once_each_and_kept(
    monkeypatch: pytest.MonkeyPatch, levels: dict[str, str], expected: list[tuple[str, bool]]
) -> None:
    """The kernel's calls, in their order: a pseudo terminal carries no modem lines."""
    serial = pytest.importorskip("serial", reason="pyserial (extra 'devices') is not installed")
    import termios

    from serial import serialposix

    from edgesdk.devices.serial import SerialDevice

    other, terminal = os.openpty()
    attributes = termios.tcgetattr(terminal)
    attributes[2] |= termios.HUPCL
    termios.tcsetattr(terminal, termios.TCSANOW, attributes)
    calls: list[tuple[str, bool]] = []
    real = serialposix.fcntl.ioctl

    def noted(descriptor: int, request: int, *more: object) -> object:
        names = {serialposix.TIOCM_DTR_str: "dtr", serialposix.TIOCM_RTS_str: "rts"}
        if request in (serialposix.TIOCMBIS, serialposix.TIOCMBIC):
            calls.append((names[more[0]], request == serialposix.TIOCMBIS))
            return 0
        return real(descriptor, request, *more)

    monkeypatch.setattr(serialposix.fcntl, "ioctl", noted)
    try:
        port = SerialDevice("board", Settings(f"serial:{os.ttyname(terminal)}", **levels)).port()  # type: ignore[arg-type]
        assert isinstance(port, serial.Serial)
        assert calls == expected
        hangs_up = bool(termios.tcgetattr(port.fileno())[2] & termios.HUPCL)
        assert hangs_up is not bool(levels)
        port.timeout = 3  # configures the port anew
        assert bool(termios.tcgetattr(port.fileno())[2] & termios.HUPCL) is hangs_up
        port.close()
        assert calls == expected
    finally:
        os.close(other)
        os.close(terminal)


def test_a_level_of_a_line_is_low_or_high(tmp_path: Path) -> None:
    fleet = tmp_path / "devices.toml"
    fleet.write_text('[board]\naddress = "serial:/dev/ttyUSB0"\ndtr = "off"\n')
    with pytest.raises(DeviceError, match="dtr"):
        read_fleet(fleet)


def test_two_names_of_one_device_wait_for_each_other_and_others_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGESDK_CACHE", str(tmp_path))
    first, second = (LocalDevice(name, Settings("local")) for name in ("one", "two"))
    order: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with alone(first, "test"):
            with pytest.raises(DeviceBusyError, match="in use"), alone(second, "by the same thread"):
                raise AssertionError
            order.append("one")
            inside.set()
            leave.wait(10)
            order.append("one ends")

    def wait() -> None:
        with alone(second, "test"):
            order.append("two")

    threads = [threading.Thread(target=hold), threading.Thread(target=wait)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    code = (
        "from edgesdk.devices import Settings; from edgesdk.devices.local import LocalDevice\n"
        "from edgesdk.devices.locks import alone\n"
        "with alone(LocalDevice('other', Settings('local')), 'x'): pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"other is in use: process {os.getpid()}, test" in done.stderr
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["one", "one ends", "two"]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
