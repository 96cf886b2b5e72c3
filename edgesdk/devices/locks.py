"""One process at a time on a device."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingExtraError
from ..model.catalogue import cache_dir
from .base import Device, DeviceBusyError

if TYPE_CHECKING:
    from filelock import BaseFileLock


@dataclass
class _Held:
    """A device in this process, whose threads wait for each other."""

    turn: threading.RLock = field(default_factory=threading.RLock)
    depth: int = 0


_HELD: dict[Path, _Held] = {}
_GUARD = threading.Lock()


@contextmanager
def alone(device: Device, what: str) -> Iterator[None]:
    """Keep other processes of this user off a device until the block ends, or this process does.

    Two names of one device are one device. Within this process they wait for each other: who lists all devices meets
    some by two names, and is not in its own way.

    Args:
        device: locked by its identity.
        what: said to whoever comes second.

    Raises:
        DeviceBusyError: another process has it.
    """
    try:
        from filelock import FileLock
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "filelock", "devices") from None
    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(device.identity.encode()).hexdigest()[:16]}.lock"
    with _GUARD:
        held = _HELD.setdefault(path, _Held())
    with held.turn:
        held.depth += 1
        try:
            if held.depth > 1:  # one that has it would wait for itself
                raise DeviceBusyError(f"{device.name} is in use by this process already", hint="end that first")
            with _locked(FileLock(path), path.with_suffix(".holder"), device.name, what):
                yield
        finally:
            held.depth -= 1


@contextmanager
def _locked(lock: BaseFileLock, holder: Path, name: str, what: str) -> Iterator[None]:
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except Timeout:
        said = "another process"
        with suppress(OSError):
            said = holder.read_text(encoding="utf-8")
        raise DeviceBusyError(f"{name} is in use: {said}", hint="wait for it, or end it") from None
    try:
        holder.write_text(f"process {os.getpid()}, {what}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
