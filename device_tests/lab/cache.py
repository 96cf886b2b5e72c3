"""What was built once is used again: a folder has its name only when it is whole."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgesdk.cache import made_once

_OWN = Path(__file__).parent


def ready(home: Path, name: str, inputs: str, fill: Callable[[Path], None]) -> Path:
    """The folder made from ``inputs``, filled first if need be; older ones that nobody uses go then."""
    return made_once(home, name, inputs, fill, in_use=_in_use)


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """Keep a folder of :func:`ready` from being removed meanwhile."""
    with _opened(folder) as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield


def _in_use(folder: Path) -> bool:
    with _opened(folder) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def sources(*names: str) -> str:
    """The text of modules and files of the lab, as an input of what they make."""
    files = [path for name in names for path in sorted([_OWN / name, *(_OWN / name).rglob("*")]) if path.is_file()]
    return "".join(f"{path.relative_to(_OWN)}\n{path.read_text(encoding='utf-8')}\n" for path in files)
