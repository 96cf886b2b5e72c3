"""Firmware files: ELF, Intel HEX, UF2 and flat binaries, and the conversions that tools need."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from . import FlashError

Kind = Literal["elf", "hex", "uf2", "bin"]
KINDS: tuple[Kind, ...] = ("elf", "hex", "uf2", "bin")
MOST_BYTES = 64 * 1024 * 1024  # more between the first and the last byte is no firmware
_ARM, _LOAD = 40, 1
_UF2_MAGICS = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
_UF2_FAMILY_GIVEN = 0x2000
_UF2_PAYLOAD = 256
_ERASED = b"\xff"


@dataclass(frozen=True)
class Image:
    """Bytes for one range of addresses.

    Attributes:
        address: of the first byte; None for a flat binary, which does not say.
        data: the bytes; gaps between parts are FF, as in erased flash.
    """

    address: int | None
    data: bytes


def kind_of(path: Path) -> Kind:
    """What a firmware file is, by its first bytes.

    Raises:
        FlashError: it is missing, unreadable or empty.
    """
    head = _read(path, 16)
    if not head:
        raise FlashError(f"the firmware file {path} is empty", hint="build the firmware again")
    if head.startswith(b"\x7fELF"):
        return "elf"
    if len(head) >= 8 and struct.unpack_from("<II", head) == _UF2_MAGICS[:2]:
        return "uf2"
    if head[:1] == b":" and len(head) >= 11 and all(byte in b"0123456789ABCDEFabcdef" for byte in head[1:9]):
        return "hex"
    return "bin"


def read_image(path: Path) -> Image:
    """The bytes of a firmware file.

    Raises:
        FlashError: the file is missing, cut or damaged.
    """
    kind, data = kind_of(path), _read(path)
    readers = {"elf": from_elf, "hex": from_hex, "uf2": from_uf2}
    return readers[kind](data, str(path)) if kind in readers else Image(None, data)


def from_elf(data: bytes, where: str = "the ELF file") -> Image:
    """What a 32-bit little-endian Arm ELF file puts into memory, at its load addresses.

    Raises:
        FlashError: the file is cut, or for another kind of processor, or holds nothing to load.
    """
    rebuild = "build the firmware again"
    if len(data) < 52:
        raise FlashError(f"{where} is cut: an ELF file has a header of 52 bytes", hint=rebuild)
    if data[:4] != b"\x7fELF" or data[4:6] != b"\x01\x01" or struct.unpack_from("<H", data, 18)[0] != _ARM:
        raise FlashError(
            f"{where} is not a 32-bit little-endian Arm ELF file", hint="give the firmware.elf of the build"
        )
    table, size, count = (*struct.unpack_from("<I", data, 28), *struct.unpack_from("<HH", data, 42))
    if size < 32 or table + size * count > len(data):
        raise FlashError(f"{where} is cut: its table of segments lies behind its end", hint=rebuild)
    parts = []
    for at in range(table, table + size * count, size):
        kind, offset, _, address, length = struct.unpack_from("<IIIII", data, at)
        if kind != _LOAD or length == 0:
            continue
        if offset + length > len(data):
            raise FlashError(f"{where} is cut: the segment at 0x{address:08x} lies behind its end", hint=rebuild)
        parts.append((address, data[offset : offset + length]))
    return _joined(parts, where)


def from_hex(data: bytes, where: str = "the HEX file") -> Image:
    """What an Intel HEX file puts into memory.

    Raises:
        FlashError: a record is damaged, or the last one is missing.
    """
    parts, base, ended = [], 0, False
    for number, line in enumerate(data.split(), 1):
        try:
            record = bytes.fromhex(line.decode("ascii").removeprefix(":"))
        except ValueError:
            record = b""
        if len(record) < 5 or record[0] != len(record) - 5 or sum(record) % 256 or not line.startswith(b":") or ended:
            raise FlashError(f"{where} is damaged at line {number}", hint="build the firmware again")
        kind, body = record[3], record[4:-1]
        if kind == 0 and body:
            parts.append((base + int.from_bytes(record[1:3], "big"), body))
        elif kind in (2, 4):
            base = int.from_bytes(body, "big") << (4 if kind == 2 else 16)
        ended = kind == 1
    if not ended:
        raise FlashError(f"{where} is cut: its last record is missing", hint="build the firmware again")
    return _joined(parts, where)


def to_uf2(image: Image, family: int) -> bytes:
    """A UF2 file: 512-byte blocks, 256 bytes of firmware in each.

    Args:
        image: with an address, a multiple of 256.
        family: the number by which a boot loader knows its chip.

    Raises:
        FlashError: the image says no address, or not one at which a block may begin.
    """
    if image.address is None or image.address % _UF2_PAYLOAD or not image.data:
        raise FlashError("a UF2 file needs an address that is a multiple of 256", hint="give the ELF file")
    count = -(-len(image.data) // _UF2_PAYLOAD)
    blocks = []
    for number in range(count):
        payload = image.data[number * _UF2_PAYLOAD : (number + 1) * _UF2_PAYLOAD].ljust(_UF2_PAYLOAD, _ERASED)
        head = (*_UF2_MAGICS[:2], _UF2_FAMILY_GIVEN, image.address + number * _UF2_PAYLOAD, _UF2_PAYLOAD)
        blocks.append(struct.pack("<8I476sI", *head, number, count, family, payload, _UF2_MAGICS[2]))
    return b"".join(blocks)


def from_uf2(data: bytes, where: str = "the UF2 file") -> Image:
    """What a UF2 file puts into flash.

    Raises:
        FlashError: a block is missing, cut or damaged.
    """
    rebuild = "make the UF2 file again"
    if not data or len(data) % 512:
        raise FlashError(f"{where} is cut: a UF2 file is whole blocks of 512 bytes", hint=rebuild)
    parts = []
    for at in range(0, len(data), 512):
        first, second, flags, address, length, number, count, _, payload, last = struct.unpack_from(
            "<8I476sI", data, at
        )
        if (first, second, last) != _UF2_MAGICS or length > 476 or (number, count) != (at // 512, len(data) // 512):
            raise FlashError(f"{where} is damaged at block {at // 512}", hint=rebuild)
        if not flags & 1:  # else: not for the main flash
            parts.append((address, payload[:length]))
    return _joined(parts, where)


def family_of(data: bytes) -> int | None:
    """The family that the first block of a UF2 file names."""
    _, _, flags, _, _, _, _, family = struct.unpack_from("<8I", data)
    return int(family) if flags & _UF2_FAMILY_GIVEN else None


def check_vectors(data: bytes, origin: int, room: int, ram: tuple[int, int]) -> None:
    """See that a firmware begins with vectors that fit where it goes.

    Args:
        data: the flat firmware.
        origin: the address of its first byte.
        room: bytes of flash from there on.
        ram: address and bytes of the RAM for its stack.

    Raises:
        FlashError: it is too large, no firmware, or linked for another address.
    """
    if len(data) > room:
        raise FlashError(
            f"the firmware takes {len(data):,} bytes, and the board has {room:,} for it",
            hint="export with a smaller recipe or a smaller model: `edgesdk fit` says what fits",
        )
    if len(data) < 8:
        raise FlashError(
            "the file is too short to be a firmware", hint="give the firmware.elf or firmware.bin of a build"
        )
    stack, start = struct.unpack_from("<II", data)
    if not start & 1 or not origin <= start < origin + len(data):
        raise FlashError(
            f"the firmware is linked for another address: it starts at 0x{start:08x}, and would lie at 0x{origin:08x} "
            f"to 0x{origin + len(data) - 1:08x}",
            hint="build it with -DLOADER=ON for a board with the loader, and without for a debug probe",
        )
    if not ram[0] < stack <= ram[0] + ram[1]:
        raise FlashError(
            f"the firmware is for another board: its stack at 0x{stack:08x} is not in this board's RAM",
            hint="build it with -DBOARD= and the name of this board",
        )


def _joined(parts: list[tuple[int, bytes]], where: str) -> Image:
    if not parts:
        raise FlashError(f"{where} holds nothing to load", hint="give the firmware.elf of the build")
    parts.sort(key=lambda part: part[0])
    start, end = parts[0][0], max(address + len(data) for address, data in parts)
    if end - start > MOST_BYTES:
        raise FlashError(
            f"{where} goes to addresses from 0x{start:08x} to 0x{end:08x}: that is no flash image",
            hint="link constants and initial data behind the code (AT > FLASH)",
        )
    whole, filled = bytearray(_ERASED) * (end - start), start
    for address, data in parts:
        if address < filled:
            raise FlashError(f"{where} has two segments at 0x{address:08x}", hint="look at its linker script")
        whole[address - start : address - start + len(data)] = data
        filled = address + len(data)
    return Image(start, bytes(whole))


def _read(path: Path, most: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as failure:
        reason = failure.strerror or failure
        raise FlashError(f"the firmware file {path} cannot be read: {reason}", hint="build it first") from None
