"""Microcontrollers over a UART, with pyserial: devices, and its URLs (``socket://``, ``rfc2217://``)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ..documents import whole
from ..errors import MissingExtraError
from ..progress import SILENT, Progress
from .address import Settings
from .base import (
    UART,
    Ability,
    Device,
    DeviceBusyError,
    DeviceError,
    DeviceGoneError,
    DeviceTimeoutError,
    Flashing,
    Line,
)
from .facts import Facts
from .hosts import check_port
from .runner.link import RunnerLink

if TYPE_CHECKING:
    import serial

    from ..boards import Board
    from .flash.loader import Port
    from .flash.proofs import Proof

BAUD = 115200
_POLL = 0.1


class SerialDevice(Device):
    """A board whose firmware speaks the runner protocol over one line."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"lines", "flash"})

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name, settings)
        self.path, self.baud = _parts(settings.rest)
        self.identity = identity_of(settings.address)

    def facts(self) -> Facts:
        """What the firmware's ``hello`` says.

        Raises:
            DeviceTimeoutError: nothing says hello.
        """
        from ..boards import board_names, open_board

        link = RunnerLink(self.stream(), self.name, ask=True, seconds=5)
        found = link.hello
        link.close()
        board = self.settings.board or found.get("board")
        known = open_board(board) if board in board_names() else None
        return Facts(
            model=known.description if known else board,
            os="none",
            release=f"{found.get('runner')} (protocol {found.get('protocol')})",
            architecture=known.core if known else None,
            ram=known.ram if known else None,
            cores=1,
            emulated="firmware" if found.get("emulated") else None,
            board=known.name if known else None,
            more={"model_crc": str(found.get("model_crc"))},
        )

    def stream(self, command: str = "") -> Line:
        if command:
            self.need("run")
        return SerialLine(self.name, self.port())

    def flash(self, firmware: Path, board: Board, how: Flashing = UART, *, progress: Progress = SILENT) -> str:
        from .flash.flashing import flash_with
        from .flash.images import read_image
        from .flash.uart import load_over_uart

        if how.tool == "uart":
            with closing(self.port()) as port:
                done = load_over_uart(
                    cast("Port", port),
                    read_image(firmware),
                    board=board.name,
                    baud=self.baud,
                    read_back=how.read_back,
                    proof=self._proof(how.version),
                    progress=progress,
                )
            return f"{done.written:,} bytes of {done.size:,} written over the UART"
        used = flash_with(firmware, board, how.tool, port=self.path, probe=how.probe, progress=progress)
        return f"written and verified with {used}"

    def _proof(self, version: int | None) -> Proof | None:
        """What the board's loader is told of a firmware, where it has a key."""
        from ..signing import SignatureError
        from .flash.proofs import Proof, loader_key

        if self.settings.loader_key is None:
            return None
        key = loader_key(Path(self.settings.loader_key))
        if version is None:
            raise SignatureError(
                f"{self.name}: its loader has a key, and no bundle's signature was checked",
                hint=f"edgesdk keys pin PUBLIC --device {self.name}",
            )
        return Proof(key, version)

    def port(self, timeout: float = _POLL) -> serial.SerialBase:
        """The open port itself.

        Raises:
            DeviceBusyError: another program has it.
            DeviceGoneError: there is none.
        """
        return opened_port(self.name, self.path, self.baud, timeout, self._lines())

    def _lines(self) -> dict[str, bool | None]:
        """The modem lines that the settings name, with whether they are high; None is as they are."""
        named = {"rts": self.settings.rts, "dtr": self.settings.dtr}
        levels = {"low": False, "high": True, "keep": None}
        return {line: levels[level] for line, level in named.items() if level is not None}

    def close(self) -> None:
        pass


class SerialLine:
    """Lines of a UART."""

    def __init__(self, name: str, port: serial.SerialBase) -> None:
        self._name, self._port, self._rest = name, port, b""

    def send(self, data: bytes) -> None:
        import serial

        try:
            self._port.write(data)
        except serial.SerialTimeoutException:
            raise DeviceTimeoutError(f"{self._name} takes no bytes: flow control, or a stalled board?") from None
        except (serial.SerialException, OSError) as failure:
            raise _gone(self._name, failure) from None

    def line(self, seconds: float) -> bytes:
        import serial

        give_up = time.monotonic() + seconds
        while b"\n" not in self._rest:
            if time.monotonic() > give_up:
                raise DeviceTimeoutError(f"{self._name}: nothing came for {seconds:g} s")
            try:
                self._rest += self._port.read(getattr(self._port, "in_waiting", 0) or 1)
            except (serial.SerialException, OSError) as failure:
                raise _gone(self._name, failure) from None
        found, _, self._rest = self._rest.partition(b"\n")
        return found

    def close(self) -> None:
        with suppress(Exception):  # a port that is already gone
            self._port.close()


def opened_port(
    name: str, path: str, baud: int, timeout: float = _POLL, lines: Mapping[str, bool | None] | None = None
) -> serial.SerialBase:
    """An open port.

    Where lines are named, they are set as they are to be from the first moment on, and stay so when the port is closed.
    Linux raises both at the first opening, before anybody can ask for less. From there RTS goes down before DTR: the
    other way round is the pulse by which esptool resets an ESP32 (DTR low and RTS high pull EN), this way only IO0 is
    pulled for a moment, which a running chip does not look at.

    Args:
        name: of the device, for errors.
        path: of the port, or a URL of pyserial.
        baud: bits per second.
        timeout: of a read, seconds.
        lines: ``dtr`` and ``rts``, with whether they are high; None leaves one as the operating system has it. A line
            that is not named is high. A port that has no such lines is opened all the same.

    Raises:
        DeviceBusyError: another program has it.
        DeviceGoneError: there is none.
    """
    try:
        import serial
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "serial", "devices") from None
    exclusive: dict[str, Any] = {} if "://" in path else {"exclusive": True}
    try:
        port = serial.serial_for_url(
            path, baudrate=baud, timeout=timeout, write_timeout=30, do_not_open=True, **exclusive
        )
        if lines:
            _open_with(port, {"rts": True, "dtr": True, **lines})
        else:
            port.open()
    except (serial.SerialException, OSError, ValueError) as failure:
        raise _refused(name, path, failure) from None
    return port


def _open_with(port: Any, lines: Mapping[str, bool | None]) -> None:
    """Open a port and set its lines, RTS first.

    pyserial's own opening sets both, DTR first, by two methods that each of its kinds of port has; meanwhile they do
    nothing. On Windows levels belong to the port's configuration, which cannot leave a line: ``keep`` is high there.
    """
    for line, high in lines.items():
        if high is not None:
            setattr(port, line, high)
    port._update_rts_state = port._update_dtr_state = lambda: None
    try:
        port.open()
    finally:
        del port._update_rts_state, port._update_dtr_state
    try:
        _hold_lines(port)
        for line, high in lines.items():
            if high is not None:
                with _no_such_lines():
                    setattr(port, line, high)
    except BaseException:
        port.close()
        raise


@contextmanager
def _no_such_lines() -> Iterator[None]:
    """Pass over what a port says that has no modem lines: a pseudo terminal, some boards' own USB."""
    try:
        yield
    except OSError as failure:
        if failure.errno not in (errno.EINVAL, errno.ENOTTY):
            raise


def _hold_lines(port: Any) -> None:
    """Have the kernel leave the modem lines when the port is closed (termios(3): HUPCL); Windows has no such thing."""
    if os.name != "posix" or "://" in str(port.port):
        return
    import termios

    attributes = termios.tcgetattr(port.fileno())
    attributes[2] &= ~termios.HUPCL
    termios.tcsetattr(port.fileno(), termios.TCSANOW, attributes)


def identity_of(address: str) -> str:
    """The port behind an address, whatever link or baud rate it was named with."""
    path, _ = _parts(address.partition(":")[2])
    return f"serial:{path if '://' in path else os.path.realpath(path)}"


def _parts(rest: str) -> tuple[str, int]:
    path, at, baud = rest.rpartition("@")
    if not at:
        path, baud = rest, str(BAUD)
    rate = whole(baud)
    if not rate or not path:
        raise DeviceError(f"'serial:{rest}': '{baud}' is no baud rate", hint="serial:/dev/ttyACM0@115200")
    check_port(path)
    return path, rate


def _refused(name: str, path: str, failure: Exception) -> DeviceError:
    said = str(failure)
    if "lock" in said or "busy" in said.lower() or getattr(failure, "errno", 0) in (11, 16):
        return DeviceBusyError(f"{name} is in use by another program", hint="close the monitor that has it open")
    if getattr(failure, "errno", 0) == 13 or "Permission denied" in said:
        return DeviceError(
            f"{name}: this user may not open it", hint="add the user to the group 'dialout', and log in again"
        )
    listed = _ports()
    there = f"; there are: {', '.join(listed)}" if listed and "://" not in path else ""
    return DeviceGoneError(f"{name} cannot be opened ({failure}){there}", hint="is the board plugged in?")


def _ports() -> list[str]:
    from serial.tools import list_ports

    return [f"serial:{port.device}" for port in list_ports.comports()]


def _gone(name: str, failure: object) -> DeviceGoneError:
    return DeviceGoneError(f"{name} is gone in the middle of it ({failure})", hint="plug it in, then try again")
