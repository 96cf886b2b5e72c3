"""``python -m edgesdk``, and the command ``edgesdk``."""

from __future__ import annotations

import os
import signal
from types import FrameType

_INTERRUPTED = 130


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(_INTERRUPTED)


def main() -> None:
    """Run the command line; a signal before it is loaded, when nothing was begun, ends the process in silence."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave)
    from .cli import main as run

    run()


if __name__ == "__main__":
    main()
