"""Standard streams that are closed, full or broken."""

from __future__ import annotations

import os
import sys


def open_all() -> None:
    """Give streams that were closed a place, so that no file that is opened later takes their number."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)


def flushed() -> bool:
    """Write out what was printed; whether that was possible. What could not be written is dropped."""
    whole = True
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            whole = False
            drop(number)
    return whole


def drop(number: int) -> None:
    """Have nothing more come of what is printed to a stream."""
    handle = os.open(os.devnull, os.O_WRONLY)
    os.dup2(handle, number)
    os.close(handle)
