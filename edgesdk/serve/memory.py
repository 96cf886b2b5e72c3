"""Memory that requests took goes back to the system."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time
from contextlib import suppress

_QUIET_SECONDS = 0.2
_SELDOM_SECONDS = 1.0
LARGE = 50_000  # characters of a prompt that is worth it by itself


class Returning:
    """Gives freed memory back, once a while after requests ended."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0

    def soon(self) -> None:
        """Something that took memory ended."""
        if self._timer is None:
            wait = max(_QUIET_SECONDS, self._next - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait, self._give_back)

    def _give_back(self) -> None:
        self._timer, self._next = None, time.monotonic() + _SELDOM_SECONDS
        asyncio.get_running_loop().run_in_executor(None, give_back)


def begin() -> None:
    """Set apart what this process has when it begins to serve, so that garbage is found quickly."""
    gc.freeze()


def give_back() -> None:
    """Return free memory of the C library's heap to the system; Python's own allocator does so by itself."""
    if gc.get_freeze_count():  # by begin: elsewhere the garbage is another program's as well
        gc.collect()  # failed requests: their tracebacks refer to their bodies, and these to them
    with suppress(OSError, AttributeError):  # glibc's own
        ctypes.CDLL(None).malloc_trim(0)
