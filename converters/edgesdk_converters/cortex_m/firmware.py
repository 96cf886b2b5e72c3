"""The firmware project of a bundle: runtime and runner sources, the model as a C array, boards, CMake."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.boards import Board, board_names, cores, microcontroller_dir, open_board

from .layout import STACK_BYTES
from .tokenizer_table import tokenizer_table

if TYPE_CHECKING:
    from edgesdk.model import Model, Tokenizer

FOLDER = "firmware"
_LINE_BYTES = 384  # of a command; a prompt is shorter
_PROMPT_TOKENS = 192
_BYTES_A_LINE = 32
_WIDTHS = {"FLOAT32": 4, "INT8": 1, "INT16": 2}
_FORMS = {
    "c99": "C99 without any library: the runtime in `runtime/`, the model in `model/model_image.c`.",
    "tflm": "TensorFlow Lite Micro, whose sources you bring (`-DTFLM_DIR`, a tree as create_tflm_tree.py writes it). "
    "The model is `model/model_image.c`.",
}
_OTHER_ENGINE = {"c99": "engine_tflm.cc", "tflm": "engine_c99.c"}
_METHODS = {"BATCH_MATMUL": "BatchMatMul", "TFLM_DECODE": "Decode"}


def write_c99_project(image: Path, ram_bytes: int, context: int, model: Model, folder: Path) -> None:
    """Write the CMake project for an image of the C99 runtime.

    Args:
        image: the image; it goes in as a C array.
        ram_bytes: what it needs.
        context: tokens that it holds.
        model: what is in the image.
        folder: an existing folder, which becomes the project.
    """
    settings = config_header(ram_bytes, len(model.spec.layers), context, longest_piece(model.tokenizer))
    _write_array(_write_common(folder, "c99", settings), "model_image", image.read_bytes())


def write_tflm_project(program: Path, facts: Mapping[str, Any], context: int, model: Model, folder: Path) -> None:
    """Write the CMake project for a TensorFlow Lite Micro program; it builds with TFLM's sources (``-DTFLM_DIR``).

    Args:
        program: ``model.tflite``; it goes in as a C array.
        facts: what :meth:`edgesdk_converters.tflite.micro.TfliteMicro.convert` said of it.
        context: tokens that it holds.
        model: for its tokenizer.
        folder: an existing folder, which becomes the project.
    """
    data = program.read_bytes()
    settings = config_header(facts["arena_bytes"], 0, context, longest_piece(model.tokenizer))
    files = _write_common(folder, "tflm", settings)
    (files / "tflm_model.h").write_text(tflm_header(data, facts, context), encoding="ascii", newline="\n")
    _write_array(files, "model_image", data)
    table = tokenizer_table(model.tokenizer) if model.tokenizer is not None else b"\0"
    _write_array(files, "tokenizer_table", table)


def _write_common(folder: Path, form: str, settings: str) -> Path:
    """Sources, boards and settings; returns the folder for the model's own files."""
    source = microcontroller_dir()
    for part in ("runtime", "firmware", "loader"):
        shutil.copytree(source / part, folder / part, ignore=shutil.ignore_patterns("*.j2", _OTHER_ENGINE[form]))
    for name in ("CMakeLists.txt", "arm-none-eabi.cmake", "link.ld.in"):
        (folder / "firmware" / name).replace(folder / name)
    boards, model = folder / "boards", folder / "model"
    boards.mkdir()
    model.mkdir()
    for name in board_names():
        board = open_board(name)
        if board.emulator is not None:
            (boards / f"{name}.cmake").write_text(board_file(board), encoding="utf-8", newline="\n")
    (model / "form.cmake").write_text(f"set(FORM {form})\n", encoding="ascii", newline="\n")
    (model / "lm_config.h").write_text(settings, encoding="ascii", newline="\n")
    return model


def write_report(
    folder: Path, form: str, model: str, context: int, sizes: Mapping[str, int], boards: Mapping[str, Any]
) -> None:
    """The project's README: sizes, boards, how to build it and to talk to it."""
    from markupsafe import Markup

    from edgesdk.package.templates import render

    values = {
        "form": form,
        "form_text": Markup(_FORMS[form]),
        "model": model,
        "sizes": list(sizes.items()),
        "boards": boards,
        "prompt_tokens": min(context, _PROMPT_TOKENS),
    }
    text = render(microcontroller_dir() / "firmware" / "README.md.j2", values)
    (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")


def _write_array(folder: Path, name: str, data: bytes) -> None:
    with (folder / f"{name}.c").open("w", encoding="ascii", newline="\n") as file:
        file.writelines(c_array(name, data))


def tflm_header(program: bytes, facts: Mapping[str, Any], context: int) -> str:
    """``tflm_model.h``: places and sizes of inputs and outputs, and a resolver of just the operators in use."""
    inputs, outputs = facts["inputs"], facts["outputs"]
    places = {entry["name"]: entry for entry in inputs}
    logits, rows = outputs[0], outputs[1:]
    layers = []
    for index in range((len(inputs) - 2) // 2):
        keys, values = places[f"layers.{index}.k_cache"], places[f"layers.{index}.v_cache"]
        kv_heads, capacity, head_dim = keys["shape"]
        numbers = (keys["index"], values["index"], rows[2 * index]["index"], rows[2 * index + 1]["index"])
        layers.append((*numbers, kv_heads, head_dim, capacity, _WIDTHS[keys["type"]]))
    calls = [f"resolver.Add{_method(name)}()" for name in facts["operators"]]
    return "\n".join(
        (
            "// Written by edgesdk for one model.",
            "#ifndef TFLM_MODEL_H",
            "#define TFLM_MODEL_H",
            "",
            "#include <cstddef>",
            "#include <cstdint>",
            "",
            '#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"',
            "",
            f"#define LM_LAYERS {len(layers)}",
            f"#define LM_VOCAB {logits['shape'][-1]}",
            f"#define LM_TOKEN_INPUT {places['tok']['index']}",
            f"#define LM_POSITION_INPUT {places['pos']['index']}",
            f"#define LM_LOGITS_OUTPUT {logits['index']}",
            f"#define LM_LOGITS_SCALE {logits.get('scale', 1.0)!r}f",
            f"#define LM_LOGITS_ZERO ({logits.get('zero_point', 0)})",
            f"#define LM_MODEL_CRC 0x{zlib.crc32(program):08x}u",
            "",
            'extern "C" const uint8_t tokenizer_table[];',
            'extern "C" const size_t tokenizer_table_size;',
            "",
            "struct TflmLayer {",
            "    int key_cache, value_cache, key_row, value_row;",
            "    size_t kv_heads, head_dim, capacity, width;",
            "};",
            "",
            "static const TflmLayer tflm_layers[] = {",
            *(f"    {{{', '.join(map(str, layer))}}}," for layer in layers),
            "};",
            "",
            f"using TflmResolver = tflite::MicroMutableOpResolver<{len(calls)}>;",
            "",
            "inline TfLiteStatus add_operators(TflmResolver &resolver) {",
            *(f"    if ({call} != kTfLiteOk) return kTfLiteError;" for call in calls),
            "    return kTfLiteOk;",
            "}",
            "",
            "#endif",
            "",
        )
    )


def _method(operator: str) -> str:
    """The resolver's word for an operator: FULLY_CONNECTED is FullyConnected."""
    return _METHODS.get(operator) or "".join(part.capitalize() for part in operator.split("_"))


def longest_piece(tokenizer: Tokenizer | None) -> int:
    """Bytes that are enough for the text of one token, as ``lm_tokenizer_most_bytes`` counts them."""
    pieces = tokenizer.backend.get_vocab(with_added_tokens=True) if tokenizer is not None else {}
    return 3 * (max((len(piece.encode()) for piece in pieces), default=0) + 4)


def config_header(ram_bytes: int, layers: int, context: int, piece_bytes: int) -> str:
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
            "/* On a 32-bit core; records of a cache are larger where pointers are. */",
            f"#define LM_RAM_BYTES ({ram_bytes} + 4 * (sizeof(void *) - 4) * {layers})",
            f"#define LM_CONTEXT {context}",
            f"#define LM_PROMPT_TOKENS {min(context, _PROMPT_TOKENS)}",
            f"#define LM_LINE_BYTES {_LINE_BYTES}",
            f"#define LM_PIECE_BYTES {piece_bytes}",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "extern const uint8_t model_image[];",
            "extern const size_t model_image_size;",
            "#ifdef __cplusplus",
            "}",
            "#endif",
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
            *(f"set({name} {value})" for name, value in linker_values(board).items()),
            "",
        )
    )


def linker_values(board: Board) -> dict[str, str]:
    """What the linker script asks of an emulated board."""
    assert board.emulator is not None
    return {
        "FLASH_ORIGIN": f"0x{board.emulator.flash_origin:08X}",
        "FLASH_LENGTH": str(board.flash),
        "RAM_ORIGIN": f"0x{board.emulator.ram_origin:08X}",
        "RAM_LENGTH": str(board.ram),
        "STACK_BYTES": str(STACK_BYTES),
    }


def c_array(name: str, data: bytes) -> Iterator[str]:
    """A constant array in C, aligned for the runtime."""
    yield f"#include <stddef.h>\n#include <stdint.h>\n\nconst size_t {name}_size = {len(data)};\n"
    yield f"__attribute__((aligned(16))) const uint8_t {name}[{len(data)}] = {{\n"
    for at in range(0, len(data), _BYTES_A_LINE):
        yield ",".join(map(str, data[at : at + _BYTES_A_LINE])) + ",\n"
    yield "};\n"
