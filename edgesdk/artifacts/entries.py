"""The files of an artifact, whether it is a folder or a zip."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..bounds.amounts import TEXT
from ..bounds.zips import open_entry
from ..errors import EdgeError

_LOCAL = struct.Struct("<4s22xHH")  # the header before an entry: its signature, and the lengths of name and extra field
_SIGNATURE = b"PK\x03\x04"


@dataclass(frozen=True)
class Entry:
    """One file.

    Attributes:
        name: its path, with slashes.
        size: bytes, unpacked.
        packed: bytes that it takes in the artifact.
        open: gives its content.
        offset: where the content begins in the artifact, if it is stored as it is; None where it is compressed or in a
            folder.
        compressed: whether it has to be unpacked before it can be used.
    """

    name: str
    size: int
    packed: int
    open: Callable[[], IO[bytes]]
    offset: int | None = None
    compressed: bool = False


Entries = Mapping[str, Entry]


class ArtifactError(EdgeError):
    """An artifact cannot be read."""


def folder_entries(folder: Path) -> Entries:
    """The files below a folder; links are left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {entry.name: entry for entry in (file_of(path.relative_to(folder).as_posix(), path) for path in files)}


def file_of(name: str, path: Path) -> Entry:
    """One file, under a name."""
    size = path.stat().st_size
    return Entry(name, size, size, lambda: path.open("rb"))


def zip_entries(archive: zipfile.ZipFile, file: IO[bytes]) -> Entries:
    """The files of an open zip.

    Args:
        archive: the zip, judged by :func:`~edgesdk.bounds.zips.opened_zip`.
        file: its bytes.

    Raises:
        ArtifactError: an entry does not lie where the directory says.
    """
    return {info.filename: _of_zip(archive, file, info) for info in archive.infolist() if not info.is_dir()}


def _of_zip(archive: zipfile.ZipFile, file: IO[bytes], info: zipfile.ZipInfo) -> Entry:
    stored = info.compress_type == zipfile.ZIP_STORED
    return Entry(
        info.filename,
        info.file_size,
        info.compress_size,
        lambda: open_entry(archive, info),
        _content(file, info) if stored else None,
        not stored,
    )


def _content(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    file.seek(info.header_offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(_SIGNATURE):
        raise ArtifactError(f"{info.filename}: not where the zip's directory says", hint="build or copy it again")
    _, name, extra = _LOCAL.unpack(header)
    return info.header_offset + _LOCAL.size + int(name) + int(extra)


def text_of(entry: Entry) -> bytes:
    """The bytes of an entry that is a text.

    Raises:
        ArtifactError: it is larger than any.
    """
    if entry.size > TEXT:
        raise ArtifactError(f"{entry.name}: {entry.size} bytes, and at most {TEXT} are read of such a file")
    with entry.open() as file:
        return file.read(TEXT)


def below(entries: Entries, folder: str) -> Entries:
    """The files below a folder, under their names there."""
    start = f"{folder}/" if folder else ""
    return {name[len(start) :]: entry for name, entry in entries.items() if name.startswith(start)}


def folders_with(entries: Iterable[str], name: str) -> list[str]:
    """Folders that hold a file of this name; ``""`` is the artifact itself."""
    return sorted(path.rpartition("/")[0] for path in entries if path.rpartition("/")[2] == name)
