"""Files of a folder that nobody vouches for: regular ones inside of it, read up to a limit."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import EdgeError
from .amounts import TEXT


def regular_file(folder: Path, name: str, error: type[EdgeError] = EdgeError) -> Path | None:
    """The path of a file of a folder, or None where nothing has the name.

    Args:
        folder: the folder.
        name: of the file in it, with slashes.
        error: the class of what is raised.

    Raises:
        EdgeError: (of class ``error``) it is a folder, a pipe, a device, or a link out of the folder.
    """
    path = folder / name
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as failure:
        raise error(f"{path}: cannot be read ({failure})") from None
    refuse_irregular(path, folder, error)
    return path


def refuse_irregular(path: Path, folder: Path, error: type[EdgeError] = EdgeError) -> None:
    """Stop at what is no regular file inside of a folder.

    A link may lead to another file of the folder, or from a snapshot in a hub's cache to the files of that cache.

    Raises:
        EdgeError: (of class ``error``) what it is.
    """
    try:
        place = path.resolve(strict=True)
        mode = place.stat().st_mode
    except (OSError, RuntimeError) as failure:  # links in a circle are a RuntimeError
        raise error(f"{path}: leads nowhere ({_reason(failure)})", hint="copy the file itself") from None
    if not any(place.is_relative_to(home) for home in _homes(folder)):
        raise error(f"{path}: is a link out of its folder, to {place}", hint="put a copy of the file in its place")
    if not stat.S_ISREG(mode):
        raise error(f"{path}: is {_kind(mode)}, no regular file", hint="put the file itself there, or remove it")


def read_limited(path: Path, most: int = TEXT, error: type[EdgeError] = EdgeError) -> bytes:
    """The bytes of a regular file, if they are not too many.

    Raises:
        EdgeError: (of class ``error``) they are more than ``most``, or it is no regular file.
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise error(f"{path}: is {_kind(mode)}, no regular file", hint="put the file itself there")
        data = file.read(most + 1)
    if len(data) > most:
        raise error(
            f"{path}: {path.stat().st_size} bytes, and at most {most} are read of such a file",
            hint="it is no file of this kind, or damaged",
        )
    return data


def _homes(folder: Path) -> list[Path]:
    """Where the files of a folder may lie: below it, or in the blobs beside the snapshots that it belongs to."""
    home = folder.resolve()
    blobs = [place.parent / "blobs" for place in home.parents if place.name == "snapshots"]
    return [home, *blobs]


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "of an unknown kind")


def _reason(failure: Exception) -> str:
    return getattr(failure, "strerror", None) or str(failure)
