"""Microcontroller boards, as data in ``targets/cortex-m/boards/<name>.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .documents import read_toml
from .errors import TargetError
from .registry import unknown
from .schema import load
from .targets import targets_dir


@dataclass(frozen=True)
class Emulator:
    """How QEMU stands in for a board.

    Attributes:
        machine: ``-machine`` of ``qemu-system-arm``.
        port: the firmware's board file.
        flash_origin: address of the program.
        ram_origin: address of data.
        uart: address of the UART.
    """

    machine: str
    port: str
    flash_origin: int
    ram_origin: int
    uart: int


@dataclass(frozen=True)
class EsptoolData:
    """What esptool asks about a board.

    Attributes:
        chip: its ``--chip``.
        offset: of the application in flash, in ESP-IDF's usual partition table.
    """

    chip: str
    offset: int


@dataclass(frozen=True)
class Uf2Data:
    """What a UF2 boot loader asks for.

    Attributes:
        family: the number in each block.
        board: what stands in the drive's INFO_UF2.TXT.
    """

    family: int
    board: str


@dataclass(frozen=True)
class Flashing:
    """What the flash tools need to know about a board; a tool that is left out is not known to work.

    Attributes:
        origin: address at which a flat firmware starts; None where only an ELF file says it.
        openocd: configuration files, of the usual probe and of the chip.
        pyocd: ``--target``; some need ``pyocd pack install``.
        jlink: ``-Device``.
        dfu: USB vendor and product of the boot ROM.
        esptool: for Espressif's chips.
        uf2: for boards that show up as a drive.
    """

    origin: int | None = None
    openocd: tuple[str, ...] = ()
    pyocd: str | None = None
    jlink: str | None = None
    dfu: str | None = None
    esptool: EsptoolData | None = None
    uf2: Uf2Data | None = None


@dataclass(frozen=True)
class Board:
    """One microcontroller with its memories.

    Attributes:
        name: the file's name.
        description: one line for people.
        core: a name of ``targets/cortex-m/cores.toml``.
        flash_kb: memory for programs and weights, 1024 bytes, external flash that is mapped included.
        ram_kb: the largest contiguous RAM, 1024 bytes.
        clock_mhz: the highest clock of the core.
        fpu: what floats its core computes in hardware.
        emulator: how to run it in QEMU, or None for real hardware.
        flashing: how tools put a firmware onto it, or None where no tool is known.
    """

    name: str
    description: str
    core: str
    flash_kb: int
    ram_kb: int
    clock_mhz: int
    fpu: Literal["none", "single", "double"]
    emulator: Emulator | None = None
    flashing: Flashing | None = None

    @property
    def flash(self) -> int:
        """Bytes."""
        return self.flash_kb * 1024

    @property
    def ram(self) -> int:
        """Bytes."""
        return self.ram_kb * 1024

    @property
    def flash_origin(self) -> int | None:
        """Address of the first byte of a firmware; None where it is not known."""
        if self.emulator is not None:
            return self.emulator.flash_origin
        return self.flashing.origin if self.flashing is not None else None


@dataclass(frozen=True)
class Footprint:
    """What a runtime takes on a core without any model.

    Attributes:
        flash: code and constants, bytes.
        ram: its own variables without the stack, bytes.
        measured: the compiler that linked it here, or None where none could: then the largest core's sizes.
    """

    flash: int
    ram: int
    measured: str | None


def microcontroller_dir() -> Path:
    """The folder of everything that microcontroller targets share."""
    return targets_dir() / "cortex-m"


def board_names() -> list[str]:
    """Names of all boards."""
    return sorted(path.stem for path in (microcontroller_dir() / "boards").glob("*.toml"))


def open_board(name: str) -> Board:
    """Load one board.

    Raises:
        TargetError: no such board, or its file has a wrong key or value.
    """
    path = microcontroller_dir() / "boards" / f"{name}.toml"
    if name not in board_names():
        raise TargetError(unknown("board", name, board_names()))
    board = load(Board, {"name": name, **_toml(path)}, str(path), TargetError)
    if board.core not in cores():
        raise TargetError(f"{path}: {unknown('core', board.core, cores())}")
    return board


def boards_with(core: str | None = None) -> list[Board]:
    """Real boards, of one core or of all, the smallest first."""
    found = [open_board(name) for name in board_names()]
    chosen = [board for board in found if board.emulator is None and core in (None, board.core)]
    return sorted(chosen, key=lambda board: (board.ram_kb, board.flash_kb, board.name))


def cores() -> dict[str, tuple[str, ...]]:
    """Compiler flags of every core; none where no Arm compiler builds for it."""
    data = _toml(microcontroller_dir() / "cores.toml")
    return {name: tuple(entry["flags"].split()) for name, entry in data.items()}


def _toml(path: Path) -> dict[str, Any]:
    return read_toml(path, TargetError)
