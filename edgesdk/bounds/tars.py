"""Tar archives that nobody vouches for: read as a stream that ends where the limits say."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from .amounts import ENTRIES, TEXT, UNPACKER, largest, room
from .zips import ArchiveError, blocks, refuse_name

_BLOCK = 1 << 20
_GZIP = 31  # zlib's number for a gzip header
#: Headers that say something about the next one, whose whole content tarfile holds in memory.
_TOLD = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.GNUTYPE_SPARSE,
)
_DISTRUST = "do not trust this file"


class Slice(io.RawIOBase):
    """So many bytes of a file from where it stands."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self.size = file, size
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


class _Unpacker(Protocol):
    """A decompressor of the standard library that gives no more bytes than it is asked for."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decompressor, which keeps what it did not read elsewhere than the others do."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max(0, max_length))


_UNPACKERS: dict[str, Callable[[], _Unpacker]] = {
    ".xz": lambda: lzma.LZMADecompressor(memlimit=UNPACKER),
    ".lzma": lambda: lzma.LZMADecompressor(memlimit=UNPACKER),
    ".gz": _Gzip,
    ".bz2": bz2.BZ2Decompressor,
}


class _Unpacked(io.RawIOBase):
    """What a packed stream unpacks to, up to a limit."""

    def __init__(self, packed: Slice, unpacker: _Unpacker, most: int, where: str) -> None:
        self._packed, self._unpacker, self._left, self._where = packed, unpacker, most, where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = b""
        while not data and not self._unpacker.eof:
            fresh = self._packed.read(_BLOCK) or b"" if self._unpacker.needs_input else b""
            if self._unpacker.needs_input and not fresh:
                raise EOFError("cut short")
            data = self._unpacker.decompress(fresh, len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveError(
                f"{self._where} becomes too large for its {self._packed.size} packed bytes", hint=_DISTRUST
            )
        buffer[: len(data)] = data
        return len(data)


class _Member(tarfile.TarInfo):
    """An entry's header; those that tarfile would hold in memory are short."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _TOLD and not 0 <= found.size <= TEXT:
            raise ArchiveError(f"a header of {found.size} bytes in the archive", hint=_DISTRUST)
        if found.type == tarfile.GNUTYPE_SPARSE:
            raise ArchiveError("a file with holes in the archive", hint="pack it without --sparse")
        return found


def unpack_tar(content: Slice, packing: str, folder: Path, where: str) -> None:
    """Write the regular files of a tar archive below a folder; links, which point into another system, are left out.

    Args:
        content: the archive.
        packing: how it is compressed, by the end of its name; "" for not at all.
        folder: where the files go; it is empty.
        where: the archive, for messages.

    Raises:
        ArchiveError: it is damaged, leads out of the folder, or becomes larger than its packed bytes allow or than the
            disk has room for.
    """
    if packing and packing not in _UNPACKERS:
        raise ArchiveError(f"{where}: compressed in an unknown way")
    unpacked: io.RawIOBase = content
    if packing:
        unpacked = _Unpacked(content, _UNPACKERS[packing](), largest(content.size), where)
    try:
        with tarfile.open(fileobj=io.BufferedReader(unpacked), mode="r|", tarinfo=_Member) as archive:
            _extract(archive, folder, where)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError, OverflowError) as failure:
        raise ArchiveError(f"{where} cannot be unpacked ({failure})", hint="build or copy it again") from None
    except MemoryError:
        raise ArchiveError(f"{where} takes more than {UNPACKER} bytes of memory to unpack", hint=_DISTRUST) from None


def _extract(archive: tarfile.TarFile, folder: Path, where: str) -> None:
    free = room(folder)
    for number, member in enumerate(archive):
        if number == ENTRIES:
            raise ArchiveError(f"{where}: more than {ENTRIES} entries", hint=_DISTRUST)
        if member.name in (".", "./") or not member.isreg():
            continue
        name = member.name.removeprefix("./")
        refuse_name(name, where)
        free -= member.size
        if free < 0:
            raise ArchiveError(
                f"{where}: unpacks to more than {folder} has room for", hint="set TMPDIR to a folder with more"
            )
        content = archive.extractfile(member)
        assert content is not None
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with content, place.open("xb") as out:
            for block in blocks(content):
                out.write(block)
