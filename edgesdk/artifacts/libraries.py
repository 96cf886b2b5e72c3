"""Native libraries: for which processor, and whether systems with large pages can map them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from ..errors import MissingExtraError
from ..stores import Pages, when
from .entries import ArtifactError, Entries, Entry
from .findings import Finding, level_of

_ABIS = {"EM_AARCH64": "arm64-v8a", "EM_ARM": "armeabi-v7a", "EM_X86_64": "x86_64", "EM_386": "x86"}
WIDE = ("arm64-v8a", "x86_64")  # the processors on which Android has such pages
_MAGIC = b"\x7fELF"
_LOADED = 1  # PT_LOAD
_HEAD = struct.Struct("64s")
_ORDERS = {1: "<", 2: ">"}


@dataclass(frozen=True)
class _Form:
    """Where the headers of an ELF file of one width hold what is asked (System V ABI, chapters 4 and 5).

    Attributes:
        head: from byte 18 on: the machine, the version, the entry, where the segments' table begins.
        counts: where the size of a segment's header lies, and how many there are.
        segment: a segment's header.
        places: of its kind, offset, length in the file and alignment among the fields of ``segment``.
    """

    head: str
    counts: int
    segment: str
    places: tuple[int, int, int, int]

    def named(self, fields: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Kind, offset, length and alignment of a segment."""
        kind, offset, length, alignment = (fields[place] for place in self.places)
        return kind, offset, length, alignment


_FORMS = {1: _Form("HIII", 42, "8I", (0, 1, 4, 7)), 2: _Form("HIQQ", 54, "2I6Q", (0, 2, 5, 7))}


@dataclass(frozen=True)
class Library:
    """What an ELF file says.

    Attributes:
        machine: as ELF names it, such as ``EM_AARCH64``.
        abi: as Android names it; None for processors that Android does not run on.
        alignment: the smallest of its loaded segments, bytes; None where it loads nothing.
    """

    machine: str
    abi: str | None
    alignment: int | None


def is_library(entry: Entry) -> bool:
    """Whether a file is an ELF file."""
    with entry.open() as file:
        return file.read(4) == _MAGIC


def read_library(entry: Entry) -> Library:
    """Read an ELF file's headers.

    Raises:
        ArtifactError: it is none, or cut short.
        MissingExtraError: pyelftools is not installed.
    """
    with entry.open() as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or not head.startswith(_MAGIC) or head[4] not in _FORMS or head[5] not in _ORDERS:
            raise _not_whole(entry, "its first bytes are not an ELF file's")
        order, form = _ORDERS[head[5]], _FORMS[head[4]]
        machine, _, _, start = struct.unpack_from(order + form.head, head, 18)
        size, count = struct.unpack_from(f"{order}HH", head, form.counts)
        segment = struct.Struct(order + form.segment)
        if count and size < segment.size:
            raise _not_whole(entry, f"segments of {size} bytes")
        if start + size * count > entry.size:
            raise _not_whole(entry, "its segments are missing")
        file.seek(start)
        table = file.read(size * count)
    segments = [form.named(segment.unpack_from(table, number * size)) for number in range(count)]
    if max((offset + length for _, offset, length, _ in segments), default=0) > entry.size:
        raise ArtifactError(f"{entry.name}: cut short", hint="build or copy it again")
    alignments = [alignment for kind, _, _, alignment in segments if kind == _LOADED]
    named = _machine(machine)
    return Library(named, _ABIS.get(named), min(alignments, default=None))


def _machine(number: int) -> str:
    try:
        from elftools.elf.enums import ENUM_E_MACHINE
    except ModuleNotFoundError:
        raise MissingExtraError("elftools", "package") from None
    return next((name for name, value in ENUM_E_MACHINE.items() if value == number), f"processor {number}")


def _not_whole(entry: Entry, why: str) -> ArtifactError:
    return ArtifactError(f"{entry.name}: not a whole ELF file ({why})", hint="build or copy it again")


def check_library(
    entry: Entry, pages: Pages, today: date, *, folder: str | None = None, asked: bool = True
) -> Iterator[Finding]:
    """One library of an Android app.

    Args:
        entry: the library.
        pages: the store's rule of its alignment.
        today: whether it holds already.
        folder: the ABI whose folder it lies in, if any.
        asked: whether it is about this app.
    """
    try:
        library = read_library(entry)
    except ArtifactError as failure:
        yield Finding("error", entry.name, failure.message, failure.hint)
        return
    if library.abi is None:
        yield Finding("error", entry.name, f"for {library.machine}, which Android does not run on")
        return
    if folder is not None and library.abi != folder:
        yield Finding("error", entry.name, f"built for {library.abi}", "put each library into its own ABI's folder")
    if library.abi not in WIDE:
        yield Finding("note", entry.name, f"{library.abi}: 32-bit Android has pages of 4 KB")
    elif library.alignment is not None and library.alignment < pages.bytes:
        yield Finding(
            level_of(pages, today) if asked else "warning",
            entry.name,
            f"its segments are aligned to {library.alignment} bytes: devices with {pages.bytes // 1024} KB pages "
            f"cannot load it, and {when(pages, today)} Google Play refuses it in apps for SDK {pages.target_sdk} "
            "and newer",
            f"link it with -Wl,-z,max-page-size={pages.bytes}, or take a newer release of it",
        )
    else:
        yield Finding("good", entry.name, f"{library.abi}, segments aligned to {library.alignment} bytes")


def check_place(entry: Entry, boundary: int) -> Iterator[Finding]:
    """Whether a library that a zip stores as it is can be mapped where it lies."""
    if entry.offset is not None and entry.offset % boundary:
        yield Finding(
            "error",
            entry.name,
            f"stored at byte {entry.offset}, which is no multiple of {boundary}",
            "zipalign -P 16 of the Android SDK's build-tools 35 and later",
        )


def abis(entries: Entries) -> set[str]:
    """ABIs of the libraries in folders named after them."""
    names = {name.split("/")[-2] for name in entries if name.endswith(".so") and name.count("/")}
    return names & set(_ABIS.values())
