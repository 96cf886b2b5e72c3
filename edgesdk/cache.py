"""Folders in the user's cache that are made once from their inputs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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

    Args:
        home: where it lies; the caller is :func:`alone_in` it.
        name: what it is.
        inputs: everything that it depends on, as text.
        fill: makes it in the folder given.
        in_use: whether an older one must stay.
    """
    folder = home / f"{name}-{hashlib.sha256(inputs.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        with replacing_folder(folder) as partly:
            fill(partly)
        for other in (*home.glob(f"{name}-*"), *home.glob(f".{name}-*")):
            if other != folder and not in_use(other):
                shutil.rmtree(other)
    return folder
