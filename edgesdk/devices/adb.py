"""Android devices over adb: Google's server, which adbutils brings, and the shell protocol with exit codes."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ..errors import MissingExtraError
from ..lines import shown_line
from .address import Settings
from .base import DeviceError, DeviceGoneError, DeviceTimeoutError
from .hosts import check_word
from .phones import (
    LISTED_TWICE,
    boot_of,
    by_network,
    has_doubts,
    identities,
    listed,
    number_of,
    preferred,
    transports,
    with_state,
)
from .shell import ShellDevice

if TYPE_CHECKING:
    from adbutils import AdbClient, AdbConnection

# The shell protocol, version 2 (shell_protocol.h of Android's adb): one byte of kind, four of length, data.
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_HEADER = struct.Struct("<BI")
_BLOCK = 1 << 16
_STALL = 60.0
_LONGEST = 1000  # characters of what adb says
_SETTLES = 5.0  # seconds that a new connection may take
_UNPLUGGED = "look at cable and screen, then run the same command again: it goes on where it stopped"


class AdbDevice(ShellDevice):
    """One device that the adb server knows, by cable or by wireless debugging."""

    def __init__(self, name: str, settings: Settings) -> None:
        """Raises DeviceError: no such device, several and none named, or it does not let us in."""
        self._client = client()
        self.serial = settings.rest or _only(self._client)
        super().__init__(name, replace(settings, address=f"adb:{self.serial}"))  # pins go by the address too
        if self.serial not in states(self._client):
            check_word(self.serial, "serial number")
        _refuse_state(self.serial, _state(self._client, self.serial), self._client)
        self._number = number_of(self._client, self.serial)  # others are left in peace: they may be measured just now
        self.identity = f"adb:{self._number or self.serial}"
        with _errors(name):
            features = self._client.device(self.serial).get_features()
        if "shell_v2" not in features:
            raise DeviceError(f"{name} is older than Android 7, whose adb has exit codes", hint="use a newer device")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its own, and those of every transport to the same phone; all phones are asked who they are."""
        known = identities(self._client, states(self._client))
        mine = known.get(self.serial, self.serial)
        same = sorted(serial for serial, phone in known.items() if phone == mine)
        return (*super().addresses, *(f"adb:{serial}" for serial in same))

    def marks(self) -> tuple[str, ...]:
        """Its transport, and its number with the boot that it had: others may have the number, but not both."""
        if self._number is None:
            return (self.settings.address,)
        return (self.settings.address, f"{self.identity} since {boot_of(self._client, self.serial)}")

    def open(self, command: str) -> AdbChannel:
        service = f"shell,v2,raw:{command}"
        try:
            with _errors(self.name):
                return AdbChannel(self.name, self._asked(service))
        except DeviceGoneError:
            if _state(self._client, self.serial) != "device":  # one by network is connected again
                raise
        with _errors(self.name):
            return AdbChannel(self.name, self._asked(service))

    def restart(self) -> None:
        with _errors(self.name):
            self._asked("reboot:").close()

    def close(self) -> None:
        pass

    def _asked(self, service: str) -> AdbConnection:
        """A connection of the server to a service of the device."""
        connection: AdbConnection = self._client.make_connection(timeout=_STALL)
        try:
            for request in (f"host:transport:{self.serial}", service):
                connection.send_command(request)
                connection.check_okay()
        except BaseException:
            connection.close()
            raise
        return connection


class AdbChannel:
    """One command over the shell protocol."""

    def __init__(self, name: str, connection: AdbConnection) -> None:
        self._name, self._connection, self._socket = name, connection, connection.conn
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._status: int | None = None

    def read(self, seconds: float | None) -> tuple[Literal["out", "err"], bytes] | None:
        while self._status is None:
            while len(self._buffer) < _HEADER.size:
                self._receive(seconds)
            kind, length = _HEADER.unpack_from(self._buffer)
            while len(self._buffer) < _HEADER.size + length:
                self._receive(seconds)
            data = bytes(self._buffer[_HEADER.size : _HEADER.size + length])
            del self._buffer[: _HEADER.size + length]
            if kind == _EXIT:
                self._status = data[0] if data else 255
            elif kind in (_STDOUT, _STDERR) and data:
                return ("out" if kind == _STDOUT else "err"), data
        return None

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), _BLOCK):
            self._send(_STDIN, data[at : at + _BLOCK])

    def end_input(self) -> None:
        self._send(_CLOSE_STDIN, b"")

    def status(self) -> int:
        assert self._status is not None
        return self._status

    def close(self) -> None:
        with suppress(Exception):  # a socket that is already gone
            self._connection.close()

    def _receive(self, seconds: float | None) -> None:
        """More bytes; TimeoutError passes."""
        self._socket.settimeout(seconds)
        try:
            data = self._socket.recv(1 << 18)
        except TimeoutError:
            raise
        except OSError as failure:
            raise _gone(self._name, failure) from None
        if not data:
            raise _gone(self._name, "the connection closed")
        self._buffer += data

    def _send(self, kind: int, data: bytes) -> None:
        try:
            self._socket.sendall(_HEADER.pack(kind, len(data)) + data)
        except OSError as failure:
            raise _gone(self._name, failure) from None


def client() -> AdbClient:
    """The adb server's client; the server is started if need be.

    Raises:
        MissingExtraError: adbutils is not installed.
        DeviceError: there is no adb, or its server does not start.
    """
    try:
        import adbutils
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "adbutils", "devices") from None
    found = adbutils.AdbClient()
    try:
        found.server_version()
    except (adbutils.AdbError, OSError, subprocess.SubprocessError) as failure:
        raise DeviceError(
            f"the adb server does not answer ({failure})", hint="adb kill-server, then try again"
        ) from None
    return found


def states(found: AdbClient) -> dict[str, str]:
    """Names and states of all transports that the server knows; see :func:`edgesdk.devices.phones.listed`."""
    text = _listing(found, "host:devices")
    return listed(text, _listing(found, "host:devices-l") if has_doubts(text) else "")


def _listing(found: AdbClient, request: str) -> str:
    with _errors("adb"), found.make_connection() as connection:
        connection.send_command(request)
        connection.check_okay()
        text: str = connection.read_string_block()
        return text


def connect(address: str) -> None:
    """Connect to wireless debugging at HOST:PORT.

    Raises:
        DeviceError: nothing answers there, or it wants pairing first.
    """
    check_word(address, "address")
    found = client()
    _refuse_state(address, _connected(found, address), found)


def pair(address: str, code: str) -> None:
    """Pair with wireless debugging at HOST:PORT, by the code on the device's screen.

    Raises:
        DeviceError: the code is wrong, or nothing answers there.
    """
    check_word(address, "address")
    client()
    from adbutils import adb_path

    try:
        done = subprocess.run(
            [adb_path(), "pair", address, code], capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        raise DeviceTimeoutError(f"{address} does not answer", hint="is its pairing dialog open?") from None
    if done.returncode or "Successfully" not in done.stdout:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise DeviceError(
            f"adb cannot pair with {address}: {said[-1] if said else 'it said nothing'}",
            hint="Developer options > Wireless debugging > Pair device with pairing code shows address and code",
        )


def _state(found: AdbClient, serial: str) -> str | None:
    """The state of a device; one that is reached by network is connected first, and again where it was lost."""
    state = states(found).get(serial)
    if state == "device" or not by_network(serial):
        return state
    if state == "offline":
        found.disconnect(serial)
    if state in (None, "offline"):
        state = _connected(found, serial)
    give_up = time.monotonic() + _SETTLES
    while state in (None, "offline", "connecting", "authorizing") and time.monotonic() < give_up:
        time.sleep(0.05)  # between two questions
        state = states(found).get(serial)
    return state


def _connected(found: AdbClient, address: str) -> str | None:
    """Have the server connect by network; the state after it."""
    with _errors(f"adb:{address}"):
        said = found.connect(address, timeout=20)
    state = states(found).get(address)
    if state is None:
        raise DeviceGoneError(
            f"adb:{address} cannot be connected: {said.strip()}",
            hint="is wireless debugging on, and is this its address? edgesdk device pair pairs first",
        )
    return state


def _only(found: AdbClient) -> str:
    attached = states(found)
    phones = [preferred(serials) for serials in transports(identities(found, attached)).values()]
    if len(phones) == 1:
        return phones[0]
    if not attached:
        raise DeviceGoneError("no Android device is attached", hint="plug one in and switch on USB debugging")
    named = ", ".join(with_state(f"adb:{serial}", attached[serial]) for serial in sorted(phones))
    raise DeviceError(f"{len(phones)} Android devices are attached: {named}", hint="name one of them")


def _refuse_state(serial: str, state: str | None, found: AdbClient) -> None:
    if state == "device":
        return
    if state is None:
        known = ", ".join(f"adb:{each}" for each in sorted(states(found))) or "none"
        raise DeviceGoneError(f"no Android device 'adb:{serial}'; attached: {known}", hint="edgesdk devices lists them")
    said = _words_of_refusal(found, serial)
    more = f"; adb says: {said}" if said and said not in (state, f"device {state}", f"device still {state}") else ""
    ways = {
        LISTED_TWICE: "unplug all but one: adb cannot tell devices of one serial number apart",
        "unauthorized": "unlock the device and allow USB debugging for this computer's key",
        "authorizing": "wait a moment, or allow USB debugging on the device's screen",
        "offline": "unplug it and plug it in again, or: adb reconnect offline",
        "no permissions": "install udev rules for the device (android-sdk-platform-tools-common)",
        "recovery": "restart the device into Android",
        "sideload": "restart the device into Android",
        "rescue": "restart the device into Android",
        "connecting": "wait a moment, then try again",
        "detached": "adb attach, or plug it in again",
        "host": "that is adb's own end of the line: name the device",
        "bootloader": "restart the device into Android: fastboot reboot",
    }
    hint = next((way for key, way in ways.items() if state.startswith(key)), "edgesdk devices lists what is attached")
    raise DeviceError(f"adb:{serial} is in the state '{shown_line(state)}'{more}", hint=hint)


def _words_of_refusal(found: AdbClient, serial: str) -> str:
    """What the server says when a device is asked for that cannot be used; "" where it only has the state."""
    from adbutils import AdbError

    try:
        with found.make_connection(timeout=_STALL) as connection:
            connection.send_command(f"host:transport:{serial}")
            connection.check_okay()
    except (AdbError, OSError) as failure:
        return _one_line(failure)
    return ""


def _one_line(failure: Exception) -> str:
    """All that adb says, which may be several lines."""
    return shown_line(" ".join(str(failure).split()), _LONGEST)


def _gone(name: str, failure: object) -> DeviceGoneError:
    return DeviceGoneError(f"{name} is gone in the middle of it ({failure})", hint=_UNPLUGGED)


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Give the errors of adb as ours."""
    from adbutils import AdbError, AdbTimeout

    try:
        yield
    except AdbTimeout:
        raise DeviceTimeoutError(f"{name}: the adb server does not answer in time", hint="adb kill-server") from None
    except AdbError as failure:
        said = _one_line(failure)
        if "not found" in said or "offline" in said or "closed" in said or "no devices" in said:
            raise _gone(name, said) from None
        if "unauthorized" in said:
            hint = "unlock the device and allow USB debugging for this computer's key"
            raise DeviceError(f"{name} does not trust this computer yet; adb says: {said}", hint=hint) from None
        raise DeviceError(
            f"{name}: adb says: {said}", hint="adb kill-server, then try again; adb devices shows the state"
        ) from None
    except OSError as failure:
        raise DeviceGoneError(f"{name}: the connection to the adb server broke ({failure})", hint=_UNPLUGGED) from None
