"""The firmware project of a bundle: runtime and runner sources, the image as a C array, boards, CMake."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.boards import Board, board_names, cores, microcontroller_dir, open_board

if TYPE_CHECKING:
    from edgesdk.model import Tokenizer

FOLDER = "firmware"
_LINE_BYTES = 384  # of a command; a prompt is shorter
_PROMPT_TOKENS = 192
_STACK_BYTES = 4096
_BYTES_A_LINE = 32


def write_project(image: Path, ram_bytes: int, context: int, piece_bytes: int, folder: Path) -> None:
    """Write the CMake project beside an image.

    Args:
        image: the image; it goes in as a C array.
        ram_bytes: what it needs.
        context: tokens that it holds.
        piece_bytes: the longest text of one token.
        folder: becomes the project.
    """
    source = microcontroller_dir()
    for part in ("runtime", "firmware"):
        shutil.copytree(source / part, folder / part)
    for name in ("CMakeLists.txt", "arm-none-eabi.cmake", "link.ld.in"):
        (folder / "firmware" / name).replace(folder / name)
    boards = folder / "boards"
    boards.mkdir()
    for name in board_names():
        board = open_board(name)
        if board.emulator is not None:
            (boards / f"{name}.cmake").write_text(board_file(board), encoding="utf-8", newline="\n")
    model = folder / "model"
    model.mkdir()
    settings = config_header(ram_bytes, context, piece_bytes)
    (model / "lm_config.h").write_text(settings, encoding="utf-8", newline="\n")
    with (model / "model_image.c").open("w", encoding="ascii", newline="\n") as file:
        file.writelines(c_array("model_image", image.read_bytes()))


def longest_piece(tokenizer: Tokenizer | None) -> int:
    """Bytes that are enough for the text of one token: its own, a character held back, and replacement characters."""
    pieces = tokenizer.backend.get_vocab(with_added_tokens=True) if tokenizer is not None else {}
    return max((len(piece.encode()) for piece in pieces), default=0) + 16


def config_header(ram_bytes: int, context: int, piece_bytes: int) -> str:
    """``lm_config.h``: the sizes that a firmware needs at compile time."""
    return "\n".join(
        (
            "/* Written by edgesdk for one model. */",
            "#ifndef LM_CONFIG_H",
            "#define LM_CONFIG_H",
            "",
            "#include <stddef.h>",
            "#include <stdint.h>",
            "",
            f"#define LM_RAM_BYTES {ram_bytes}",
            f"#define LM_CONTEXT {context}",
            f"#define LM_PROMPT_TOKENS {min(context, _PROMPT_TOKENS)}",
            f"#define LM_LINE_BYTES {_LINE_BYTES}",
            f"#define LM_PIECE_BYTES {piece_bytes}",
            "",
            "extern const uint8_t model_image[];",
            "extern const size_t model_image_size;",
            "",
            "#endif",
            "",
        )
    )


def board_file(board: Board) -> str:
    """What CMake includes for one emulated board."""
    emulator = board.emulator
    assert emulator is not None
    definitions = f"BOARD_CLOCK={board.clock_mhz}000000 BOARD_UART=0x{emulator.uart:08X} BOARD_EMULATED=1"
    return "\n".join(
        (
            f"# {board.description}",
            f"set(CORE_FLAGS {' '.join(cores()[board.core])})",
            f"set(PORT {emulator.port})",
            f"set(PORT_DEFINITIONS {definitions})",
            f"set(FLASH_ORIGIN 0x{emulator.flash_origin:08X})",
            f"set(FLASH_LENGTH {board.flash})",
            f"set(RAM_ORIGIN 0x{emulator.ram_origin:08X})",
            f"set(RAM_LENGTH {board.ram})",
            f"set(STACK_BYTES {_STACK_BYTES})",
            "",
        )
    )


def c_array(name: str, data: bytes) -> Iterator[str]:
    """A constant array in C, aligned for the runtime."""
    yield f"#include <stddef.h>\n#include <stdint.h>\n\nconst size_t {name}_size = {len(data)};\n"
    yield f"__attribute__((aligned(16))) const uint8_t {name}[{len(data)}] = {{\n"
    for at in range(0, len(data), _BYTES_A_LINE):
        yield ",".join(map(str, data[at : at + _BYTES_A_LINE])) + ",\n"
    yield "};\n"
