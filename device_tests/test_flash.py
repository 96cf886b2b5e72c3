"""Flashing emulated microcontrollers: gdb's load, and the UART loader on RAM-like and on real flash.

QEMU's microbit has Nordic's flash controller: pages to erase, bits that only an erase sets again.
"""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import serial

from edgesdk.boards import Board, Emulator, microcontroller_dir, open_board
from edgesdk.devices.flash import FlashError
from edgesdk.devices.flash.flashing import flash_with
from edgesdk.devices.flash.images import Image, read_image
from edgesdk.devices.flash.uart import load_over_uart
from edgesdk.errors import EdgeError
from edgesdk.runner_lines import opened, sealed, tokens_command
from edgesdk_converters.cortex_m.double import DoubleSession

from .cortex_m.lab import TOOLS
from .lab.microcontrollers import Microcontroller, microcontroller
from .models import tiny_firmware

missing = [tool for tool in (*TOOLS, "gdb-multiarch") if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")

LOADER = 16384
MICROBIT = Board(
    "microbit",
    "BBC micro:bit",
    "cortex-m0",
    256,
    16,
    16,
    "none",
    Emulator("microbit", "nrf51", 0, 0x20000000, 0x40002000),
)
# An application of the micro:bit: prints X with its own settings of the UART, and asks for the loader when it hears L.
APPLICATION = """
#include <stdint.h>
#define R(address) (*(volatile uint32_t *)(address))
extern uint32_t _stack_top;
static void put(char c) { R(0x4000211C) = 0; R(0x4000251C) = c; while (!R(0x4000211C)) {} }
static void start(void) {
    put('X'); put('\\n');
    for (;;) {
        if (!R(0x40002108)) continue;
        R(0x40002108) = 0;
        if ((R(0x40002518) & 0xFF) != 'L') continue;
        R(0x20000000) = 0x79617473; R(0x20000004) = ~0x79617473u;
        R(0xE000ED0C) = 0x05FA0004;
    }
}
__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {(void (*)(void))&_stack_top, start};
__attribute__((section(".text"), used)) static const uint8_t filler[] = {FILLER};
"""


def port_of(board: Microcontroller, timeout: float = 10) -> serial.SerialBase:
    """Its UART."""
    return serial.serial_for_url(board.uart, baudrate=115200, timeout=timeout)


def compiled(source: Path, folder: Path, *options: str) -> Path:
    for command in (
        ["cmake", "-S", source, "-B", folder, *options],
        ["cmake", "--build", folder, "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr, done.stderr
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny_firmware(tmp_path_factory.mktemp("flash") / "bundle")


@pytest.fixture(scope="module")
def plain(bundle, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    return compiled(bundle / "firmware", folder, "-DBOARD=mps2-an386") / "firmware.elf"


@pytest.fixture(scope="module")
def built(bundle, tmp_path_factory):
    done: dict[str, Path] = {}

    def of(board: str) -> Path:
        """The folder with loader.elf and firmware.elf of a board."""
        if board not in done:
            folder = tmp_path_factory.mktemp(board)
            done[board] = compiled(bundle / "firmware", folder, f"-DBOARD={board}", "-DLOADER=ON")
        return done[board]

    return of


def events(port: serial.SerialBase, *until: str) -> list[dict]:
    """What the board says, up to one of these; lines that are no events (frames of the loader) are passed over."""
    found: list[dict] = []
    while not found or found[-1]["event"] not in until:
        line = port.readline()
        assert line.endswith(b"\n"), (line, found)
        try:
            found.append(opened(line))
        except EdgeError:
            continue
    return found


def talks(bundle: Path, port: serial.SerialBase) -> None:
    """The firmware answers with the double's tokens."""
    port.write(b"\n" + sealed("hello"))
    events(port, "hello")
    port.write(tokens_command([5, 6, 7], new_tokens=12))
    said = [event["id"] for event in events(port, "done") if event["event"] == "token"]
    session, wanted = DoubleSession(bundle / "model.lm"), []
    logits = session.prefill([5, 6, 7])
    for _ in range(12):
        wanted.append(int(logits.argmax()))
        logits = session.decode(wanted[-1])
    assert said == wanted


class Cut:
    """A port whose cable is pulled after some bytes."""

    def __init__(self, port: serial.SerialBase, left: int) -> None:
        self._port, self._left = port, left
        self.timeout: float | None = None

    @property
    def in_waiting(self) -> int:
        return int(self._port.in_waiting)

    def read(self, size: int = 1) -> bytes:
        self._port.timeout = self.timeout
        return bytes(self._port.read(size))

    def write(self, data: bytes) -> int:
        part = data[: max(0, self._left)]
        self._left -= len(data)
        self._port.write(part)
        if len(part) < len(data):
            raise OSError(5, "the cable was pulled")
        return len(data)


def test_gdb_loads_a_firmware_that_then_talks(bundle, plain) -> None:
    with microcontroller("mps2-an386") as board:
        assert flash_with(plain, open_board("mps2-an386"), "gdb", probe=board.gdb) == "gdb"
        with port_of(board) as port:
            talks(bundle, port)


def test_gdb_says_when_memory_does_not_hold_it_or_nobody_listens(plain, tmp_path) -> None:
    with microcontroller("mps2-an386") as board:
        data = plain.read_bytes()
        damaged = tmp_path / "elsewhere.elf"
        changed = bytearray(data)
        table, size, count = (*struct.unpack_from("<I", data, 28), *struct.unpack_from("<HH", data, 42))
        for at in range(table, table + size * count, size):  # to where no memory is
            kind, offset, address, load, *rest = struct.unpack_from("<8I", data, at)
            if kind == 1:
                struct.pack_into("<8I", changed, at, kind, offset, address, load + 0x60000000, *rest)
        damaged.write_bytes(changed)
        anywhere = replace(open_board("mps2-an386"), emulator=None)
        with pytest.raises(FlashError, match="gdb failed"):
            flash_with(damaged, anywhere, "gdb", probe=board.gdb)
    with pytest.raises(FlashError, match=r"gdb failed.*(refused|timed out)"):
        flash_with(plain, open_board("mps2-an386"), "gdb", probe=board.gdb)


@pytest.mark.parametrize("name", ["mps2-an386", "mps3-an547", "mps2-an505"])
def test_a_firmware_over_the_uart(bundle, built, name) -> None:
    folder = built(name)
    image = read_image(folder / "firmware.elf")
    with microcontroller(name) as board, port_of(board) as port:
        flash_with(folder / "loader.elf", open_board(name), "gdb", probe=board.gdb)
        assert events(port, "loader")[-1]["why"] == "empty"
        done = load_over_uart(port, image, board=name, read_back=True)
        assert (done.board, done.started, done.written > len(image.data) / 2) == (name, True, True)
        talks(bundle, port)
        again = load_over_uart(port, image, board=name)  # the firmware goes to the loader, which has it all
        assert (again.written, again.started) == (0, True)
        assert again.line_bytes < 1000
        talks(bundle, port)
        port.write(sealed("loader"))
        assert events(port, "loader")[-1]["why"] == "asked"


def test_a_cut_load_is_not_started_and_resumes(bundle, built) -> None:
    name = "mps2-an386"
    image = read_image(built(name) / "firmware.elf")
    with microcontroller(name) as board, port_of(board) as port:
        flash_with(built(name) / "loader.elf", open_board(name), "gdb", probe=board.gdb)
        events(port, "loader")
        with pytest.raises(FlashError, match="the line broke"):
            load_over_uart(Cut(port, 60_000), image)
        reset(board)
        assert events(port, "loader")[-1]["why"] == "empty"
        done = load_over_uart(port, image)
        assert len(image.data) - 60_000 < done.written < len(image.data) - 40_000
        talks(bundle, port)


def test_firmware_for_elsewhere_is_refused(bundle, built, plain) -> None:
    name = "mps2-an386"
    image = read_image(built(name) / "firmware.elf")
    with microcontroller(name) as board, port_of(board) as port:
        flash_with(built(name) / "loader.elf", open_board(name), "gdb", probe=board.gdb)
        with pytest.raises(FlashError, match="the board is a mps2-an386"):
            load_over_uart(port, image, board="mps3-an547")
        with pytest.raises(FlashError, match="linked for another address"):
            load_over_uart(port, read_image(plain).data)
        with pytest.raises(FlashError, match="takes 5,000,000 bytes"):
            load_over_uart(port, image.data.ljust(5_000_000, b"1"))


def test_a_firmware_without_loader_is_named(plain) -> None:
    with microcontroller("mps2-an386") as board:
        flash_with(plain, open_board("mps2-an386"), "gdb", probe=board.gdb)
        with port_of(board) as port, pytest.raises(FlashError, match="a firmware answers that has no loader"):
            load_over_uart(port, b"1" * 100, wait=1)


def application(folder: Path, filler: bytes) -> Path:
    """A program for the micro:bit with some more bytes in it."""
    source, script, elf = folder / "app.c", folder / "app.ld", folder / "app.elf"
    source.write_text(APPLICATION.replace("FILLER", ",".join(map(str, filler))))
    script.write_text(
        "SECTIONS { . = 0x4000; .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) } _stack_top = 0x20004000; }"
    )
    flags = ["-mcpu=cortex-m0", "-mthumb", "-O2", "-Wall", "-Wextra", "-nostdlib", f"-T{script}"]
    subprocess.run(["arm-none-eabi-gcc", *flags, source, "-o", elf], check=True, capture_output=True)
    return elf


def test_on_real_flash(tmp_path) -> None:
    """Page erase, bits that only an erase sets, and a reset in the middle; then a second program over the first."""
    loader = compiled(microcontroller_dir() / "loader", tmp_path / "loader", "-DBOARD=microbit") / "loader.elf"
    rng = random.Random(1)
    first, second = (read_image(application(tmp_path, rng.randbytes(size))) for size in (30_000, 20_001))
    with microcontroller("microbit") as board, port_of(board) as port:
        flash_with(loader, MICROBIT, "gdb", probe=board.gdb)
        assert events(port, "loader")[-1]["why"] == "empty"
        with pytest.raises(FlashError, match="the line broke"):
            load_over_uart(Cut(port, 12_000), first)
        done = load_over_uart(port, first, board="microbit", read_back=True)
        assert len(first.data) - 12_100 < done.written < len(first.data) - 5_000
        assert b"X\n" in port.read_until(b"X\n")
        port.write(b"L")
        assert events(port, "loader")[-1]["why"] == "asked"
        with pytest.raises(FlashError, match="the line broke"):
            load_over_uart(Cut(port, 9_000), second)
        reset(board)
        assert events(port, "loader")[-1]["why"] == "empty"  # neither the first any more, nor the second yet
        gdb(
            board
        )  # QEMU 7.2 does not look at its socket when this UART starts to receive, before something else happens
        load_over_uart(port, second, read_back=True)
        assert b"X\n" in port.read_until(b"X\n")
        reset(board)
        assert events(port, "loader")[-1]["why"] == "window"  # nobody calls: it starts by itself
        assert b"X\n" in port.read_until(b"X\n")


def test_real_flash_refuses_a_program_for_another_place(tmp_path) -> None:
    loader = compiled(microcontroller_dir() / "loader", tmp_path / "loader", "-DBOARD=microbit") / "loader.elf"
    with microcontroller("microbit") as board:
        flash_with(loader, MICROBIT, "gdb", probe=board.gdb)
        with port_of(board) as port, pytest.raises(FlashError, match="its stack at 0x20004001 is not"):
            load_over_uart(port, Image(0x4000, struct.pack("<II", 0x20004001, 0x4009) + bytes(100)))


def reset(board: Microcontroller) -> None:
    """The reset button."""
    gdb(board, "monitor system_reset")


def gdb(board: Microcontroller, *words: str) -> None:
    words = (f"target remote {board.gdb}", *words, "detach")
    command = ["gdb-multiarch", "-nx", "-batch", *(part for word in words for part in ("-ex", word))]
    subprocess.run(command, check=True, capture_output=True)
