"""What the firmware takes on a core, measured by compiling and linking it with the user's own compiler."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

from edgesdk.boards import Board, Emulator, Footprint, board_names, cores, microcontroller_dir, open_board
from edgesdk.files import replacing
from edgesdk.model.catalogue import cache_dir
from edgesdk.partials import scratch_folder

from .firmware import config_header, linker_values
from .layout import STACK_BYTES

COMPILER = "arm-none-eabi-gcc"
#: The sizes on a Cortex-M3, the largest of the five cores that this module can link for (gcc 12.2).
LARGEST = Footprint(flash=25_124, ram=1_376, measured=None)
_FLAGS = ("-mthumb", "-std=c99", "-O2", "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing")
_SECTIONS = ("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections")
_LIBRARIES = ("-nostartfiles", "--specs=nano.specs", "--specs=nosys.specs")
_IMAGE_BYTES, _RAM_BYTES = 4096, 8192  # of the stand-in model; taken off again
_CONTEXT, _PIECE = 256, 32


@cache
def footprint(core: str) -> Footprint:
    """Flash and RAM of the runner and the runtime on a core, without any model.

    The board's port is that of the emulated board with this core. Without a compiler for it: :data:`LARGEST`. The
    user's cache remembers the sizes for these sources and this compiler. A compiler that cannot build them (without
    a C library, say) counts as none.
    """
    flags, compiler = cores()[core], shutil.which(COMPILER)
    boards = [board for name in board_names() if (board := open_board(name)).emulator and board.core == core]
    if compiler is None or not flags or not boards or boards[0].emulator is None:
        return LARGEST
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    key = hashlib.sha256("\0".join((version, *flags, *_FLAGS)).encode())
    for file in _sources(boards[0].emulator):
        key.update(file.read_bytes())
    kept = cache_dir() / "footprints" / f"{core}-{key.hexdigest()[:16]}.json"
    sizes = _remembered(kept) or _linked(compiler, flags, boards[0])
    if sizes is None:
        return LARGEST
    with suppress(OSError):  # a cache that cannot be written is only slower
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as partial:
            partial.write_text(json.dumps(sizes), encoding="utf-8")
    return Footprint(*sizes, COMPILER)


def _remembered(kept: Path) -> tuple[int, int] | None:
    try:
        flash, ram = json.loads(kept.read_text(encoding="utf-8"))
        return int(flash), int(ram)
    except (OSError, ValueError, TypeError):
        return None


def _sources(emulator: Emulator) -> list[Path]:
    runtime, firmware = microcontroller_dir() / "runtime", microcontroller_dir() / "firmware"
    ports = [firmware / "boards" / "startup.c", firmware / "boards" / f"{emulator.port}.c"]
    return [*sorted(runtime.glob("*.[ch]")), *sorted(firmware.glob("*.[ch]")), *ports]


def _linked(compiler: str, flags: tuple[str, ...], board: Board) -> tuple[int, int] | None:
    """Flash and RAM, as the linker sees them, around a stand-in for the model; None where the compiler fails."""
    emulator = board.emulator
    assert emulator is not None
    with scratch_folder() as scratch:
        folder = scratch
        (folder / "lm_config.h").write_text(config_header(_RAM_BYTES, 0, _CONTEXT, _PIECE), encoding="utf-8")
        (folder / "image.c").write_text(
            f'#include "lm_config.h"\nconst size_t model_image_size = {_IMAGE_BYTES};\n'
            f"__attribute__((aligned(16))) const uint8_t model_image[{_IMAGE_BYTES}] = {{1}};\n",
            encoding="utf-8",
        )
        script = (microcontroller_dir() / "firmware" / "link.ld.in").read_text(encoding="utf-8")
        for name, value in linker_values(board).items():
            script = script.replace(f"@{name}@", value)
        (folder / "link.ld").write_text(script, encoding="utf-8")
        elf = folder / "firmware.elf"
        command = [
            compiler,
            *flags,
            *_FLAGS,
            *_SECTIONS,
            *_LIBRARIES,
            f"-I{folder}",
            f"-I{microcontroller_dir() / 'runtime'}",
        ]
        command += [f"-DBOARD_UART={emulator.uart}", "-DBOARD_CLOCK=1000000", '-DBOARD_NAME="x"', "-DBOARD_EMULATED=1"]
        command += [f"-T{folder / 'link.ld'}", *(str(file) for file in _sources(emulator) if file.suffix == ".c")]
        size = compiler.removesuffix("gcc") + "size"
        try:
            subprocess.run([*command, str(folder / "image.c"), "-lm", "-o", str(elf)], capture_output=True, check=True)
            sizes = subprocess.run([size, str(elf)], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
    text, data, bss = (int(count) for count in sizes.stdout.splitlines()[1].split()[:3])
    return text + data - _IMAGE_BYTES, data + bss - _RAM_BYTES - STACK_BYTES
