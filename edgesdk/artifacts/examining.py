"""Which checks an artifact gets: by its name's ending, or by what lies in a folder."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ..bounds.regular import regular_file
from ..bounds.zips import DAMAGED, blocks, opened_zip, refuse_name
from ..bundle import FILE, check_runtime, is_bundle, open_bundle
from ..errors import EdgeError
from ..files import file_entry
from ..package.base import RECORD
from ..package.packaging import open_record
from .android import check_aab, check_aar, check_apk
from .apple import check_xcframework
from .debian import check_deb
from .entries import ArtifactError, Entries, Entry, zip_entries
from .findings import Finding
from .libraries import check_library
from .telemetry import telemetry_findings
from .wheel import check_wheel

_ZIPS: dict[str, Callable[[Path, IO[bytes], Entries], Iterator[Finding]]] = {
    ".aab": check_aab,
    ".aar": check_aar,
    ".apk": check_apk,
    ".whl": check_wheel,
}


def examine_artifact(path: Path) -> list[Finding]:
    """Look at an APK, AAB, AAR, wheel, native library, XCFramework, .deb, deliverable or bundle.

    Raises:
        EdgeError: it is none of these, or cannot be read.
    """
    if not path.exists():
        raise ArtifactError(f"{path}: no such file or folder")
    if path.suffix in _ZIPS and path.is_file():
        return _zip(path)
    if path.suffix == ".deb":
        return list(check_deb(path))
    if path.suffix == ".xcframework":
        return list(check_xcframework(path))
    if path.suffix == ".so" or ".so." in path.name:
        size = path.stat().st_size
        entry = Entry(path.name, size, size, lambda: path.open("rb"))
        return [*check_library(entry), *telemetry_findings([entry])]
    if (path / RECORD).is_file():
        return list(_deliverable(path))
    if is_bundle(path) or (path / FILE).is_file():
        return list(_bundle(path))
    raise ArtifactError(
        f"{path}: no artifact that is known",
        hint="an .apk, .aab, .aar, .whl, .so, .xcframework or .deb, a deliverable (edgesdk package) or a bundle",
    )


def _zip(path: Path) -> list[Finding]:
    try:
        with path.open("rb") as file, opened_zip(path) as archive:
            entries = zip_entries(archive, file)
            broken = [name for name, entry in entries.items() if not _whole(entry)]
            if broken:
                return [Finding("error", broken[0], "damaged: its CRC-32 is wrong", "build or copy it again")]
            return [
                Finding("good", path.name, f"{len(entries)} entries, every CRC-32 is right"),
                *_ZIPS[path.suffix](path, file, entries),
                *telemetry_findings(entries.values()),
            ]
    except struct.error as failure:
        raise ArtifactError(f"{path}: not a whole zip file ({failure})", hint="build or copy it again") from None


def _whole(entry: Entry) -> bool:
    """Whether an entry's bytes are those that it was packed from."""
    try:
        with entry.open() as file:
            return sum(map(len, blocks(file))) == entry.size
    except DAMAGED:
        return False


def _deliverable(folder: Path) -> Iterator[Finding]:
    record = open_record(folder)
    wrong = False
    for entry in record.files:
        refuse_name(entry.path, RECORD)
        path = regular_file(folder, entry.path)
        if path is None:
            wrong = True
            yield Finding("error", entry.path, "missing", "edgesdk package makes it again")
        elif file_entry(path, entry.path) != entry:
            wrong = True
            yield Finding("warning", entry.path, "changed since it was packaged")
    if not wrong:
        yield Finding(
            "good", folder.name, f"deliverable '{record.kind}': {len(record.files)} files as they were packaged"
        )


def _bundle(path: Path) -> Iterator[Finding]:
    with open_bundle(path) as bundle:
        manifest = bundle.manifest
        yield Finding("good", path.name, f"bundle: {len(manifest.files)} files, every SHA-256 is right")
        try:
            installed = check_runtime(manifest)
        except EdgeError as failure:
            yield Finding("error", path.name, failure.message, failure.hint)
            return
    program = manifest.program
    here = f"{installed} is installed here" if installed else "not installed here"
    yield Finding("note", path.name, f"needs {program.runtime} {program.runtime_versions} ({here})")
