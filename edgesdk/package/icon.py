"""A placeholder for an app's icon, so that a project builds and a store takes it: a speech bubble on one colour."""

from __future__ import annotations

import struct
import zlib

_BACKGROUND, _BUBBLE = (0x1B, 0x3A, 0x57), (0xFF, 0xFF, 0xFF)
_LONGEST = 65535  # bytes of a stored block of deflate


def icon_png(points: int) -> bytes:
    """A square PNG of two colours without transparency, the same bytes each time (RFC 2083; nothing is compressed)."""
    rows = b"".join(b"\0" + _row(points, row) for row in range(points))
    header = struct.pack(">IIBBBBB", points, points, 1, 3, 0, 0, 0)  # one bit a point, by a palette
    parts = ((b"IHDR", header), (b"PLTE", bytes((*_BACKGROUND, *_BUBBLE))), (b"IDAT", _stored(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def _row(points: int, row: int) -> bytes:
    """The points of a row, eight a byte: a box with a tail below its left side."""
    top, bottom, tail = points * 5 // 16, points * 10 // 16, points * 12 // 16
    left, right = points * 4 // 16, points * 12 // 16
    if bottom <= row < tail:
        left += points // 16
        right = left + (tail - row) * 2 // 3
    elif not top <= row < bottom:
        right = left
    bits = ((1 << (right - left)) - 1) << (points - right)
    width = -(-points // 8)
    return (bits << (8 * width - points)).to_bytes(width, "big")


def _stored(data: bytes) -> bytes:
    """A zlib stream of stored blocks (RFC 1950, 1951)."""
    blocks = [data[at : at + _LONGEST] for at in range(0, len(data), _LONGEST)]
    found = [
        struct.pack("<BHH", number + 1 == len(blocks), len(block), len(block) ^ 0xFFFF) + block
        for number, block in enumerate(blocks)
    ]
    return b"\x78\x01" + b"".join(found) + struct.pack(">I", zlib.adler32(data))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
