"""Zip files that are the same bytes for the same content, and aligned as Android maps them."""

from __future__ import annotations

import shutil
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

PAGE = 16384
_EPOCH = (1980, 1, 1, 0, 0, 0)
_ALIGNMENT = 0xD935  # the extra field that Android's zipalign and signer use for padding
_LOCAL = 30  # bytes of a local header before name and extra field


def write_zip(path: Path, entries: Mapping[str, Path | bytes]) -> None:
    """A zip of files and texts by name, sorted, without times; nothing compressed, since weights do not shrink."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(entries.items()):
            info = _info(name)
            if isinstance(content, bytes):
                archive.writestr(info, content)
                continue
            info.file_size = content.stat().st_size
            with content.open("rb") as source, archive.open(info, "w") as out:
                shutil.copyfileobj(source, out, 1 << 20)


def align_zip(source: Path, target: Path, *, libraries: int = PAGE, others: int = 4) -> None:
    """Copy a zip so that what is stored in it can be mapped: native libraries at pages, the rest at words.

    Debian's zipalign knows pages of 4096 bytes only.
    """
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as out:
        for old in archive.infolist():
            info = _info(old.filename)
            info.compress_type = old.compress_type
            info.file_size = old.file_size
            if old.compress_type == zipfile.ZIP_STORED:
                boundary = libraries if old.filename.endswith(".so") else others
                info.extra = _padding(out.start_dir + _LOCAL + len(info.filename.encode()), boundary)
            with archive.open(old) as content, out.open(info, "w") as copy:
                shutil.copyfileobj(content, copy, 1 << 20)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o644 << 16
    return info


def _padding(start: int, boundary: int) -> bytes:
    """An extra field after which the content begins at a boundary."""
    size = -(start + 6) % boundary
    return struct.pack("<HHH", _ALIGNMENT, 2 + size, boundary) + b"\0" * size


def data_offset(path: Path, name: str) -> int:
    """Where the content of an entry begins in a zip file."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        info = archive.getinfo(name)
        file.seek(info.header_offset)
        names, extra = struct.unpack("<HH", file.read(_LOCAL)[26:30])
        return info.header_offset + _LOCAL + int(names) + int(extra)
