"""Firmware files for tests."""

from __future__ import annotations

import struct
from pathlib import Path

ARM = 40
BODY = bytes(range(100))


def elf(*parts: tuple[int, bytes], machine: int = ARM, virtual: int = 0x20000000) -> bytes:
    """A file with these segments; load addresses differ from virtual ones, as those of .data do."""
    head, table, data = 52, 32 * len(parts), b""
    rows = []
    for address, part in parts:
        offset = head + table + len(data)
        rows.append(struct.pack("<8I", 1, offset, virtual, address, len(part), len(part) + 8, 5, 4))
        data += part
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    header = struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, 0, head, 0, 0, head, 32, len(parts), 40, 0, 0)
    return ident + header + b"".join(rows) + data


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
