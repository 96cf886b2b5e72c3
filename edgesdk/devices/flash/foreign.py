"""Whether building a bundle's firmware project runs only what edgesdk itself wrote.

CMake does what a project's files say, and so does a compiler's command line. A bundle brings its project along, and its
hashes say only that it is whole: so every file of the project must be one of this edgesdk's own sources, byte for byte,
or hold nothing but data in the forms below. Any other project is built only where the user trusts the bundle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ...boards import cores, microcontroller_dir
from ...bundle import FILE as MANIFEST
from ...lines import shown_line
from ...trust import is_trusted
from . import FlashError

_TOP = ("CMakeLists.txt", "arm-none-eabi.cmake", "link.ld.in")  # these lie one folder higher in a bundle
_SOURCES = ("runtime", "firmware", "loader")
_READ_BY_NOBODY = {"README.md", "golden.json"}  # neither CMake nor the compiler opens them
_ARRAY = re.compile(
    rb"(#include <std(def|int)\.h>|const size_t [a-z_]+ = \d+;|"
    rb"__attribute__\(\(aligned\(16\)\)\) const uint8_t [a-z_]+\[\d+\] = \{|[\d,]+|\};)?\n"
)
_FORM = re.compile(rb"set\(FORM (c99|tflm)\)\n")
_SETTING = re.compile(rb"set\(([A-Z_]+) ([A-Za-z0-9_]+)\)\n")
_DEFINITIONS = re.compile(rb"set\(PORT_DEFINITIONS( [A-Z_]+=(0x)?[0-9A-Fa-f]+)+\)\n")
_HEADER_WORDS = re.compile(rb"asm|#\s*(include|pragma|embed|import|line)|_Pragma|\?\?|__has_include|%:")
_INCLUDES = {
    b"#include <stddef.h>",
    b"#include <stdint.h>",
    b"#include <cstddef>",
    b"#include <cstdint>",
    b'#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"',
}


def refuse_foreign(project: Path, bundle: Path) -> None:
    """Refuse to build what may run something else than edgesdk's own sources.

    Raises:
        FlashError: which file is the first; or a file is missing.
    """
    manifest = bundle / MANIFEST
    if is_trusted(manifest):
        return
    for path in sorted(each for each in project.rglob("*") if not each.is_dir()):
        name = path.relative_to(project).as_posix()
        if name in _READ_BY_NOBODY:
            continue
        if path.is_symlink() or not path.is_file() or not _allowed(name, path):
            raise FlashError(
                f"the bundle's firmware project has {shown_line(name)}, which is not what this edgesdk writes: "
                "building it would run what it says",
                hint=f"export the model again; or look into the project, then: edgesdk trust {bundle}",
            )


def _allowed(name: str, path: Path) -> bool:
    own = _own(name)
    if own is not None:
        return own.read_bytes() == path.read_bytes()
    form = _data_form(name)
    return form is not None and form(path)


def _own(name: str) -> Path | None:
    """The source of this edgesdk that a file of a project is a copy of."""
    top, _, rest = name.partition("/")
    if name in _TOP:
        found = microcontroller_dir() / "firmware" / name
    elif top in _SOURCES and rest and ".." not in rest.split("/"):
        found = microcontroller_dir() / name
    else:
        return None
    return found if found.is_file() else None


def _data_form(name: str) -> Callable[[Path], bool] | None:
    """What a file that is made for one model may hold, by its name."""
    if re.fullmatch(r"boards/[a-z0-9-]+\.cmake", name):
        return _is_board
    forms: dict[str, Callable[[Path], bool]] = {
        "model/form.cmake": partial(_lines_are, _FORM),
        "model/lm_config.h": _is_header,
        "model/tflm_model.h": _is_header,
        "model/model_image.c": partial(_lines_are, _ARRAY),
        "model/tokenizer_table.c": partial(_lines_are, _ARRAY),
    }
    return forms.get(name)


def _lines_are(pattern: re.Pattern[bytes], path: Path) -> bool:
    return all(pattern.fullmatch(line) is not None for line in _lines(path))


def _is_board(path: Path) -> bool:
    flags = {f"set(CORE_FLAGS {' '.join(each)})\n".encode() for each in cores().values()}
    return all(
        line.startswith(b"# ") or line in flags or _DEFINITIONS.fullmatch(line) or _SETTING.fullmatch(line)
        for line in _lines(path)
    )


def _is_header(path: Path) -> bool:
    """C whose compilation opens no file but those that the project's own sources open."""
    text = b"".join(_lines(path)).replace(b"\\\n", b"")
    return all(line.strip() in _INCLUDES or not _HEADER_WORDS.search(line) for line in text.splitlines())


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file
