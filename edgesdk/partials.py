"""What is being written lies under a temporary name, and goes with the process that writes it, however that ends.

A partial is ``.NAME.XXXXXXXX.partial`` beside NAME. Its writer holds a lock on it, which the kernel takes away when the
process is gone, killed ones too; who next writes NAME removes the partials that nobody holds, and touches no other.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(partial|replaced)", re.DOTALL)
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Yield the path of an empty file beside ``path``, which is gone when the block ends unless it was renamed."""
    with _partial(path, folder=False) as partial:
        yield partial


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` that only this user may read, gone when the block ends unless it was renamed."""
    with _partial(path, folder=True) as partial:
        yield partial


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder where the system keeps such; a killed process's goes when the next one makes its own."""
    with partial_folder(Path(tempfile.gettempdir()) / "edgesdk") as folder:
        yield folder


@contextmanager
def holding(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; yields whether no other process holds it."""
    handle = _locked(folder, writer=True)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def is_partial(path: Path) -> bool:
    """Whether a name is that of something half-written."""
    return _PARTIAL.fullmatch(path.name) is not None


def sweep(path: Path) -> None:
    """Remove the partials of ``path`` that nobody writes any more, and put back what a killed run had moved away."""
    try:
        found = [entry for entry in path.parent.iterdir() if _name_of(entry) == path.name]
    except OSError:
        return
    for entry in found:
        if entry.suffix == ".replaced" and not os.path.lexists(path):
            entry.rename(path)
        elif (handle := _locked(entry)) is not None:
            remove(entry)
            os.close(handle)


def swap_in(partial: Path, path: Path) -> None:
    """Give a folder the name ``path`` in one step; what has the name takes that of the partial, and goes with it."""
    if not path.exists():
        partial.rename(path)
    elif not _exchanged(partial, path):
        aside = partial.with_suffix(".replaced")
        path.rename(aside)
        partial.rename(path)
        remove(aside)


@contextmanager
def _partial(path: Path, *, folder: bool) -> Iterator[Path]:
    sweep(path)
    partial, handle = _made(path, folder)
    try:
        yield partial
    finally:
        remove(partial)
        os.close(handle)


def _made(path: Path, folder: bool) -> tuple[Path, int]:
    """A new partial and the handle that holds its lock."""
    while True:
        partial = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
        if folder:
            partial.mkdir(mode=0o700)
        else:
            partial.touch(exist_ok=False)
        if (handle := _locked(partial, writer=True)) is not None:
            return partial, handle  # else another process swept it in the moment before it was locked


def _locked(path: Path, *, writer: bool = False) -> int | None:
    """A handle that holds the lock of a file or folder of this user; None where another process has it, or it is gone.

    On a disk without locks a writer goes on without one, and nothing is ever swept.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return None
    except OSError as failure:
        if failure.errno == errno.ELOOP:  # a symbolic link is no partial of ours
            return None
        raise
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(handle)
        if os.path.samestat(found, path.stat()) and found.st_uid == os.getuid():
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        if writer:
            return handle
    os.close(handle)
    return None


def _exchanged(partial: Path, path: Path) -> bool:
    """Swap two names at once, where system and disk can; a process that is killed meanwhile leaves one or the other."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(rename(_HERE, os.fsencode(partial), _HERE, os.fsencode(path), _EXCHANGE) == 0)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, as far as that is possible."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _name_of(path: Path) -> str | None:
    found = _PARTIAL.fullmatch(path.name)
    return found["name"] if found else None
