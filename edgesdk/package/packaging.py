"""Making a deliverable: whole or absent, with a record of every file in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import __version__
from ..bundle import open_bundle, refuse_kind
from ..documents import read_json
from ..files import FileEntry, file_entry, replacing_folder
from ..outputs import DELIVERABLE, refuse_foreign
from ..progress import SILENT, Progress
from ..schema import dump, load
from .base import RECORD, Packaged, PackageError, Written
from .kinds import DELIVERABLES

SCHEMA = 1


@dataclass(frozen=True)
class Record:
    """What a deliverable says about itself, in ``deliverable.json``."""

    schema: int
    kind: str
    edgesdk: str
    bundle: str
    runtime: str
    runtime_versions: str
    options: dict[str, Any]
    facts: dict[str, str]
    files: tuple[FileEntry, ...]


def package(
    bundle: str | Path,
    kind: str,
    out: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> Packaged:
    """Make a deliverable out of a bundle.

    Args:
        bundle: a bundle folder or zip; verified first.
        kind: one of :data:`DELIVERABLES`.
        out: the folder to write; an earlier deliverable there is replaced, anything else is left alone.
        options: by name, of that kind; values may be text.
        progress: told of what takes long.

    Raises:
        EdgeError: the bundle is damaged or not of this kind's targets, an option is unknown or wrong, or ``out`` is
            something else.
    """
    out = Path(out)
    maker = DELIVERABLES.get(kind)
    chosen = load(maker.options, dict(options or {}), f"options of '{kind}'", PackageError, texts=True)
    check_replaceable(out)
    with open_bundle(bundle, progress=progress) as opened:
        manifest = opened.manifest
        refuse_kind(manifest, f"a deliverable of kind '{kind}'")
        maker.check(manifest, chosen)
        with replacing_folder(out, partial(check_replaceable, out)) as folder:
            written = maker.write(opened, chosen, folder, progress)
            files = _entries(folder)
            program = manifest.program
            record = Record(
                SCHEMA,
                kind,
                __version__,
                manifest.digest,
                program.runtime,
                program.runtime_versions,
                dump(chosen),
                dict(written.facts),
                files,
            )
            text = json.dumps(dump(record), indent=1, ensure_ascii=False) + "\n"
            (folder / RECORD).write_text(text, encoding="utf-8", newline="\n")
    return Packaged(kind, out, manifest.digest, written, sum(entry.size for entry in files), len(files))


def check_replaceable(out: Path) -> None:
    """Refuse to replace what is no deliverable.

    Raises:
        PackageError: there is something else.
    """
    refuse_foreign(out, DELIVERABLE, PackageError)


def open_record(folder: Path) -> Record:
    """Read a deliverable's record.

    Raises:
        PackageError: there is none, or it is damaged or of another version.
    """
    file = folder / RECORD
    data = read_json(file, PackageError, hint="edgesdk package makes it again")
    if isinstance(data, dict) and data.get("schema") != SCHEMA:
        raise PackageError(f"{file}: schema {data.get('schema')!r}; this edgesdk reads schema {SCHEMA}")
    return load(Record, data, str(file), PackageError)


def _entries(folder: Path) -> tuple[FileEntry, ...]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return tuple(file_entry(path, path.relative_to(folder).as_posix()) for path in paths)


__all__ = ["Packaged", "Record", "Written", "check_replaceable", "open_record", "package"]
