"""A device and its verbs: the same over every transport, each with an exact contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from ..errors import EdgeError
from ..progress import SILENT, Progress

if TYPE_CHECKING:
    from ..boards import Board
    from .address import Settings
    from .facts import Facts

Ability = Literal["run", "files", "lines", "flash", "reboot"]
_MEANING: dict[Ability, str] = {
    "run": "run commands",
    "files": "hold files",
    "lines": "talk over a line",
    "flash": "be flashed",
    "reboot": "be rebooted from here",
}


class DeviceError(EdgeError):
    """A device cannot do what was asked."""


class DeviceGoneError(DeviceError):
    """The connection broke, or nothing was there to connect to."""


class DeviceTimeoutError(DeviceError):
    """The device did not answer in time."""


class DeviceBusyError(DeviceError):
    """Another process uses the device."""


Advance = Callable[[int], None]


def unheard(count: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Completed:
    """A command that ended.

    Attributes:
        status: exit status; 128 + number where a signal ended it.
        stdout: bytes, as they came.
        stderr: bytes, as they came.
    """

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as UTF-8; what is none becomes U+FFFD."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def reason(self) -> str:
        """The last line of standard error, or of standard output."""
        lines = [*self.text.splitlines(), *self.stderr.decode("utf-8", "replace").splitlines()]
        return next((line.strip() for line in reversed(lines) if line.strip()), f"status {self.status}")


@dataclass(frozen=True)
class Flashing:
    """How a firmware goes to a microcontroller.

    Attributes:
        tool: ``uart`` (the project's loader), or the name of a flash tool.
        probe: serial number of the debug probe, HOST:PORT of a gdb server, or folder of a UF2 drive.
        read_back: over the loader, compare every byte and not only the checksum.
        version: of the bundle's checked signature, for a loader that has a key.
    """

    tool: str = "uart"
    probe: str | None = None
    read_back: bool = False
    version: int | None = None


UART = Flashing()


class Line(Protocol):
    """A two-way line to a program on a device."""

    def send(self, data: bytes) -> None:
        """Bytes to the program.

        Raises:
            DeviceGoneError: the line broke.
        """

    def line(self, seconds: float) -> bytes:
        """The next line without its end.

        Raises:
            DeviceTimeoutError: none came in that time; what came of it is kept for the next call.
            DeviceGoneError: the program ended, or the line broke.
        """

    def close(self) -> None:
        """End the program, or let go of the line; never raises."""


class Device(ABC):
    """One thing that can be reached. A verb that its transport lacks is refused in one place, :meth:`need`.

    Attributes:
        name: how the user called it.
        abilities: what its transport can do.
        settings: what ``devices.toml`` says about it.
        identity: what records and pins go by: the same for every way to name it, where its transport can tell (a
            phone's serial number, the real path of a port); else its address.
    """

    abilities: ClassVar[frozenset[Ability]] = frozenset()

    def __init__(self, name: str, settings: Settings) -> None:
        self.name, self.settings = name, settings
        self.identity = settings.address

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address that is known to lead to it: what is said of one of them holds for it."""
        return (self.settings.address, self.identity)

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def marks(self) -> tuple[str, ...]:
        """What it is locked by: its name, and what its other names have too. Devices with a mark in common are one.

        Raises:
            DeviceError: it has to be asked, and cannot be reached.
        """
        return (self.identity,)

    def need(self, ability: Ability) -> None:
        """Stop where this device has no such ability.

        Raises:
            DeviceError: it has not; the error says what it can do.
        """
        if ability not in self.abilities:
            able = ", ".join(_MEANING[each] for each in sorted(self.abilities)) or "only be listed"
            raise DeviceError(f"{self.name} cannot {_MEANING[ability]}; it can {able}")

    @abstractmethod
    def facts(self) -> Facts:
        """What the device says about itself; what it does not say is None.

        Raises:
            DeviceError: it cannot be reached, or does not answer in time.
        """

    def run(
        self, command: str, *, stdin: bytes | Iterable[bytes] = b"", timeout: float | None = 60, check: bool = False
    ) -> Completed:
        """Run a command in the device's POSIX shell and wait for its end.

        Args:
            command: for ``sh -c``.
            stdin: bytes, or pieces of them; then end of file.
            timeout: seconds between two signs of life of the command; None waits for ever.
            check: whether a status other than 0 is an error.

        Raises:
            DeviceTimeoutError: it took longer; the command was ended.
            DeviceGoneError: the connection broke; whether the command still runs is not known.
            DeviceError: ``check``, and it failed.
        """
        self.need("run")
        raise NotImplementedError

    def stream(self, command: str = "") -> Line:
        """Start a command and talk to it line by line; a device that only has a line gives that.

        Raises:
            DeviceError: it cannot be reached, or is in use.
        """
        self.need("lines")
        raise NotImplementedError

    def push(self, source: Path, target: str, *, offset: int = 0, advance: Advance = unheard) -> None:
        """Write a file to the device: all of it from ``offset`` on, appended to the ``offset`` bytes that are there.

        ``advance`` is told the bytes of each piece that went out.

        Raises:
            DeviceError: it cannot be written there, the connection broke, or fewer bytes arrived than were sent.
        """
        self.need("files")
        raise NotImplementedError

    def pull(self, source: str, target: Path) -> None:
        """Copy one file from the device; ``target`` is whole or not there.

        Raises:
            DeviceError: no such file, or the connection broke.
        """
        self.need("files")
        raise NotImplementedError

    def flash(self, firmware: Path, board: Board, how: Flashing = UART, *, progress: Progress = SILENT) -> str:
        """Write a firmware to a microcontroller, verify it there, and start it.

        Args:
            firmware: ELF, Intel HEX, UF2 or flat binary.
            board: what it was built for.
            how: with which tool.
            progress: told of the bytes.

        Returns: what was done, in a few words.

        Raises:
            FlashError: the tool is missing or failed, the firmware does not fit, or the loader does not answer.
        """
        self.need("flash")
        raise NotImplementedError

    def reboot(self, *, timeout: float = 180) -> None:
        """Restart the device and wait until it answers again.

        Raises:
            DeviceTimeoutError: it did not come back in that time, seconds.
        """
        self.need("reboot")
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Let go of the device; never raises."""
