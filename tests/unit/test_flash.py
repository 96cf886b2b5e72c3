"""Flash tools: exact command lines, and stand-ins on PATH."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from edgesdk.boards import board_names, open_board
from edgesdk.devices.flash import FlashError
from edgesdk.devices.flash.flashing import flash_with, tools_for
from edgesdk.devices.flash.images import Image, from_uf2, to_uf2
from edgesdk.devices.flash.programs import last_lines
from edgesdk.devices.flash.tools import TOOLS, Job, Program
from edgesdk.devices.flash.volumes import INFO, copy_to_volume

from .firmware_files import BODY, elf, write

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
        "gdb-multiarch -nx -iex set~auto-load~off -batch -ex set~tcp~connect-timeout~3 -ex target~remote~P"
        " -ex load -ex compare-sections -ex monitor~system_reset -ex detach F",
    ]),
    ("gdb", "nrf52840", "elf", [
        "gdb-multiarch -nx -iex set~auto-load~off -batch -ex set~tcp~connect-timeout~3 -ex target~remote~P"
        " -ex load -ex compare-sections -ex monitor~reset -ex detach F",
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


def test_a_flat_binary_without_a_known_place(tmp_path, programs) -> None:
    programs("JLinkExe", "echo Verify successful.")
    file = write(tmp_path / "firmware.bin", BODY)
    with pytest.raises(FlashError, match="where a flat binary goes on apollo510 is not known"):
        flash_with(file, open_board("apollo510"), "jlink")
    elf_file = write(tmp_path / "firmware.elf", elf((0x00410000, BODY)))
    assert flash_with(elf_file, open_board("apollo510"), "jlink") == "jlink"
    assert replace(open_board("apollo510"), flashing=None).flash_origin is None
