"""Firmware files: ELF, UF2, Intel HEX."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.devices.flash import FlashError
from edgesdk.devices.flash.images import Image, from_elf, from_hex, from_uf2, kind_of, read_image, to_uf2

from .firmware_files import BODY, elf, write


@given(st.binary(min_size=1, max_size=2000), st.integers(0, 2**20), st.integers(0, 2**32 - 1))
def test_uf2_and_back(data, page, family) -> None:
    file = to_uf2(Image(page * 256, data), family)
    assert len(file) == 512 * -(-len(data) // 256)
    for number in range(len(file) // 512):
        block = file[512 * number : 512 * number + 512]
        assert struct.unpack_from("<8I", block) == (
            0x0A324655, 0x9E5D5157, 0x2000, page * 256 + 256 * number, 256, number, len(file) // 512, family
        )  # fmt: skip
        assert block[-4:] == struct.pack("<I", 0x0AB16F30)
    back = from_uf2(file)
    assert (back.address, back.data) == (page * 256, data.ljust(len(back.data), b"\xff"))


@given(st.lists(st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=200)), min_size=1, max_size=5), st.data())
def test_elf_segments_become_one_image_and_a_cut_file_none(parts, data) -> None:
    at, placed = 0x08000000, []
    for gap, part in parts:
        placed.append((at + gap, part))
        at += gap + len(part)
    file = elf(*data.draw(st.permutations(placed)))
    image = from_elf(file)
    assert image.address == placed[0][0]
    memory = bytearray(b"\xff" * (at - placed[0][0]))
    for address, part in placed:
        memory[address - placed[0][0] : address - placed[0][0] + len(part)] = part
    assert image.data == bytes(memory)
    with pytest.raises(FlashError, match="is cut"):
        from_elf(file[: data.draw(st.integers(0, len(file) - 1))])


def test_elf_files_that_are_no_firmware() -> None:
    for file, message in (
        (elf((0, BODY), machine=62), "not a 32-bit little-endian Arm"),
        (elf(), "nothing to load"),
        (elf((0, BODY), (0x20000000, BODY)), "no flash image"),
        (elf((0, BODY), (50, BODY)), "two segments"),
    ):
        with pytest.raises(FlashError, match=message):
            from_elf(file)


@given(st.binary(min_size=1, max_size=300), st.integers(0, 2**32 - 400), st.data())
def test_intel_hex(data, address, draw) -> None:
    def record(kind: int, at: int, body: bytes) -> str:
        text = bytes((len(body),)) + struct.pack(">HB", at, kind) + body
        return f":{(text + bytes((-sum(text) % 256,))).hex().upper()}"

    lines, place = [], 0
    while place < len(data):
        here = address + place
        count = min(16, len(data) - place, 0x10000 - here % 0x10000)
        lines += [record(4, 0, struct.pack(">H", here >> 16)), record(0, here & 0xFFFF, data[place : place + count])]
        place += count
    lines += [record(5, 0, bytes(4)), record(1, 0, b"")]
    assert from_hex("\n".join(lines).encode()) == Image(address, data)
    with pytest.raises(FlashError, match=r"damaged|cut|nothing"):
        from_hex("\n".join(lines[:-1]).encode())
    spoiled = list("\n".join(lines))
    at = draw.draw(st.integers(1, len(lines[0]) - 1))
    spoiled[at] = "1" if spoiled[at] == "0" else "0"
    with pytest.raises(FlashError, match="damaged"):
        from_hex("".join(spoiled).encode())


def test_kinds_of_files(tmp_path) -> None:
    for kind, data in (
        ("elf", elf((0, BODY))), ("uf2", to_uf2(Image(0, BODY), 1)), ("hex", b":00000001FF\n"), ("bin", BODY)
    ):  # fmt: skip
        assert kind_of(write(tmp_path / "file", data)) == kind
    assert read_image(write(tmp_path / "file", BODY)) == Image(None, BODY)
