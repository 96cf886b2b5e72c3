"""Folders in the user's cache that are made once from their inputs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .bounds.remembered import damaged, remember
from .errors import MissingExtraError
from .files import replacing_folder


@contextmanager
def alone_in(home: Path) -> Iterator[None]:
    """Keep other processes out of ``home`` meanwhile; they wait."""
    try:
        from filelock import FileLock
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "filelock", "devices") from None
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".lock"):
        yield


def made_once(
    home: Path,
    name: str,
    inputs: str,
    fill: Callable[[Path], None],
    in_use: Callable[[Path], bool] = lambda folder: False,
) -> Path:
    """The folder made from ``inputs``: it has its name only when whole; others of the name, and what was cut off, go.

    Its files are hashed when they are made, and again whenever the size or time of one has changed; where a file is no
    longer what it was, the folder is made again.

    Args:
        home: where it lies; the caller is :func:`alone_in` it.
        name: what it is.
        inputs: everything that it depends on, as text.
        fill: makes it in the folder given.
        in_use: whether an older one must stay.
    """
    folder = home / f"{name}-{hashlib.sha256(inputs.encode()).hexdigest()[:12]}"
    record = home / ".made" / f"{folder.name}.json"
    if not folder.is_dir() or damaged(record, folder):
        with replacing_folder(folder) as partly:
            fill(partly)
        record.unlink(missing_ok=True)
        for other in (*home.glob(f"{name}-*"), *home.glob(f".{name}-*")):
            if other != folder and not in_use(other):
                shutil.rmtree(other)
    if not record.is_file():
        files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        remember(record, folder, [path.relative_to(folder).as_posix() for path in files])
    return folder
