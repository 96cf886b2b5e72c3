"""Frames of the loader's protocol, as ``targets/cortex-m/loader/loader.h`` describes them."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

ANSWER = 0x80


class Request(IntEnum):
    """Types of requests."""

    HELLO = 1
    SUMS = 2
    ERASE = 3
    WRITE = 4
    READ = 5
    SUM = 6
    COMMIT = 7
    BOOT = 8


class Status(IntEnum):
    """The first byte of an answer."""

    OK = 0
    BAD_REQUEST = 1
    OUTSIDE = 2
    NOT_ERASED = 3
    FLASH_FAILED = 4
    WRONG_SUM = 5
    NOT_AN_APP = 6
    NO_APP = 7
    BROKEN = 8
    WRONG_TAG = 9
    TOO_OLD = 10


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        type: of the request; answers have ``ANSWER`` added.
        sequence: 0 to 255.
        body: bytes; the first of an answer is its status.
    """

    type: int
    sequence: int
    body: bytes


def stuffed(data: bytes) -> bytes:
    """Data without any zero byte (COBS): at most one byte more in 254, and one."""
    out = bytearray()
    for run in data.split(b"\0"):
        at = 0
        while len(run) - at >= 254:
            out += b"\xff" + run[at : at + 254]
            at += 254
        out.append(len(run) - at + 1)
        out += run[at:]
    return bytes(out)


def unstuffed(data: bytes) -> bytes | None:
    """The data of a frame, or None where it was cut."""
    out, at = bytearray(), 0
    while at < len(data):
        code = data[at]
        if code == 0 or at + code > len(data):
            return None
        out += data[at + 1 : at + code]
        at += code
        if code != 255 and at < len(data):
            out.append(0)
    return bytes(out)


def encoded(frame: Frame) -> bytes:
    """A frame as it goes over the line."""
    data = bytes((frame.type, frame.sequence)) + frame.body
    return b"\0" + stuffed(data + struct.pack("<I", zlib.crc32(data))) + b"\0"


class Receiver:
    """Finds frames in what comes in.

    Attributes:
        broken: pieces between zeros that were no whole frame.
        text: the last bytes that were no frame, for messages.
    """

    def __init__(self) -> None:
        self.broken = 0
        self.text = b""
        self._rest = b""

    def take(self, data: bytes) -> list[Frame]:
        """The frames that are whole now."""
        *pieces, self._rest = (self._rest + data).split(b"\0")
        self._rest = self._rest[-65536:]
        return [frame for piece in pieces if piece and (frame := self._opened(piece)) is not None]

    def noise(self) -> bytes:
        """The last bytes that belong to no frame."""
        return self.text + self._rest

    def _opened(self, piece: bytes) -> Frame | None:
        data = unstuffed(piece)
        if data is None or len(data) < 6 or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
            self.broken += 1
            self.text = (self.text + piece)[-4096:]
            return None
        return Frame(data[0], data[1], data[2:-4])
