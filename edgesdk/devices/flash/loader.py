"""The host's end of the loader protocol: one request at a time, repeated until it is answered.

The protocol is described in ``targets/cortex-m/loader/loader.h``.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

from ...errors import EdgeError
from ...runner_lines import opened, sealed
from . import FlashError
from .frames import ANSWER, Frame, Receiver, Request, Status, encoded

VERSION = 1
_ATTEMPTS = 8
_POLL = 0.4  # seconds that a loader has to say hello before it is asked again
_SMALLEST = 64
_WHOLE, _KEYED = 1, 2  # bits of the state in a loader's hello
_HELLO = struct.Struct("<BBHIIIIIII")


class Port(Protocol):
    """What is needed of a pyserial port."""

    timeout: float | None

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read at once."""

    def read(self, size: int = 1, /) -> bytes:
        """At most ``size`` bytes; fewer after ``timeout``."""

    def write(self, data: bytes, /) -> int | None:
        """Send."""


_MEANING = {
    Status.BAD_REQUEST: ("the loader does not know this request", "flash the loader of this edgesdk again"),
    Status.OUTSIDE: ("the loader refuses an address outside of the firmware's flash", "build it for this board"),
    Status.NOT_ERASED: ("flash was not blank where it was to be written", "flash it again"),
    Status.FLASH_FAILED: ("flash does not take what is written to it", "it is protected or worn out"),
    Status.WRONG_SUM: ("the board's flash does not hold the firmware", "flash it again"),
    Status.NOT_AN_APP: ("the loader cannot start this firmware: its vectors fit another address", "use -DLOADER=ON"),
    Status.WRONG_TAG: (
        "the loader has another key: it does not start this firmware",
        "loader_key = of devices.toml names the file that the board's loader was built with",
    ),
    Status.TOO_OLD: (
        "the loader had a newer version of the firmware, and does not start an older one",
        "to go back on purpose, sign the bundle again with a higher version",
    ),
    Status.NO_APP: ("no whole firmware is on the board", "flash it again"),
}


class LostError(FlashError):
    """No answer to a request came through whole."""


class SilentError(LostError):
    """Nothing at all came back."""


@dataclass(frozen=True)
class Hello:
    """What a loader says about its board.

    Attributes:
        version: of the protocol.
        whole: whether a firmware is committed and its sum fits.
        newest: the greatest version of a firmware that it had; None where it has no key and asks for no proof.
        block: most bytes of one request.
        page: bytes that one erase takes.
        origin: address of the firmware.
        room: bytes of flash for it.
        ram: address and bytes of RAM.
        size: of the firmware that is there, 0 when none is whole.
        crc: its CRC-32.
        board: the name; cut after 12 letters.
    """

    version: int
    whole: bool
    newest: int | None
    block: int
    page: int
    origin: int
    room: int
    ram: tuple[int, int]
    size: int
    crc: int
    board: str


class Loader:
    """A loader at the other end of a port.

    Attributes:
        sent: bytes that went out.
        received: bytes that came in.
    """

    def __init__(self, port: Port, name: str, baud: int = 115200) -> None:
        """``name`` is for messages; ``baud`` says how long bytes take."""
        self.sent = self.received = 0
        self._port, self._name, self._baud = port, name, baud
        self._numbers: Iterator[int] = cycle(range(1, 256))
        self._receiver = Receiver()

    def connect(self, seconds: float) -> Hello:
        """Find the loader; a runner that has one is sent there.

        Raises:
            FlashError: nobody answers, or something that is no loader, or one of another version.
        """
        number, give_up = next(self._numbers), time.monotonic() + seconds
        ask = encoded(Frame(Request.HELLO, number, b""))
        words = b""  # the first time: a loader needs none
        while True:
            self._write(words + ask)
            found = self._answer(Request.HELLO, number, time.monotonic() + _POLL, patient=True)
            if found is not None:
                return _hello(found, self._name)
            if time.monotonic() > give_up:
                raise self._nobody()
            words = b"\x03\n" + sealed("loader")

    def ask(self, request: Request, body: bytes = b"", *, seconds: float = 2, answer: int = 0) -> bytes:
        """One request, repeated until its answer comes through.

        Args:
            request: its type.
            body: of the request.
            seconds: that the board may work on it; what the bytes take on the line is added.
            answer: bytes of the body that will come.

        Raises:
            LostError: no answer came.
            FlashError: the loader refused.
        """
        number = next(self._numbers)
        frame = encoded(Frame(request, number, body))
        before = self.received
        seconds += 11 * (len(frame) + answer + 32) / self._baud
        for _ in range(_ATTEMPTS):
            self._write(frame)
            found = self._answer(request, number, time.monotonic() + seconds)
            if found is not None:
                return found
        if self.received == before:
            raise SilentError(
                f"{self._name}: the loader stopped answering", hint="reset the board and flash again: it resumes"
            )
        raise LostError(
            f"{self._name}: the checksum of what comes over the line is never right",
            hint="check ground and cable, use a lower baud rate; or another program has the port open",
        )

    def sums(self, first: int, count: int, block: int) -> list[int]:
        """CRC-32 of blocks as flash holds them."""
        body = self.ask(
            Request.SUMS, struct.pack("<IH", first, count), seconds=2 + count * block / 5e5, answer=4 * count
        )
        return list(struct.unpack(f"<{count}I", body))

    def total(self, length: int) -> int:
        """CRC-32 of the firmware's first bytes, computed from flash."""
        body = self.ask(Request.SUM, struct.pack("<II", 0, length), seconds=2 + length / 5e5, answer=4)
        return int(struct.unpack("<I", body)[0])

    def erase(self, offset: int, length: int, page: int) -> None:
        """Whole pages to FF."""
        self.ask(Request.ERASE, struct.pack("<II", offset, length), seconds=3 + 0.1 * length / page + length / 5e4)

    def write(self, offset: int, data: bytes) -> None:
        """Whole words; smaller pieces where the line loses large ones."""
        at, size = 0, len(data)
        while at < len(data):
            piece = data[at : at + size]
            try:
                self.ask(Request.WRITE, struct.pack("<I", offset + at) + piece)
                at += len(piece)
            except LostError as failure:
                if size <= _SMALLEST or isinstance(failure, SilentError):
                    raise
                size = max(_SMALLEST, size // 2 // 4 * 4)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of flash; smaller pieces where the line loses large ones."""
        data, size = b"", length
        while len(data) < length:
            count = min(size, length - len(data))
            try:
                data += self.ask(Request.READ, struct.pack("<II", offset + len(data), count), answer=count)
            except LostError as failure:
                if size <= _SMALLEST or isinstance(failure, SilentError):
                    raise
                size = max(_SMALLEST, size // 2 // 4 * 4)
        return data

    def commit(self, size: int, crc: int, proof: bytes = b"") -> None:
        """Write the record that makes the firmware startable; ``proof`` is for a loader that asks for one."""
        self.ask(Request.COMMIT, struct.pack("<II", size, crc) + proof, seconds=3 + size / 5e4)

    def boot(self) -> None:
        """Start the firmware."""
        self.ask(Request.BOOT, seconds=3)

    def _answer(self, request: Request, number: int, give_up: float, patient: bool = False) -> bytes | None:
        """The body of an answer, or None when it is time to ask again: at once when something came through broken."""
        broken = self._receiver.broken
        while (left := give_up - time.monotonic()) > 0:
            data = self._read(left)
            if not data:
                return None
            for frame in self._receiver.take(data):
                if frame.type == ANSWER and frame.body[:1] == bytes((Status.BROKEN,)):
                    self._receiver.broken += 1
                elif (frame.type, frame.sequence) == (request | ANSWER, number) and frame.body:
                    return _body(frame, self._name)
            if self._receiver.broken != broken and not patient:
                return None
        return None

    def _read(self, seconds: float) -> bytes:
        try:
            self._port.timeout = seconds
            data = self._port.read(max(1, self._port.in_waiting))
        except OSError as failure:
            raise _broken_line(self._name, failure) from None
        self.received += len(data)
        return data

    def _write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except OSError as failure:
            raise _broken_line(self._name, failure) from None
        self.sent += len(data)

    def _nobody(self) -> FlashError:
        for line in self._receiver.noise().replace(b"\0", b"\n").splitlines():
            try:
                event = opened(line)
            except EdgeError:
                continue
            if event["event"] in ("hello", "error"):
                return FlashError(
                    f"{self._name}: a firmware answers that has no loader",
                    hint="flash it with a debug probe: --with TOOL",
                )
        if self._receiver.noise().strip():
            return FlashError(
                f"{self._name}: something answers, but no loader", hint="is this the board's port, and its baud rate?"
            )
        return FlashError(
            f"{self._name}: nobody answers",
            hint="reset the board while this waits; a new board needs loader.elf first, with a debug probe",
        )


def _hello(body: bytes, name: str) -> Hello:
    if body and body[0] != VERSION:
        raise FlashError(
            f"{name}: the loader speaks version {body[0]}, and this edgesdk {VERSION}", hint="flash the loader again"
        )
    if len(body) < _HELLO.size:
        raise FlashError(f"{name}: the loader's hello is cut", hint="flash the loader again")
    version, state, block, page, origin, room, ram, ram_bytes, size, crc = _HELLO.unpack_from(body)
    rest, newest = body[_HELLO.size :], None
    if state & _KEYED:
        newest, rest = int.from_bytes(rest[:4], "little"), rest[4:]
    board = rest.decode("ascii", "replace")
    if block < 4 or block % 4 or page < 4 or max(block, page) % min(block, page):
        raise FlashError(f"{name}: the loader says impossible sizes", hint="flash the loader again")
    whole = bool(state & _WHOLE)
    return Hello(version, whole, newest, block, page, origin, room, (ram, ram_bytes), size, crc, board)


def _body(frame: Frame, name: str) -> bytes:
    status = frame.body[0]
    if status == Status.OK:
        return frame.body[1:]
    words, hint = _MEANING.get(Status(status) if status in list(Status) else Status.BAD_REQUEST, ("", ""))
    raise FlashError(f"{name}: {words}", hint=hint)


def _broken_line(name: str, failure: OSError) -> FlashError:
    return FlashError(f"{name}: the line broke ({failure})", hint="plug the board in again and flash again: it resumes")
