"""Files that are kept for later: their hashes are remembered, and taken again where size or time changed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ..digests import file_digest
from ..documents import read_json
from ..errors import EdgeError
from ..files import replacing


def remember(record: Path, folder: Path, names: Iterable[str]) -> None:
    """Write down size, time and hash of files below ``folder`` as they are now."""
    kept = {name: [*_stamp(folder / name), file_digest(folder / name)] for name in sorted(names)}
    record.parent.mkdir(parents=True, exist_ok=True)
    with replacing(record) as partial:
        partial.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def recalled(record: Path) -> dict[str, str]:
    """The hashes of a record by the files' names; empty where there is none that can be read."""
    return {name: entry[2] for name, entry in _read(record).items()}


def damaged(record: Path, folder: Path) -> list[str]:
    """Files of a record that are missing or no longer what they were, sorted.

    A file whose size or time changed is hashed again; the record is written anew where it is still the same.
    """
    kept = _read(record)
    wrong, touched = [], False
    for name, (size, time, digest) in kept.items():
        path = folder / name
        if not path.is_file():
            wrong.append(name)
        elif _stamp(path) != (size, time):
            touched = True
            if path.stat().st_size != size or file_digest(path) != digest:
                wrong.append(name)
    if touched and not wrong:
        remember(record, folder, kept)
    return wrong


def _read(record: Path) -> dict[str, tuple[int, int, str]]:
    try:
        data = read_json(record)
        return {str(name): (int(size), int(time), str(digest)) for name, (size, time, digest) in data.items()}
    except (EdgeError, ValueError, TypeError, AttributeError):
        return {}


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
