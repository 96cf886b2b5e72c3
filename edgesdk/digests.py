"""Hashes of files; Python 3.10 on boards has no ``hashlib.file_digest``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

_BLOCK = 1 << 18


def file_digest(source: Path | IO[bytes], kind: str = "sha256") -> str:
    """The hash of a file from where it stands, in hexadecimal.

    Args:
        source: a file, or the path of one.
        kind: as :mod:`hashlib` names it; ``md5`` is for formats that ask for it, and secures nothing.

    Raises:
        OSError: it cannot be read.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return file_digest(file, kind)
    found = hashlib.new(kind, usedforsecurity=kind != "md5")
    while block := source.read(_BLOCK):
        found.update(block)
    return found.hexdigest()
