"""One process at a time on a device."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
        device: locked by its marks (:meth:`Device.marks`).
        what: said to whoever comes second.

    Raises:
        DeviceBusyError: another process has it.
        DeviceError: it has to be asked who it is, and cannot be reached.
    """
    try:
        from filelock import FileLock
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "filelock", "devices") from None
    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    names = {hashlib.sha256(mark.encode()).hexdigest()[:16] for mark in device.marks()}
    with ExitStack() as locks:
        for name in sorted(names):  # in one order: of two who want the same, one comes first
            path = folder / f"{name}.lock"
            locks.enter_context(_in_turn(path, device.name))
            locks.enter_context(_locked(FileLock(path), path.with_suffix(".holder"), device.name, what))
        yield


@contextmanager
def _in_turn(path: Path, name: str) -> Iterator[None]:
    with _GUARD:
        held = _HELD.setdefault(path, _Held())
    with held.turn:
        held.depth += 1
        try:
            if held.depth > 1:  # one that has it would wait for itself
                raise DeviceBusyError(f"{name} is in use by this process already", hint="end that first")
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
        holder.write_text(f"process {os.getpid()}, {what}, as {name}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
