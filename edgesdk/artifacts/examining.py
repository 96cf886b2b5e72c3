"""Which checks an artifact gets: by its name's ending, or by what lies in a folder."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import IO

from ..bounds.regular import regular_file
from ..bounds.zips import DAMAGED, blocks, opened_zip, refuse_name
from ..bundle import FILE, check_runtime, is_bundle, open_bundle
from ..errors import EdgeError
from ..files import file_entry
from ..package.base import RECORD
from ..package.packaging import open_record
from ..stores import google_play
from .android import check_aab, check_aar, check_apk
from .apple import check_xcframework
from .apps import check_app, check_ipa
from .debian import check_deb
from .entries import ArtifactError, Entries, Entry, file_of, zip_entries
from .findings import Finding
from .gradle import check_gradle, is_gradle
from .libraries import check_library
from .telemetry import telemetry_findings
from .wheel import check_wheel
from .xcode import check_xcode, is_xcode

_ZIPS: dict[str, Callable[[Path, IO[bytes], Entries, date], Iterator[Finding]]] = {
    ".aab": check_aab,
    ".aar": check_aar,
    ".apk": check_apk,
    ".ipa": check_ipa,
    ".whl": lambda path, file, entries, _: check_wheel(path, file, entries),
}


def examine_artifact(path: Path, today: date | None = None) -> list[Finding]:
    """Look at an app, a library, a package, a project, a deliverable or a bundle; what it may be, its error says.

    Args:
        path: a file or folder.
        today: the day by which the rules of stores are judged; None: this one.

    Raises:
        EdgeError: it is none of these, or cannot be read.
    """
    today = today or date.today()
    if not path.exists():
        raise ArtifactError(f"{path}: no such file or folder")
    if path.suffix in _ZIPS and path.is_file():
        return _zip(path, today)
    if path.suffix == ".deb":
        return list(check_deb(path))
    if path.suffix in _FOLDERS and path.is_dir():
        return list(_FOLDERS[path.suffix](path, today))
    if path.suffix == ".so" or ".so." in path.name:
        entry = file_of(path.name, path)
        rules = google_play()
        return [*check_library(entry, rules.pages_of(rules.form[0]), today), *telemetry_findings([entry])]
    if (path / RECORD).is_file():
        return list(_deliverable(path, today))
    if is_bundle(path) or (path / FILE).is_file():
        return list(_bundle(path))
    if (project := _project(path)) is not None:
        return list(project(path, today))
    raise ArtifactError(
        f"{path}: no artifact that is known",
        hint="an .apk, .aab, .aar, .ipa, .app, .whl, .so, .xcframework or .deb, a Gradle or Xcode project, "
        "a deliverable (edgesdk package) or a bundle",
    )


_FOLDERS: dict[str, Callable[[Path, date], Iterator[Finding]]] = {".app": check_app, ".xcframework": check_xcframework}


def _project(folder: Path) -> Callable[[Path, date], Iterator[Finding]] | None:
    """What looks at a folder of sources; None where it is no project."""
    if not folder.is_dir():
        return None
    return check_gradle if is_gradle(folder) else check_xcode if is_xcode(folder) else None


def _zip(path: Path, today: date) -> list[Finding]:
    try:
        with path.open("rb") as file, opened_zip(path) as archive:
            entries = zip_entries(archive, file)
            broken = [name for name, entry in entries.items() if not _whole(entry)]
            if broken:
                return [Finding("error", broken[0], "damaged: its CRC-32 is wrong", "build or copy it again")]
            return [
                Finding("good", path.name, f"{len(entries)} entries, every CRC-32 is right"),
                *_ZIPS[path.suffix](path, file, entries, today),
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


def _deliverable(folder: Path, today: date) -> Iterator[Finding]:
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
    if (project := _project(folder)) is not None:
        yield from project(folder, today)


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
