"""Memory that large requests took goes back to the system."""

from __future__ import annotations

import asyncio
import ctypes
from contextlib import suppress

_QUIET_SECONDS = 0.5
LARGE = 50_000  # bytes of a body that is worth it


class Returning:
    """Gives freed memory back, once a while after large requests ended."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def soon(self) -> None:
        """A large request ended."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_QUIET_SECONDS, self._give_back)

    def _give_back(self) -> None:
        self._timer = None
        asyncio.get_running_loop().run_in_executor(None, give_back)


def give_back() -> None:
    """Return free memory of the C library's heap to the system; Python's own allocator does so by itself."""
    with suppress(OSError, AttributeError):  # glibc's own
        ctypes.CDLL(None).malloc_trim(0)
