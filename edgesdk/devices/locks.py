"""One process at a time on a device."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import MissingExtraError
from ..model.catalogue import cache_dir
from .base import Device, DeviceBusyError


@contextmanager
def alone(device: Device, what: str) -> Iterator[None]:
    """Keep other processes of this user off a device until the block ends, or this process does.

    Args:
        device: locked by its address, so two names of one address are one device.
        what: said to whoever comes second.

    Raises:
        DeviceBusyError: another process has it.
    """
    try:
        from filelock import FileLock, Timeout
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "filelock", "devices") from None
    folder = cache_dir() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(device.identity.encode()).hexdigest()[:16]}.lock"
    holder = path.with_suffix(".holder")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        said = "another process"
        with suppress(OSError):
            said = holder.read_text(encoding="utf-8")
        raise DeviceBusyError(f"{device.name} is in use: {said}", hint="wait for it, or end it") from None
    try:
        holder.write_text(f"process {os.getpid()}, {what}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
