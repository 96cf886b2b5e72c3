"""The raw record: one JSON line for every piece of a profile, appended as it is measured, so that a run can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..documents import parse_json
from ..errors import EdgeError
from .schema import ProfileError

VERSION = 1
Line = dict[str, Any]


class Record:
    """Lines in a file; each has a ``key``, and a key is measured once."""

    def __init__(self, path: Path, header: Line) -> None:
        """Open or go on with one; what a killed run wrote of its last line goes.

        Args:
            path: the file.
            header: what must be the same for a run to go on: bundle, device, plan.

        Raises:
            ProfileError: the file is of another run, or cannot be written.
        """
        self.path = path
        header = {"key": "header", "version": VERSION, **json.loads(json.dumps(header))}
        try:
            self.lines = _read(path) if path.exists() else []
            if self.lines:
                _refuse_other(path, self.lines[0], header)
            self._file = path.open("r+b" if path.exists() else "w+b")
            self._file.truncate(sum(len(_bytes(line)) for line in self.lines))
            self._file.seek(0, os.SEEK_END)
        except OSError as failure:
            raise ProfileError(f"{path}: {failure.strerror or failure}") from None
        if not self.lines:
            self.add(header)

    def __contains__(self, key: str) -> bool:
        return any(line["key"] == key for line in self.lines)

    def add(self, line: Line) -> None:
        """Append one line; it is on the disk when this returns.

        Raises:
            ProfileError: the disk is full; what was there is kept.
        """
        data = _bytes(line)
        end = self._file.tell()
        try:
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as failure:
            self._cut(end)
            hint = "make room and run the same command again: it goes on after the last whole repeat"
            raise ProfileError(f"{self.path}: {failure.strerror or failure}", hint=hint) from None
        self.lines.append(json.loads(data))

    def close(self) -> None:
        with suppress(OSError):  # what could not be written was said before
            self._file.close()

    def _cut(self, end: int) -> None:
        with suppress(OSError):  # reading drops a line that is not whole
            os.ftruncate(self._file.fileno(), end)


def read_record(path: Path) -> list[Line]:
    """The whole lines of a record.

    Raises:
        ProfileError: it is none.
    """
    try:
        lines = _read(path)
    except OSError as failure:
        raise ProfileError(f"{path}: {failure.strerror or failure}") from None
    if not lines or lines[0].get("key") != "header" or lines[0].get("version") != VERSION:
        raise ProfileError(f"{path}: no record of a profile of this edgesdk")
    return lines


def is_complete(path: Path) -> bool:
    """Whether there is a record in which nothing is missing."""
    if not path.is_file():
        return False
    with suppress(OSError, ProfileError):
        return any(line["key"] == "end" for line in _read(path))
    return False


def _read(path: Path) -> list[Line]:
    found = []
    for text in path.read_bytes().splitlines(keepends=True):
        if not text.endswith(b"\n"):
            break
        try:
            line = parse_json(text, str(path))
        except EdgeError:
            break
        if not isinstance(line, dict) or not isinstance(line.get("key"), str):
            break
        found.append(line)
    if not found and path.stat().st_size:
        raise ProfileError(f"{path}: no record of a profile", hint="name another file, or remove it")
    return found


def _bytes(line: Line) -> bytes:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _refuse_other(path: Path, there: Line, header: Line) -> None:
    other = _differing(there, header, ("version", "bundle", "device", "plan"))
    if other:
        hint = "remove it to begin again, or name another with -o"
        raise ProfileError(f"{path}: a record of another run (other: {', '.join(other)})", hint=hint)


def _differing(a: Line, b: Line, keys: Iterable[str]) -> list[str]:
    return [key for key in keys if a.get(key) != b.get(key)]
