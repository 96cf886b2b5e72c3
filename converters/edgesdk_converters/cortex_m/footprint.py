"""What the firmware takes on a core, measured by compiling and linking it with the user's own compiler."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from edgesdk.boards import Emulator, Footprint, board_names, cores, microcontroller_dir, open_board
from edgesdk.errors import TargetError
from edgesdk.files import replacing
from edgesdk.model.catalogue import cache_dir

from .firmware import config_header

COMPILER = "arm-none-eabi-gcc"
#: The sizes on a Cortex-M3, the largest of the five cores that this module can link for (gcc 12.2).
LARGEST = Footprint(flash=22_104, ram=1_340, measured=None)
_FLAGS = ("-mthumb", "-std=c99", "-O2", "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing")
_SECTIONS = ("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-nostartfiles", "--specs=nano.specs")
_IMAGE_BYTES, _RAM_BYTES = 4096, 8192  # of the stand-in model; taken off again
_CONTEXT, _PIECE = 256, 32
_LINKER_SYMBOLS = (
    "_stack_bottom",
    "_stack_top",
    "_data_load",
    "_data_start",
    "_data_end",
    "_bss_start",
    "_bss_end",
    "_init_start",
    "_init_end",
)


@cache
def footprint(core: str) -> Footprint:
    """Flash and RAM of the runner and the runtime on a core, without any model.

    The board's port is that of the emulated board with this core. Without a compiler for it: :data:`LARGEST`. The
    user's cache remembers the sizes for these sources and this compiler.

    Raises:
        TargetError: the compiler fails on our sources.
    """
    flags, compiler = cores()[core], shutil.which(COMPILER)
    boards = [board for name in board_names() if (board := open_board(name)).emulator and board.core == core]
    if compiler is None or not flags or not boards or boards[0].emulator is None:
        return LARGEST
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    key = hashlib.sha256("\0".join((version, *flags, *_FLAGS)).encode())
    for file in _sources(boards[0].emulator):
        key.update(file.read_bytes())
    kept = cache_dir() / "footprints" / f"{core}-{key.hexdigest()[:16]}.json"
    if not kept.is_file():
        sizes = _linked(compiler, flags, boards[0].emulator, core)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as partial:
            partial.write_text(json.dumps(sizes), encoding="utf-8")
    flash, ram = json.loads(kept.read_text(encoding="utf-8"))
    return Footprint(flash, ram, COMPILER)


def _sources(emulator: Emulator) -> list[Path]:
    runtime, firmware = microcontroller_dir() / "runtime", microcontroller_dir() / "firmware"
    ports = [firmware / "boards" / "startup.c", firmware / "boards" / f"{emulator.port}.c"]
    return [*sorted(runtime.glob("*.[ch]")), *sorted(firmware.glob("*.[ch]")), *ports]


def _linked(compiler: str, flags: tuple[str, ...], emulator: Emulator, core: str) -> tuple[int, int]:
    """Flash and RAM, as the linker sees them, around a stand-in for the model."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "lm_config.h").write_text(config_header(_RAM_BYTES, _CONTEXT, _PIECE), encoding="utf-8")
        (folder / "image.c").write_text(
            f'#include "lm_config.h"\nconst size_t model_image_size = {_IMAGE_BYTES};\n'
            f"__attribute__((aligned(16))) const uint8_t model_image[{_IMAGE_BYTES}] = {{1}};\n",
            encoding="utf-8",
        )
        elf = folder / "firmware.elf"
        command = [compiler, *flags, *_FLAGS, *_SECTIONS, f"-I{folder}", f"-I{microcontroller_dir() / 'runtime'}"]
        command += [f"-DBOARD_UART={emulator.uart}", "-DBOARD_CLOCK=1000000", '-DBOARD_NAME="x"', "-DBOARD_EMULATED=1"]
        command += ["-Wl,-Ttext=0x0", "-Wl,-Tdata=0x20000000", "-Wl,-e,reset_handler"]
        command += [f"-Wl,--defsym={name}=0" for name in _LINKER_SYMBOLS]
        command += [str(file) for file in _sources(emulator) if file.suffix == ".c"]
        command += [str(folder / "image.c"), "-lm", "-o", str(elf)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise TargetError(f"{COMPILER} cannot build the firmware for {core}: {done.stderr.strip()[-400:]}")
        size = compiler.removesuffix("gcc") + "size"
        sizes = subprocess.run([size, str(elf)], capture_output=True, text=True, check=True)
    text, data, bss = (int(count) for count in sizes.stdout.splitlines()[1].split()[:3])
    return text + data - _IMAGE_BYTES, data + bss - _RAM_BYTES
