"""What the firmware's code takes on a core, measured by compiling and linking it with the user's own compiler."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from edgesdk.boards import Footprint, board_names, cores, microcontroller_dir, open_board
from edgesdk.errors import TargetError

from .firmware import config_header

COMPILER = "arm-none-eabi-gcc"
_FLAGS = ("-mthumb", "-std=c99", "-O2", "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing")
_SECTIONS = ("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-nostartfiles", "--specs=nano.specs")
_IMAGE_BYTES, _RAM_BYTES = 4096, 8192  # of the stand-in model; taken off again
_CONTEXT, _PIECE = 256, 32


@cache
def footprint(core: str) -> Footprint | None:
    """Flash and RAM of the runner and the runtime on a core, without any model; None without a compiler for it.

    The board's port is that of the emulated board with this core.

    Raises:
        TargetError: the compiler fails on our sources.
    """
    flags, compiler = cores()[core], shutil.which(COMPILER)
    boards = [board for name in board_names() if (board := open_board(name)).emulator and board.core == core]
    if compiler is None or not flags or not boards or boards[0].emulator is None:
        return None
    emulator, source = boards[0].emulator, microcontroller_dir()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "lm_config.h").write_text(config_header(_RAM_BYTES, _CONTEXT, _PIECE), encoding="utf-8")
        (folder / "image.c").write_text(
            f'#include "lm_config.h"\nconst size_t model_image_size = {_IMAGE_BYTES};\n'
            f"__attribute__((aligned(16))) const uint8_t model_image[{_IMAGE_BYTES}] = {{1}};\n",
            encoding="utf-8",
        )
        firmware = source / "firmware"
        files = [*sorted((source / "runtime").glob("*.c")), firmware / "main.c", firmware / "line.c"]
        files += [firmware / "boards" / "startup.c", firmware / "boards" / f"{emulator.port}.c", folder / "image.c"]
        defines = [f"-DBOARD_UART={emulator.uart}", "-DBOARD_CLOCK=1000000", '-DBOARD_NAME="x"', "-DBOARD_EMULATED=1"]
        places = ["-Wl,-Ttext=0x0", "-Wl,-Tdata=0x20000000", "-Wl,-e,reset_handler"]
        symbols = [f"-Wl,--defsym={name}=0" for name in _LINKER_SYMBOLS]
        elf = folder / "firmware.elf"
        command = [compiler, *flags, *_FLAGS, *_SECTIONS, f"-I{folder}", f"-I{source / 'runtime'}", *defines, *places]
        done = subprocess.run(
            [*command, *symbols, *map(str, files), "-lm", "-o", str(elf)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise TargetError(f"{COMPILER} cannot build the firmware for {core}: {done.stderr.strip()[-400:]}")
        sizes = subprocess.run(
            [compiler.removesuffix("gcc") + "size", str(elf)], capture_output=True, text=True, check=True
        )
    text, data, bss = (int(count) for count in sizes.stdout.splitlines()[1].split()[:3])
    return Footprint(text + data - _IMAGE_BYTES, data + bss - _RAM_BYTES)


_LINKER_SYMBOLS = ("_stack_top", "_data_load", "_data_start", "_data_end", "_bss_start", "_bss_end")
