"""An XCFramework: what its Info.plist promises, and whether an iPhone's part is there."""

from __future__ import annotations

import plistlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from ..bounds.regular import read_limited, regular_file
from ..bounds.zips import refuse_name
from ..stores import app_store
from .entries import ArtifactError, Entry, file_of
from .findings import Finding
from .machos import MACHO, is_macho
from .privacy import FILE, read_privacy, shown_calls, undeclared

_PLIST = "Info.plist"


def check_xcframework(folder: Path, today: date) -> Iterator[Finding]:
    """Each library of an ``.xcframework``.

    Raises:
        ArtifactError: there is no readable Info.plist.
    """
    phone = False
    for library in _described(folder):
        place = f"{library.identifier}/{library.path}"
        path = folder / place
        name = f"{place}/{path.stem}" if path.suffix == ".framework" else place
        refuse_name(name, str(folder / _PLIST))
        binary = regular_file(folder, name)
        if binary is None:
            yield Finding("error", place, "named in Info.plist, and not there")
            continue
        entry = file_of(name, binary)
        if not is_macho(entry):
            yield Finding("error", place, f"not a {MACHO} file or static library")
            continue
        yield from _privacy(folder, library, entry, path, today)
        processors = ", ".join(library.architectures)
        phone |= library.platform == "ios" and library.variant is None and "arm64" in library.architectures
        variant = f" {library.variant}" if library.variant else ""
        yield Finding("good", place, f"{library.platform}{variant}, {processors}")
    if not phone:
        yield Finding("error", folder.name, "nothing for iPhones (platform ios, arm64)")
    if not (folder / "_CodeSignature").is_dir():
        yield Finding(
            "warning", folder.name, "not signed: Xcode asks before it trusts a change", "codesign --timestamp"
        )


def _privacy(folder: Path, library: _Library, binary: Entry, path: Path, today: date) -> Iterator[Finding]:
    """What an app has to say of a library: a framework says it itself, a static library cannot."""
    rules = app_store()
    declared: dict[str, tuple[str, ...]] = {}
    place = f"{library.identifier}/{library.path}"
    manifest = regular_file(folder, f"{place}/{FILE}") if path.suffix == ".framework" else None
    if manifest is not None:
        found = read_privacy(read_limited(manifest), f"{place}/{FILE}", rules)
        yield from found.findings
        declared = dict(found.reasons)
    for said in undeclared(shown_calls(binary, rules), declared, place, rules, today):
        yield replace(said, level="warning", text=f"{said.text}, unless the app that links it declares it")


@dataclass(frozen=True)
class _Library:
    """One entry of ``AvailableLibraries``."""

    identifier: str
    path: str
    platform: str | None
    variant: str | None
    architectures: tuple[str, ...]


def _described(folder: Path) -> list[_Library]:
    path = regular_file(folder, _PLIST, ArtifactError)
    if path is None:
        raise _unreadable(folder, "it is missing")
    data = read_limited(path, error=ArtifactError)
    try:
        described = plistlib.loads(data)
    except Exception as failure:  # damaged ones end in a dozen kinds of exception
        raise _unreadable(folder, str(failure) or type(failure).__name__) from None
    libraries = described.get("AvailableLibraries") if isinstance(described, dict) else None
    if not isinstance(libraries, list):
        raise _unreadable(folder, "no AvailableLibraries")
    return [_library(folder, entry) for entry in libraries]


def _library(folder: Path, entry: object) -> _Library:
    fields = entry if isinstance(entry, dict) else {}

    def text(key: str) -> str | None:
        value = fields.get(key)
        if value is not None and not isinstance(value, str):
            raise _unreadable(folder, f"'{key}' is no text")
        return value

    identifier, path = text("LibraryIdentifier"), text("LibraryPath")
    architectures = fields.get("SupportedArchitectures", [])
    if identifier is None or path is None:
        raise _unreadable(folder, "a library without LibraryIdentifier or LibraryPath")
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise _unreadable(folder, "'SupportedArchitectures' is no list of texts")
    return _Library(identifier, path, text("SupportedPlatform"), text("SupportedPlatformVariant"), tuple(architectures))


def _unreadable(folder: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{folder}: no readable Info.plist of an XCFramework ({why})")
