"""The outside of a program file: what can be checked without the runtime.

Source: schema/extended_header.cpp of ExecuTorch 1.5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import BundleError

IDENTIFIER = b"ET12"
HEADER = struct.Struct("<4sIQQQ")  # magic, its own length, bytes before the data, where the data begins, its bytes
MAGIC = b"eh00"
_DAMAGED = "the file is damaged or incomplete: copy it again, or export again"


@dataclass(frozen=True)
class Layout:
    """Where the parts of a program are, in bytes from its start."""

    program_bytes: int
    data_start: int
    data_bytes: int


def check_file(path: Path) -> Layout:
    """Read the header of a program.

    Raises:
        BundleError: no program, one of another schema, or one that was cut short.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8 + HEADER.size)
            size = file.seek(0, 2)
    except OSError as failure:
        raise BundleError(f"{path}: cannot be read ({failure.strerror})") from None
    identifier = head[4:8]
    if identifier != IDENTIFIER:
        if identifier[:2] == b"ET" and len(head) >= 8:
            found, known = identifier.decode("ascii", "replace"), IDENTIFIER.decode()
            raise BundleError(
                f"{path}: its program schema is {found}, and this version reads {known}",
                hint="use the version of edgesdk and ExecuTorch that wrote it, or export again",
            )
        raise BundleError(f"{path}: not an ExecuTorch program", hint=_DAMAGED)
    if len(head) < 8 + HEADER.size or head[8:12] != MAGIC:
        raise BundleError(f"{path}: has no header of an ExecuTorch program", hint=_DAMAGED)
    _, _, program, start, data = HEADER.unpack(head[8:])
    if size < start + data:
        raise BundleError(f"{path}: {size} bytes, but its header promises {start + data}", hint=_DAMAGED)
    return Layout(program, start, data)
