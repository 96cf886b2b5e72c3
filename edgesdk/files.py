"""Files that are whole or absent: write under a temporary name, then rename."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .digests import file_digest
from .errors import EdgeError
from .partials import partial_file, partial_folder, swap_in


@dataclass(frozen=True)
class FileEntry:
    """One file of a bundle or of a checkpoint."""

    path: str
    size: int
    sha256: str


def file_entry(path: Path, name: str | None = None) -> FileEntry:
    """Size and hash of a file under the name that a record gives it."""
    return FileEntry(name or path.name, path.stat().st_size, file_digest(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path``; it takes the name when the block ends well, and goes otherwise."""
    with partial_file(path) as partial:
        yield partial
        partial.chmod(0o644)
        partial.replace(path)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary folder on the disk of ``path``, gone when the block ends.

    Raises:
        EdgeError: it cannot be made, or the block failed to write (the disk is full ...).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(path) as folder:
            yield folder
    except OSError as failure:
        raise writing_failed(path, failure) from None


@contextmanager
def replacing_folder(path: Path, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; it takes the name when the block ends well, and goes otherwise.

    An existing ``path`` is replaced only then, and only if ``check``, called just before, raises nothing. Raises
    EdgeError like :func:`folder_beside`.
    """
    with folder_beside(path) as partial:
        yield partial
        partial.chmod(0o755)
        check()
        swap_in(partial, path)


def writing_failed(path: Path, failure: OSError) -> EdgeError:
    """The error for an operating-system failure while ``path`` was written."""
    if isinstance(failure, shutil.Error):  # of a whole tree: the first file, as source, target and words
        failure = OSError(0, str(failure.args[0][0][2]))
    if failure.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(failure.strerror):
        return EdgeError(f"{path}: the disk is full", hint="free space there, or choose another output folder")
    return EdgeError(f"{path}: cannot be written ({failure.strerror or failure})")
