"""Binaries of Apple's systems, as far as their first bytes go."""

from __future__ import annotations

from .entries import Entry

MACHO = "Mach-O"
_MAGICS = (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"!<arch>\n")  # 64-bit, universal, static library


def is_macho(entry: Entry) -> bool:
    """Whether a file is a Mach-O file or a static library."""
    with entry.open() as file:
        return file.read(8).startswith(_MAGICS)
