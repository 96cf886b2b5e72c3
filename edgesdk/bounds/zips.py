"""Zip files that nobody vouches for: judged by their directory before anything is unpacked."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import EdgeError
from .amounts import DIRECTORY, ENTRIES, largest, room

_TAIL = 65557  # bytes in which the end of a zip's directory lies: 22, and a comment
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x06"
_LOCAL = 30  # bytes before the name of an entry
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BLOCK = 1 << 20
_NAME_BYTES = 255  # of one part of a path, on the file systems in use
_PATH = 1024  # characters of a path
_DISTRUST = "do not trust this file"
#: What the directory of a damaged zip ends in, beside :data:`DAMAGED`.
_UNREADABLE = (RuntimeError, ValueError, LookupError, OverflowError, struct.error)
#: What reading a damaged entry ends in.
DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError)


class ArchiveError(EdgeError):
    """An archive asks for more than it may, or cannot be read."""


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip whose directory says nothing that it may not.

    Raises:
        ArchiveError: no whole zip; or its entries are too many, too large for their packed bytes, on top of each other,
            compressed in another way than by deflate, or have names that lead elsewhere.
    """
    _refuse_directory(path)
    try:
        archive = zipfile.ZipFile(path)
    except (*DAMAGED, *_UNREADABLE) as failure:
        raise _broken(path, failure) from None
    with archive:
        _refuse_entries(archive, path)
        try:
            yield archive
        except DAMAGED as failure:
            raise _broken(path, failure) from None


def _broken(path: Path, failure: Exception) -> ArchiveError:
    return ArchiveError(f"{path}: not a whole zip file ({failure})", hint="build or copy it again")


def unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Write every file of a judged zip below ``folder``, no byte more than its directory says.

    Raises:
        ArchiveError: the disk has no room for it.
    """
    files = [info for info in archive.infolist() if not info.is_dir()]
    total, free = sum(info.file_size for info in files), room(folder)
    if total > free:
        raise ArchiveError(
            f"{archive.filename}: unpacks to {total / 1e6:.0f} MB, and {folder} has {free / 1e6:.0f} MB left",
            hint="free space there, or set TMPDIR to a folder with more",
        )
    try:
        for info in files:
            place = folder / info.filename
            place.parent.mkdir(parents=True, exist_ok=True)
            with open_entry(archive, info) as source, place.open("xb") as out:
                for block in blocks(source):
                    out.write(block)
    except OSError as failure:
        raise ArchiveError(f"{archive.filename}: cannot be unpacked ({failure.strerror or failure})") from None


def open_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    """One file of a zip.

    Raises:
        zipfile.BadZipFile: it does not lie where the directory says.
    """
    try:
        return archive.open(info)
    except _UNREADABLE as failure:
        raise zipfile.BadZipFile(f"{info.filename}: {failure}") from None


def blocks(source: IO[bytes]) -> Iterator[bytes]:
    """The bytes of a file, one buffer at a time."""
    while block := source.read(_BLOCK):
        yield block


def refuse_name(name: str, where: str, error: type[EdgeError] = ArchiveError) -> None:
    """Stop at a name that is no path below a folder.

    Raises:
        EdgeError: (of class ``error``) it leads elsewhere, or no file can have it.
    """
    pure = PurePosixPath(name[:_PATH])
    if (
        len(name) > _PATH
        or pure.is_absolute()
        or not pure.parts
        or pure.as_posix() != name.removesuffix("/")  # two names of one file
        or any(each == ".." or len(each.encode("utf-8", "replace")) > _NAME_BYTES for each in pure.parts)
        or any(mark in name for mark in "\\:\0")
    ):
        shown = name if len(name) <= 80 else name[:77] + "..."
        raise error(f"{where}: unsafe file name {shown!r}", hint=_DISTRUST)


def _refuse_directory(path: Path) -> None:
    """Stop before a directory is read that is too large; what is wrong with it otherwise is said when it is read."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) < at + 20:
        return
    claimed = int.from_bytes(tail[at + 12 : at + 16], "little")
    wide = tail.rfind(_END_64, 0, at)
    if wide >= 0:
        claimed = int.from_bytes(tail[wide + 40 : wide + 48], "little")
    if claimed > DIRECTORY:
        raise ArchiveError(
            f"{path}: its directory takes {claimed} bytes, and {DIRECTORY} are the most that is read", hint=_DISTRUST
        )


def _refuse_entries(archive: zipfile.ZipFile, path: Path) -> None:
    entries = archive.infolist()
    if len(entries) > ENTRIES:
        raise ArchiveError(f"{path}: {len(entries)} entries; {ENTRIES} are the most that is read", hint=_DISTRUST)
    names: set[str] = set()
    for info in entries:
        refuse_name(info.filename, str(path))
        name = info.filename.removesuffix("/")
        if name in names:
            raise ArchiveError(f"{path}: two entries are called {name}", hint=_DISTRUST)
        names.add(name)
        _refuse_entry(info, path)
    _refuse_overlaps(entries, path)


def _refuse_entry(info: zipfile.ZipInfo, path: Path) -> None:
    where = f"{path}: {info.filename}"
    if info.compress_type not in _METHODS:
        raise ArchiveError(f"{where} is compressed by method {info.compress_type}", hint="store or deflate it")
    if info.flag_bits & 1:
        raise ArchiveError(f"{where} is encrypted", hint="pack it without a password")
    most = info.compress_size if info.compress_type == zipfile.ZIP_STORED else largest(info.compress_size)
    if info.file_size > most:
        raise ArchiveError(
            f"{where} would become {info.file_size} bytes from {info.compress_size} packed ones, and at most {most} "
            "are unpacked",
            hint=_DISTRUST,
        )


def _refuse_overlaps(entries: Sequence[zipfile.ZipInfo], path: Path) -> None:
    end = 0
    for info in sorted(entries, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ArchiveError(f"{path}: {info.filename} lies on top of another entry", hint=_DISTRUST)
        end = info.header_offset + _LOCAL + len(info.orig_filename) + info.compress_size
