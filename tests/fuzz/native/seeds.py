"""What the harnesses begin with, and the headers that they need; ``NAME FOLDER`` writes those of one harness."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_COMMANDS = b"hello\nrun 4 0 1000 1 0 Hello a\\nb\nids 4 900 900 7 0 1,2,3\nmeasure 3 5,6\nrun 9 0 1 1 1 x\nwrong\n"


def _commands(folder: Path) -> dict[str, bytes]:
    return {"commands": _COMMANDS}


def _images(folder: Path) -> dict[str, bytes]:
    """Images of a model with two narrow layers, of 8 and of 4 bits."""
    import edgesdk

    from ...conftest import make_checkpoint

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    tiny = make_checkpoint(folder / "tiny", **sizes, num_hidden_layers=1)
    found = {}
    for recipe in ("w8", "w4g32"):
        edgesdk.export(tiny, "cortex-m4f", folder / recipe, recipe=recipe, context=16)
        with edgesdk.open_bundle(folder / recipe) as bundle:
            found[recipe] = bundle.main.read_bytes()
    return found


def table(folder: Path) -> bytes:
    """The table of the tiny tokenizer."""
    from edgesdk.model.tokenizer import open_tokenizer
    from edgesdk_converters.cortex_m.tokenizer_table import tokenizer_table

    from ...conftest import make_tokenizer

    (folder / "tokenizer").mkdir(exist_ok=True)
    make_tokenizer(folder / "tokenizer")
    return tokenizer_table(open_tokenizer(folder / "tokenizer"))


def _tables(folder: Path) -> dict[str, bytes]:
    text = "Hello <s> \u00e9\u65e5\u672c 1234\n don't".encode()
    return {"table": table(folder) + text + struct.pack("<H", len(text))}


def _sizes(folder: Path) -> None:
    data = table(folder)
    words = ",".join(str(int.from_bytes(data[at : at + 4], "little")) + "u" for at in range(0, len(data), 4))
    (folder / "sizes.h").write_text(
        "#pragma once\n#include <stdint.h>\n"
        "#define LM_LINE_BYTES 128\n#define LM_PROMPT_TOKENS 12\n#define LM_PIECE_BYTES 16\n"
        f"static const uint32_t TABLE[] = {{{words}}};\n"
    )
    (folder / "lm_config.h").write_text('#include "sizes.h"\n')


def _frames(folder: Path) -> dict[str, bytes]:
    """Requests as the harness takes them: a length, then type, sequence number and body."""
    bodies = (
        struct.pack("<BB", 1, 1),
        struct.pack("<BBII", 3, 2, 0, 2048),
        struct.pack("<BBI", 4, 3, 0) + struct.pack("<II", 0x20004000, 16393) + bytes(56),
        struct.pack("<BBIH", 2, 4, 0, 4),
        struct.pack("<BBII", 5, 5, 0, 64),
        struct.pack("<BBII", 6, 6, 0, 64),
        struct.pack("<BBII", 7, 7, 64, 0),
        struct.pack("<BB", 8, 8),
    )
    return {"session": b"".join(bytes([len(body)]) + body for body in bodies)}


def main(name: str, folder: Path) -> None:
    """Write inputs into the folder's ``corpus``."""
    if name == "runner":
        _sizes(folder)
    if name == "keyed":
        (folder / "loader_key.h").write_text(f"#define LOADER_KEY {{{','.join(map(str, range(32)))}}}\n")
    seeds = {"model": _images, "tokenizer": _tables, "runner": _commands, "loader": _frames, "keyed": _frames}
    for title, content in seeds[name](folder).items():
        (folder / "corpus" / title).write_bytes(content)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
