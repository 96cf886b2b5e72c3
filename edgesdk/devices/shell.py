"""Devices with a POSIX shell: every verb over one primitive, a channel to a running command."""

from __future__ import annotations

import re
import shlex
import threading
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from ..errors import EdgeError
from ..files import replacing
from .base import Ability, Advance, Completed, Device, DeviceError, DeviceGoneError, DeviceTimeoutError, unheard
from .facts import PROBE, PROGRAMS, Facts, parsed

_BLOCK = 1 << 18
_STALL = 60.0  # seconds without a sign of life
# Ends a command with its children: the group that most servers give it, or, where there is none, its descendants.
_KILL = """
family() {
    for file in /proc/[0-9]*/stat; do
        read -r line < "$file" || continue
        set -- "$1" ${line##*) }
        [ "$3" = "$1" ] && { child=${file#/proc/}; (family "${child%/stat}"); }
    done
    kill -TERM "$1"
}
{ kill -TERM "-$pid" || family "$pid"; } 2> /dev/null
"""


# What a login shell is given, whichever it is: fish, csh and zsh read this line as POSIX shells do. The command follows
# on standard input, where no login shell sees it, and ends with a line of its own.
_MARK, _END = "@edgesdk-began", "@edgesdk-command-ends"
_STUB = (
    f"exec sh -c 'echo {_MARK} $$;n=$(echo;echo x);n=${{n%x}};c=;"
    f'while IFS= read -r l;do case $l in {_END})break;;esac;c=$c$l$n;done;unset l n;eval "$c"\''
)
_MARKED = re.compile(rb"@edgesdk-began (\d{1,10})\r?\n")
_MOST_SAID = 1 << 20


class Channel(Protocol):
    """A running command: bytes in, bytes out, a status at the end. The one thing that a transport has to give."""

    def read(self, seconds: float | None) -> tuple[Literal["out", "err"], bytes] | None:
        """The next bytes and where they came from; None when the command has ended.

        Raises:
            TimeoutError: nothing came in that time.
            DeviceGoneError: the connection broke.
        """

    def write(self, data: bytes) -> None:
        """Bytes to standard input.

        Raises:
            DeviceGoneError: the connection broke, or took nothing for a minute.
            BrokenPipeError: the command takes no more, where the transport knows.
        """

    def end_input(self) -> None:
        """Close standard input."""

    def status(self) -> int:
        """The exit status, after :meth:`read` gave None."""

    def close(self) -> None:
        """Let go; never raises."""


class ShellDevice(Device):
    """A device with a POSIX shell and the usual small programs (coreutils, toybox or busybox)."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"run", "files", "lines", "reboot"})

    @property
    def python(self) -> str | None:
        """The interpreter that the settings name for runners."""
        return self.settings.python

    @abstractmethod
    def open(self, command: str) -> Channel:
        """Start a command line in the device's shell.

        Raises:
            DeviceError: the device cannot be reached, or does not let us.
        """

    def facts(self) -> Facts:
        root = shlex.quote(self.settings.folder)
        answer = self.run("exec sh -s", stdin=f"{PROBE}\nroot={root}\nfacts\n".encode(), timeout=30)
        return parsed(answer.text)

    def run(
        self, command: str, *, stdin: bytes | Iterable[bytes] = b"", timeout: float | None = 60, check: bool = False
    ) -> Completed:
        running = Running(self, command)
        found: dict[str, list[bytes]] = {"out": [], "err": []}
        try:
            feeder = Feeder(running, [stdin] if isinstance(stdin, bytes) else stdin)
            while (piece := feeder.read(timeout)) is not None:
                found[piece[0]].append(piece[1])
            feeder.join(_STALL)
            if feeder.failure is not None:
                raise feeder.failure
            done = Completed(running.channel.status(), b"".join(found["out"]), b"".join(found["err"]))
        except TimeoutError:
            raise DeviceTimeoutError(
                f"{self.name}: no sign of life for {timeout:g} s from: {_short(command)}",
                hint="give it more time, or look at what the device does",
            ) from None
        finally:
            running.finish()
        if check and done.status:
            raise DeviceError(f"{self.name}: {_short(command)}: {done.reason}")
        return done

    def stream(self, command: str = "") -> ShellLine:
        return ShellLine(Running(self, command))

    def push(self, source: Path, target: str, *, offset: int = 0, advance: Advance = unheard) -> None:
        quoted = shlex.quote(target)
        # A failure is said when all has come: a connection that closes while we still send would swallow the words.
        write = f"cat {'>>' if offset else '>'} {quoted}"
        self._write(f"{write} || {{ status=$?; cat > /dev/null; exit $status; }}", source, target, offset, advance)

    def push_hashed(self, source: Path, target: str, *, advance: Advance = unheard) -> str:
        """As :meth:`push`, of a whole file; the device hashes the bytes as they come.

        Returns:
            The sha256 of what it was given, in hexadecimal.
        """
        return self._write(f"written {shlex.quote(target)}", source, target, 0, advance).split(" ")[0]

    def _write(self, command: str, source: Path, target: str, offset: int, advance: Advance) -> str:
        """Give a file to a command that writes it to ``target``; what the command prints."""
        size, quoted = source.stat().st_size, shlex.quote(target)
        with source.open("rb") as file:
            file.seek(offset)

            def pieces() -> Iterator[bytes]:
                while block := file.read(_BLOCK):
                    yield block
                    advance(len(block))

            done = self.run(f"{PROGRAMS}\n{command}; size_of {quoted}", stdin=pieces(), timeout=_STALL)
        *said, written = done.text.splitlines() or [""]
        if done.status or (written != str(size) and done.stderr):
            raise DeviceError(f"{self.name}: {target} cannot be written: {done.reason}", hint=hint_for(done.reason))
        if written != str(size):
            raise DeviceGoneError(f"{self.name}: {target} has {written or 'no'} bytes of {size}")
        return "".join(said)

    def pull(self, source: str, target: Path) -> None:
        running = Running(self, f"cat {shlex.quote(source)}")
        said = b""
        try:
            with replacing(target) as partial, partial.open("wb") as file:
                while (piece := running.read(_STALL)) is not None:
                    if piece[0] == "out":
                        file.write(piece[1])
                    else:
                        said += piece[1]
                if running.channel.status():
                    raise DeviceError(f"{self.name}: {said.decode('utf-8', 'replace').strip() or source}")
        except TimeoutError:
            raise DeviceTimeoutError(f"{self.name}: {source} stopped coming") from None
        finally:
            running.finish()

    def reboot(self, *, timeout: float = 180) -> None:
        before = self._boot_id()
        with suppress(DeviceGoneError, DeviceTimeoutError):
            self.restart()
        self.close()
        give_up = time.monotonic() + timeout
        while time.monotonic() < give_up:
            try:
                if self._boot_id() != before:
                    return
            except DeviceError:
                self.close()
            time.sleep(0.2)  # between two attempts to reach it
        raise DeviceTimeoutError(f"{self.name} did not come back in {timeout:g} s after its restart")

    def restart(self) -> None:
        """Ask for a restart, and return at once.

        Raises:
            DeviceError: the device did not take it; a broken connection is what success looks like.
        """
        self.run("sync", timeout=300)
        done = self.run("reboot", timeout=10)
        if 0 < done.status < 128:
            raise DeviceError(f"{self.name} does not restart: {done.reason}", hint="as root, or restart it by hand")

    def _boot_id(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id", timeout=10, check=True).text.strip()


class Running:
    """A command and its process id there, so that it can be ended."""

    def __init__(self, device: ShellDevice, command: str) -> None:
        """Start it. Raises DeviceError: the device cannot be reached, or has no POSIX shell."""
        self._device = device
        self.channel = _started(device, command)
        self._ready: list[tuple[Literal["out", "err"], bytes]] = []
        self._ended = False
        try:
            self.pid = self._announced()
        except BaseException:
            self.channel.close()
            raise

    def read(self, seconds: float | None) -> tuple[Literal["out", "err"], bytes] | None:
        """As :meth:`Channel.read`."""
        if self._ready:
            return self._ready.pop(0)
        try:
            piece = self.channel.read(seconds)
        except DeviceGoneError:
            self._ended = True  # whatever has its number by now is not ours to end
            raise
        self._ended = piece is None
        return piece

    def finish(self) -> None:
        """Let go; a command that has not ended is ended there, if the device can still be reached."""
        self.channel.close()
        if self._ended:
            return
        command = f"pid={self.pid}; {_KILL}"
        with suppress(EdgeError, OSError):
            killer = _started(self._device, command)
            with suppress(TimeoutError):
                while killer.read(5) is not None:
                    pass
            killer.close()

    def _announced(self) -> int:
        """The process id, behind what a login shell and its files say before it."""
        seen, said = b"", b""
        try:
            while (found := _MARKED.search(seen)) is None:
                piece = self.channel.read(_STALL)
                if piece is None or len(seen) + len(said) > _MOST_SAID:
                    raise _no_shell(self._device.name, said or seen)
                if piece[0] == "err":
                    said += piece[1]
                else:
                    seen += piece[1]
        except TimeoutError:
            self.channel.close()
            raise DeviceTimeoutError(f"{self._device.name} does not answer") from None
        rest = seen[found.end() :]
        self._ready += [("out", rest)] if rest else []
        return int(found[1])


def _started(device: ShellDevice, command: str) -> Channel:
    """A command in the device's POSIX shell, whatever the login shell is."""
    channel = device.open(_STUB)
    lines = "".join(f"{line}\n" for line in [*command.split("\n"), _END])
    with suppress(BrokenPipeError, DeviceGoneError):  # what reads says why
        channel.write(lines.encode("utf-8", "surrogateescape"))
    return channel


class ShellLine:
    """Lines of a running command; its standard error is kept for the error when it ends."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._lines: list[bytes] = []
        self._rest, self._said = b"", b""

    def send(self, data: bytes) -> None:
        try:
            self._running.channel.write(data)
        except BrokenPipeError:
            raise self._ended() from None

    def line(self, seconds: float) -> bytes:
        give_up = time.monotonic() + seconds
        while not self._lines:
            try:
                piece = self._running.read(max(0.001, give_up - time.monotonic()))
            except TimeoutError:
                raise DeviceTimeoutError(f"nothing came for {seconds:g} s") from None
            if piece is None:
                raise self._ended()
            if piece[0] == "err":
                self._said = (self._said + piece[1])[-4096:]
                continue
            *whole, self._rest = (self._rest + piece[1]).split(b"\n")
            self._lines += whole
        return self._lines.pop(0)

    def close(self) -> None:
        self._running.finish()

    def _ended(self) -> DeviceGoneError:
        with suppress(TimeoutError, DeviceError):
            while (piece := self._running.read(1)) is not None:
                self._said = (self._said + piece[1])[-4096:]
        lines = [line for line in self._said.decode("utf-8", "replace").splitlines() if line.strip()]
        return DeviceGoneError(f"the program on the device ended: {lines[-1].strip() if lines else 'it said nothing'}")


def hint_for(reason: str) -> str | None:
    """The way out of a failed write, from the words of the device."""
    known = {
        "No space left": "edgesdk device clean frees what no bundle needs there",
        "Read-only file system": "name a writable folder: store = '...' in devices.toml",
        "Permission denied": "name a folder that this user may write: store = '...' in devices.toml",
    }
    return next((hint for words, hint in known.items() if words.lower() in reason.lower()), None)


class Feeder(threading.Thread):
    """Gives a command its input beside our reading; a command that takes no more has said why."""

    def __init__(self, running: Running, pieces: Iterable[bytes]) -> None:
        super().__init__(daemon=True)
        self._running, self._pieces, self._last = running, iter(pieces), time.monotonic()
        self.failure: OSError | None = None
        self.start()

    def run(self) -> None:
        with suppress(DeviceError, OSError, ValueError):
            while (piece := self._next()) is not None:
                if piece:
                    self._running.channel.write(piece)
                self._last = time.monotonic()
            self._running.channel.end_input()

    def _next(self) -> bytes | None:
        """The next piece; a source that cannot be read is remembered, and ends the input."""
        try:
            return next(self._pieces, None)
        except OSError as failure:
            self.failure = failure
            return None

    def read(self, seconds: float | None) -> tuple[Literal["out", "err"], bytes] | None:
        """As :meth:`Channel.read`; input that was taken is a sign of life too."""
        while True:
            try:
                return self._running.read(seconds)
            except TimeoutError:
                if seconds is None or time.monotonic() - self._last > seconds:
                    raise


def _no_shell(name: str, said: bytes) -> DeviceError:
    words = said.decode("utf-8", "replace").strip().splitlines()
    return DeviceError(f"{name} has no POSIX shell that answers: {words[-1] if words else 'it said nothing'}")


def _short(command: str) -> str:
    first = command.strip().splitlines()[0] if command.strip() else "the command"
    return first if len(first) <= 80 else first[:77] + "..."
