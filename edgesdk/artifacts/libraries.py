"""Native libraries: for which processor, and whether systems with large pages can map them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from ..errors import MissingExtraError
from .entries import ArtifactError, Entries, Entry
from .findings import Finding

PAGE = 16384  # bytes; new apps for Android 15 and later must support it (Google Play)
_ABIS = {"EM_AARCH64": "arm64-v8a", "EM_ARM": "armeabi-v7a", "EM_X86_64": "x86_64", "EM_386": "x86"}
WIDE = ("arm64-v8a", "x86_64")  # the processors on which Android has such pages
_MAGIC = b"\x7fELF"


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


def read_library(file: IO[bytes], name: str) -> Library:
    """Read an ELF file's headers.

    Raises:
        ArtifactError: it is none, or cut short.
        MissingExtraError: pyelftools is not installed.
    """
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ModuleNotFoundError:
        raise MissingExtraError("elftools", "package") from None
    try:
        elf = ELFFile(file)
        machine = str(elf["e_machine"])
        alignments = [segment["p_align"] for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
        ends = [segment["p_offset"] + segment["p_filesz"] for segment in elf.iter_segments()]
    except (ELFError, ValueError, KeyError, OSError, AttributeError) as failure:
        raise ArtifactError(f"{name}: not a whole ELF file ({failure})", hint="build or copy it again") from None
    file.seek(0, 2)
    if max(ends, default=0) > file.tell():
        raise ArtifactError(f"{name}: cut short", hint="build or copy it again")
    return Library(machine, _ABIS.get(machine), min(alignments, default=None))


def check_library(entry: Entry, *, folder: str | None = None) -> Iterator[Finding]:
    """One library of an Android app.

    Args:
        entry: the library.
        folder: the ABI whose folder it lies in, if any.
    """
    with entry.open() as file:
        try:
            library = read_library(file, entry.name)
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
    elif library.alignment is not None and library.alignment < PAGE:
        yield Finding(
            "error",
            entry.name,
            f"its segments are aligned to {library.alignment} bytes: phones with 16 KB pages cannot load it, and "
            "Google Play refuses it in new apps",
            "link it with -Wl,-z,max-page-size=16384, or take a newer release of it",
        )
    else:
        yield Finding("good", entry.name, f"{library.abi}, segments aligned to {library.alignment} bytes")


def check_place(entry: Entry, boundary: int = PAGE) -> Iterator[Finding]:
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
