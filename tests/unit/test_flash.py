"""Flash tools by their exact command lines and by stand-ins on PATH, firmware files, and the loader on a bad line."""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.boards import board_names, open_board
from edgesdk.devices.flash import FlashError
from edgesdk.devices.flash.flashing import flash_with, tools_for
from edgesdk.devices.flash.frames import Frame, Receiver, Request, encoded, stuffed, unstuffed
from edgesdk.devices.flash.images import Image, from_elf, from_hex, from_uf2, kind_of, read_image, to_uf2
from edgesdk.devices.flash.loader import Loader
from edgesdk.devices.flash.programs import last_lines
from edgesdk.devices.flash.tools import TOOLS, Job, Program
from edgesdk.devices.flash.uart import load_over_uart
from edgesdk.devices.flash.volumes import INFO, copy_to_volume
from edgesdk.runner_lines import opened, sealed

from .c_loader import LOADER, RAM, RAM_ORIGIN, ROOM, CLoader, Wire, firmware

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


# --- command lines ----------------------------------------------------------------------------------------------------

DFU = "dfu-util --device 0483:df11 --alt 0 --serial P"
JLINK = "JLinkExe -NoGui 1 -ExitOnError 1 -AutoConnect 1 -SelectEmuBySN P -Device STM32H743ZI -If SWD -Speed 4000"
COMMANDS = [
    ("esptool", "esp32-s3", "bin", [
        "esptool --chip esp32s3 --port /dev/ttyUSB0 --baud 460800 write_flash 0x10000 F",
        "esptool --chip esp32s3 --port /dev/ttyUSB0 --baud 460800 verify_flash 0x10000 F",
    ]),
    ("pyocd", "nrf52840", "elf", [
        "pyocd load --no-wait --target nrf52840 --probe P --format elf F",
        "pyocd commander --no-wait --target nrf52840 --probe P -c savemem~0x10000~100~\"S/read-back.bin\" -c reset",
    ]),
    ("pyocd", "rp2350", "bin", [
        "pyocd load --no-wait --target rp2350 --probe P --format bin --base-address 0x10000 F",
        "pyocd commander --no-wait --target rp2350 --probe P -c savemem~0x10000~100~\"S/read-back.bin\" -c reset",
    ]),
    ("openocd", "stm32f411", "elf", [
        "openocd -f interface/stlink.cfg -f target/stm32f4x.cfg -c adapter~serial~P -c program~{F}~verify~reset~exit",
    ]),
    ("openocd", "stm32h743", "bin", [
        "openocd -f interface/stlink.cfg -f target/stm32h7x.cfg -c adapter~serial~P"
        " -c program~{F}~0x10000~verify~reset~exit",
    ]),
    ("dfu", "stm32f411", "bin", [
        f"{DFU} --dfuse-address 0x00010000 --download F",
        f"{DFU} --dfuse-address 0x00010000:100:leave --upload S/read-back.bin",
    ]),
    ("jlink", "stm32h743", "bin", [f"{JLINK} -CommandFile S/flash.jlink"]),
    ("gdb", "mps2-an386", "elf", [
        "gdb-multiarch -nx -batch -ex set~tcp~connect-timeout~3 -ex target~remote~P -ex load -ex compare-sections"
        " -ex monitor~system_reset -ex detach F",
    ]),
    ("gdb", "nrf52840", "elf", [
        "gdb-multiarch -nx -batch -ex set~tcp~connect-timeout~3 -ex target~remote~P -ex load -ex compare-sections"
        " -ex monitor~reset -ex detach F",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "board", "kind", "lines"), COMMANDS)
def test_exact_command_lines(tmp_path, tool, board, kind, lines) -> None:
    image, found = Path("/firmware"), TOOLS[tool]
    assert isinstance(found, Program)
    job = Job(image, kind, 0x10000, BODY, open_board(board), tmp_path, "/dev/ttyUSB0", "P")
    steps = [list(step.argv) for step in found.steps(found.programs[0], job)]
    wanted = [
        [part.replace("~", " ").replace("S/", f"{tmp_path}/").replace("{F}", "{/firmware}") for part in line.split()]
        for line in lines
    ]
    assert steps == [[str(image) if part == "F" else part for part in line] for line in wanted]


def test_without_a_probe_no_probe_is_named(tmp_path) -> None:
    job = Job(Path("/f"), "bin", 0x08000000, BODY, open_board("stm32h743"), tmp_path)
    for name in ("pyocd", "openocd", "dfu", "jlink"):
        tool = TOOLS[name]
        assert isinstance(tool, Program)
        for step in tool.steps(tool.programs[0], job):
            assert not {"--probe", "--serial", "-SelectEmuBySN", "adapter serial None"} & set(step.argv)


def test_the_script_of_jlink(tmp_path) -> None:
    tool = TOOLS["jlink"]
    assert isinstance(tool, Program)
    tool.steps("JLinkExe", Job(Path("/a b"), "bin", 0x08000000, BODY, open_board("stm32h743"), tmp_path))
    assert (tmp_path / "flash.jlink").read_text().splitlines() == [
        "r", "h", 'loadbin "/a b", 0x8000000', 'verifybin "/a b", 0x8000000', "r", "g", "qc"
    ]  # fmt: skip


def test_boards_say_what_serves_them() -> None:
    assert tools_for(open_board("rp2350")) == ["pyocd", "openocd", "jlink", "uf2", "gdb"]
    assert tools_for(open_board("esp32-s3")) == ["esptool"]
    assert tools_for(open_board("stm32f411")) == ["openocd", "jlink", "dfu", "gdb"]
    for name in board_names():
        board = open_board(name)
        assert board.emulator is None or board.flashing is None


# --- stand-ins on PATH ------------------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Write a shell script as a program; nothing else is on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        path.chmod(0o755)

    return put


@pytest.fixture
def firmware_elf(tmp_path) -> Path:
    return write(tmp_path / "firmware.elf", elf((0x08000000, BODY)))


UPLOAD = """for each; do last=$each; done
case "$*" in *--upload*) cp "{stored}" "$last"; exit 74;; esac
cp "$last" "{stored}"; {after}"""


def test_a_tool_that_works(programs, tmp_path, firmware_elf) -> None:
    programs("dfu-util", UPLOAD.format(stored=tmp_path / "stored", after="exit 0"))
    assert flash_with(firmware_elf, open_board("stm32f411")) == "dfu"  # the only one that is installed
    assert (tmp_path / "stored").read_bytes() == BODY
    programs("openocd", f'echo "$*" > "{tmp_path}/said"')
    assert flash_with(firmware_elf, open_board("stm32f411"), probe="A1") == "openocd"
    assert f"program {{{firmware_elf}}} verify reset exit" in (tmp_path / "said").read_text()


def test_a_flash_that_does_not_hold_it(programs, tmp_path, firmware_elf) -> None:
    programs("dfu-util", UPLOAD.format(stored=tmp_path / "stored", after=f'printf "\\1" > "{tmp_path}/stored"'))
    with pytest.raises(FlashError, match="does not hold the firmware: byte 0 of 100 differs"):
        flash_with(firmware_elf, open_board("stm32f411"), "dfu")
    programs("dfu-util", "exit 0")
    with pytest.raises(FlashError, match="could not read the firmware back"):
        flash_with(firmware_elf, open_board("stm32f411"), "dfu")


@pytest.mark.parametrize(
    ("tool", "program", "board", "script", "message"),
    [
        ("openocd", "openocd", "stm32h743", "echo Info; echo 'Error: open failed' >&2; exit 1", "Error: open failed"),
        ("pyocd", "pyocd", "stm32h743", "echo 'No target device available'; exit 1", "No target device available"),
        ("jlink", "JLinkExe", "stm32h743", "echo 'Cannot connect to target.'", "did not say that it verified"),
        ("jlink", "JLink", "stm32h743", "exit 3", "did not say that it verified"),
        ("dfu", "dfu-util", "stm32h743", "echo 'No DFU capable USB device available'; exit 74", "No DFU capable"),
        ("gdb", "gdb-multiarch", "stm32h743", "echo 'localhost:1: Connection refused.'", "Connection refused"),
        ("gdb", "arm-none-eabi-gdb", "stm32h743", "exit 0", "it loaded nothing"),
        (
            "gdb",
            "gdb-multiarch",
            "stm32h743",
            "echo 'Transfer rate: 1 KB/s'; echo 'Section .text, range 0x0 -- 0x9: MIS-MATCHED!'",
            "holds something else in .text",
        ),
    ],
)
def test_a_tool_that_fails(programs, firmware_elf, tool, program, board, script, message) -> None:
    programs(program, script)
    with pytest.raises(FlashError, match=message) as failure:
        flash_with(firmware_elf, open_board(board), tool, probe="localhost:1" if tool == "gdb" else None)
    assert failure.value.hint


def test_a_tool_that_hangs_is_ended(programs, firmware_elf) -> None:
    programs("openocd", "echo waiting for the target; sleep 60 & wait")
    with pytest.raises(FlashError, match=r"did not end within 0.5 s; it said: waiting for the target"):
        flash_with(firmware_elf, open_board("stm32h743"), "openocd", seconds=0.5)


def test_tools_that_are_not_there(programs, firmware_elf) -> None:
    with pytest.raises(FlashError, match="dfu is not installed") as failure:
        flash_with(firmware_elf, open_board("stm32f411"), "dfu")
    assert "apt install dfu-util" in (failure.value.hint or "")
    with pytest.raises(FlashError, match="none of the tools for stm32f411 is installed: openocd, jlink, dfu"):
        flash_with(firmware_elf, open_board("stm32f411"))
    with pytest.raises(FlashError, match="no flash tool is described for alif-e7"):
        flash_with(firmware_elf, open_board("alif-e7"))
    with pytest.raises(FlashError, match="did you mean 'openocd'"):
        flash_with(firmware_elf, open_board("stm32f411"), "opencd")
    with pytest.raises(FlashError, match="what esptool needs to know about stm32f411 is not in its file"):
        flash_with(firmware_elf, open_board("stm32f411"), "esptool")
    programs("gdb-multiarch", "exit 0")
    with pytest.raises(FlashError, match="gdb needs a server"):
        flash_with(firmware_elf, open_board("stm32f411"), "gdb")


def test_firmware_that_no_tool_should_be_given(programs, tmp_path, firmware_elf) -> None:
    programs("openocd", "exit 0")
    programs("esptool", "exit 0")
    with pytest.raises(FlashError, match="linked for 0x08000000, and the flash of rp2350 is at 0x10000000"):
        flash_with(firmware_elf, open_board("rp2350"), "openocd")
    large = write(tmp_path / "large.bin", b"1" * 600_000)
    with pytest.raises(FlashError, match="takes 600,000 bytes, and stm32f411 has 524,288"):
        flash_with(large, open_board("stm32f411"), "openocd")
    with pytest.raises(FlashError, match=r"esptool takes bin files, and firmware\.elf is elf"):
        flash_with(firmware_elf, open_board("esp32-s3"), "esptool")
    with pytest.raises(FlashError, match="cannot be read: No such file"):
        flash_with(tmp_path / "none.elf", open_board("stm32f411"), "openocd")
    with pytest.raises(FlashError, match="is empty"):
        flash_with(write(tmp_path / "empty.bin", b""), open_board("stm32f411"), "openocd")


def test_last_lines_have_no_bars_and_no_colours() -> None:
    output = "start\n\x1b[31mError: x\x1b[0m\n[====    ] 40%\r[========] 100%\r\n\nbye\n"
    assert last_lines(output) == ["start", "Error: x", "bye"]


# --- drives -----------------------------------------------------------------------------------------------------------


def volume(folder: Path, board: str) -> Path:
    folder.mkdir(parents=True)
    write(folder / INFO, f"UF2 Bootloader v1.0\r\nModel: x\r\nBoard-ID: {board}\r\n".encode())
    return folder


def test_a_firmware_goes_to_the_drive_of_its_board(tmp_path) -> None:
    data = random.Random(0).randbytes(1000)
    image = write(tmp_path / "firmware.elf", elf((0x10000000, data)))
    drive, other = volume(tmp_path / "media" / "me" / "RP2350", "RP2350"), volume(tmp_path / "media" / "X", "other")
    assert flash_with(image, open_board("rp2350"), "uf2", probe=str(drive)) == "uf2"
    assert from_uf2((drive / "firmware.uf2").read_bytes()).data[:1000] == data
    with pytest.raises(FlashError, match="is not of a board 'RP2350'"):
        flash_with(image, open_board("rp2350"), "uf2", probe=str(other))
    with pytest.raises(FlashError, match="is no UF2 drive"):
        flash_with(image, open_board("rp2350"), "uf2", probe=str(tmp_path))
    file = write(tmp_path / "again.uf2", b"x")
    copy_to_volume(file, "RP2350", places=[tmp_path / "media"])
    assert (drive / "again.uf2").read_bytes() == b"x"
    with pytest.raises(FlashError, match=r"no UF2 drive of a board 'SAMD' is mounted; there is"):
        copy_to_volume(file, "SAMD", places=[tmp_path / "media"])
    volume(tmp_path / "media" / "two", "RP2350")
    with pytest.raises(FlashError, match="several UF2 drives"):
        copy_to_volume(file, "RP2350", places=[tmp_path / "media"])


def test_a_uf2_file_of_another_chip_is_refused(tmp_path) -> None:
    file = write(tmp_path / "pico.uf2", to_uf2(Image(0x10000000, BODY), 0xE48BFF56))
    with pytest.raises(FlashError, match="family 0xe48bff56, and rp2350 takes 0xe48bff59"):
        flash_with(file, open_board("rp2350"), "uf2")


# --- files ------------------------------------------------------------------------------------------------------------


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


# --- the loader -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[(1024, 2048), (4096, 4096), (4096, 1024)], ids=str)
def board(request, tmp_path_factory) -> CLoader:
    """Blocks larger than pages, of a page, and smaller."""
    return CLoader(tmp_path_factory.mktemp("loader"), *request.param)


@pytest.fixture
def fresh(board) -> CLoader:
    board.clear()
    return board


@given(st.binary(max_size=1500), st.data())
def test_frames_hold_no_zero_and_come_back(data, draw) -> None:
    assert b"\0" not in stuffed(data)
    assert unstuffed(stuffed(data)) == data
    assert len(stuffed(data)) <= len(data) + len(data) // 254 + 1
    frame = Frame(draw.draw(st.integers(0, 255)), draw.draw(st.integers(0, 255)), data)
    wire, receiver, found = b"noise" + encoded(frame) + encoded(frame), Receiver(), []
    cut = draw.draw(st.integers(0, len(wire)))
    for part in (wire[:cut], wire[cut:]):
        found += receiver.take(part)
    assert found == [frame, frame]


@settings(max_examples=40, deadline=None)
@given(length=st.integers(0, 1024), zeros=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_c_frames_are_pythons(board, length, zeros, seed) -> None:
    rng = random.Random(seed)
    body = bytes(0 if rng.random() < zeros else rng.randrange(1, 256) for _ in range(length))
    board.clear()
    board.put(LOADER, body)
    loader = Loader(Wire(board), "test")
    loader.connect(1)
    assert loader.read(0, len(body)) == body
    assert loader.ask(Request.SUM, struct.pack("<II", 0, length)) == struct.pack("<I", zlib.crc32(body))


def test_a_load_is_verified_committed_and_started_with_little_overhead(fresh) -> None:
    image, port = firmware(60_001, 1), Wire(fresh)
    done = load_over_uart(port, image, board="simulated")
    assert fresh.app[: len(image)] == image
    assert (done.size, done.started, fresh.started, fresh.whole) == (60_004, True, True, True)
    assert done.line_bytes == port.sent + port.received
    assert done.line_bytes < done.written * 1.04
    fresh.reset()
    again = load_over_uart(Wire(fresh), image, read_back=True)
    assert (again.written, fresh.started) == (0, True)
    fresh.reset()
    other = bytearray(image)
    other[30_000] ^= 0xFF
    changed = load_over_uart(Wire(fresh), bytes(other))
    assert 0 < changed.written <= 4096
    assert fresh.app[: len(other)] == bytes(other)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), lost=st.sampled_from([0.0, 1e-4, 1e-3, 4e-3]), data=st.data())
def test_on_a_bad_line_with_failing_power_nothing_half_is_ever_started(board, seed, lost, data) -> None:
    """Whatever is lost, changed, cut or powered off: what the loader would start is a whole image, and done is done."""
    board.clear()
    rng = random.Random(seed)
    images = [firmware(rng.randrange(9000, 30_000), seed + number) for number in range(2)]
    padded = [image + b"\xff" * (-len(image) % 4) for image in images]
    for attempt in range(4):
        image = images[min(attempt // 2, 1)]
        if data.draw(st.booleans()):
            board.fail_after(data.draw(st.integers(0, 30_000)), seed)
        left = data.draw(st.none() | st.integers(0, 60_000))
        try:
            load_over_uart(Wire(board, lost=lost, seed=seed + attempt, left=left), image, wait=0.01)
            assert board.app[: len(image)] == image
            assert board.whole
        except FlashError:
            pass
        board.reset()
        assert not board.whole or any(board.app[: len(each)] == each for each in padded)
    load_over_uart(Wire(board), images[1])
    assert board.app[: len(images[1])] == images[1]
    assert board.whole


def test_a_cut_load_resumes_where_it_was(fresh) -> None:
    image = firmware(60_000, 5)
    with pytest.raises(FlashError, match="the line broke"):
        load_over_uart(Wire(fresh, left=40_000), image)
    assert not fresh.whole
    done = load_over_uart(Wire(fresh), image)
    assert done.written < 60_000 - 30_000
    assert fresh.whole


def test_a_changed_application_is_not_started(fresh) -> None:
    load_over_uart(Wire(fresh), firmware(20_000, 1))
    for at in (LOADER + 10_000, LOADER - 1024 + 5):
        if fresh.memory[at] != 0xFF:
            before = fresh.memory[at : at + 1]
            fresh.put(at, bytes((before[0] ^ 4,)))
            assert not fresh.whole
            fresh.put(at, before)
    assert fresh.whole


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (firmware(9000, 1), {"board": "mps2-an386"}, "the board is a simulated, and the firmware is for mps2-an386"),
        (firmware(ROOM + 4, 1), {}, "takes 81,924 bytes, and the board has 81,920"),
        (firmware(9000, 1, origin=0), {}, "linked for another address: it starts at 0x00000009"),
        (Image(0, firmware(9000, 1)), {}, "linked for 0x00000000, and the loader takes one for 0x00004000"),
        (struct.pack("<II", RAM_ORIGIN + RAM + 4, LOADER + 9) + bytes(100), {}, "its stack at 0x20004004 is not"),
        (b"1234", {}, "too short"),
    ],
)
def test_firmware_that_does_not_belong_there(fresh, image, options, message) -> None:
    with pytest.raises(FlashError, match=message) as failure:
        load_over_uart(Wire(fresh), image, **options)
    assert failure.value.hint
    assert fresh.app == b"\xff" * ROOM


class Deaf(Wire):
    """Something else is at the other end."""

    words = b""

    def write(self, data: bytes) -> int:
        self._waiting += self.words
        return len(data)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (b"", "nobody answers"),
        (b"login: \r\n", "something answers, but no loader"),
        (sealed('{"event":"error","code":"command","message":"there are: hello"}'), "a firmware answers that has no"),
    ],
)
def test_others_at_the_port(fresh, words, message) -> None:
    port = Deaf(fresh)
    port.words = words
    with pytest.raises(FlashError, match=message):
        load_over_uart(port, firmware(9000, 1), wait=0.05)


def test_a_line_that_never_works_is_not_asked_for_ever(fresh) -> None:
    with pytest.raises(FlashError, match=r"never right|nobody|no loader"):
        load_over_uart(Wire(fresh, lost=0.05, seed=3), firmware(9000, 1), wait=0.5)
    assert not fresh.whole


def test_flash_that_does_not_erase(fresh) -> None:
    fresh.put(LOADER, bytes(ROOM))
    fresh.stick()
    with pytest.raises(FlashError, match="flash does not take what is written to it") as failure:
        load_over_uart(Wire(fresh), firmware(9000, 1))
    assert failure.value.hint == "it is protected or worn out"


def test_flash_that_takes_only_some_bits(fresh) -> None:
    fresh.stick()
    with pytest.raises(FlashError, match="flash does not take what is written to it"):
        Loader(Wire(fresh), "test").write(0, bytes(8))


@pytest.mark.parametrize("spoil", [0, 5, 9, 13])
def test_a_half_written_record_starts_nothing(fresh, spoil) -> None:
    """Each of its four words; the application itself is whole. A size beyond flash is not even summed up."""
    load_over_uart(Wire(fresh), firmware(20_000, 1))
    record = fresh.memory.index(struct.pack("<II", 0x44454B4F, 20_000))
    fresh.put(record + spoil, b"\xee")
    assert not fresh.whole
    fresh.put(record + 4, b"\xff" * 12)
    assert not fresh.whole


def test_the_loader_refuses_what_is_no_request(fresh) -> None:
    loader = Loader(Wire(fresh), "test")
    hello = loader.connect(1)
    size = ROOM // hello.block
    for request, body, words in (
        (Request.BOOT, b"", "no whole firmware"),
        (Request.BOOT, b"x", "does not know"),
        (Request.SUM, struct.pack("<II", ROOM - 3, 4), "outside"),
        (Request.SUM, struct.pack("<II", 4, 0xFFFFFFFF), "outside"),
        (Request.READ, struct.pack("<II", 0, hello.block + 1), "does not know"),
        (Request.SUMS, struct.pack("<IH", size, 1), "outside"),
        (Request.SUMS, struct.pack("<IH", 0xFFFFFFFF, 2), "outside"),
        (Request.SUMS, struct.pack("<IH", 0, 129), "does not know"),
        (Request.ERASE, struct.pack("<II", 1, hello.page), "outside"),
        (Request.ERASE, struct.pack("<II", 0, 2**32 - hello.page), "outside"),
        (Request.WRITE, struct.pack("<I", ROOM) + b"1234", "outside"),
        (Request.WRITE, struct.pack("<I", 2) + b"1234", "outside"),
        (Request.WRITE, struct.pack("<I", 0) + b"123", "outside"),
        (Request.COMMIT, struct.pack("<II", 100, 1), "does not hold"),
        (Request.COMMIT, struct.pack("<II", 100, zlib.crc32(b"\xff" * 100)), "vectors"),
        (Request.COMMIT, struct.pack("<II", 2**31, 1), "outside"),
    ):
        with pytest.raises(FlashError, match=words):
            loader.ask(request, body)
    loader.write(0, b"\x0f" * 8)
    loader.write(0, b"\x0f" * 8)  # again is the same
    with pytest.raises(FlashError, match="not blank"):
        loader.write(0, b"\xf0" * 8)
    assert not fresh.whole


def test_the_first_change_takes_the_record_away(fresh) -> None:
    load_over_uart(Wire(fresh), firmware(20_000, 1), start=False)
    loader = Loader(Wire(fresh), "test")
    hello = loader.connect(1)
    assert (hello.whole, hello.size) == (True, 20_000)
    loader.write(0, fresh.app[:64])  # what is there already changes nothing
    assert fresh.whole
    loader.erase(8 * hello.page, hello.page, hello.page)  # blank already or not: from here on nothing is whole
    assert not fresh.whole
    load_over_uart(Wire(fresh), firmware(20_000, 1))
    assert fresh.whole


def test_the_loader_says_who_it_is_as_the_runner_does(fresh) -> None:
    line = fresh.announced(b"empty")
    assert line.startswith(b"\n")
    event = opened(line.strip())
    assert event == {"event": "loader", "protocol": 1, "board": "simulated", "why": "empty"}


def test_another_version_is_named(fresh, monkeypatch) -> None:
    monkeypatch.setattr("edgesdk.devices.flash.loader.VERSION", 2)
    with pytest.raises(FlashError, match="speaks version 1, and this edgesdk 2"):
        load_over_uart(Wire(fresh), firmware(9000, 1))


def test_a_flat_binary_without_a_known_place(tmp_path, programs) -> None:
    programs("JLinkExe", "echo Verify successful.")
    file = write(tmp_path / "firmware.bin", BODY)
    with pytest.raises(FlashError, match="where a flat binary goes on apollo510 is not known"):
        flash_with(file, open_board("apollo510"), "jlink")
    elf_file = write(tmp_path / "firmware.elf", elf((0x00410000, BODY)))
    assert flash_with(elf_file, open_board("apollo510"), "jlink") == "jlink"
    assert replace(open_board("apollo510"), flashing=None).flash_origin is None
