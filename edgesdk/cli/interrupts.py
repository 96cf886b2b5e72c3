"""Ctrl-C, SIGTERM and SIGHUP: the first ends the work like an exception, and what was begun is tidied up."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

STATUS = 130
_MOST = 3  # signals; the next ends the process at once, whatever it leaves to the next run's sweep
_SOON = 0.01  # seconds, until which a finalizer is left, or the interrupt is dropped and raised once more
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Heard:
    """What came so far; ``count`` is of signals."""

    count = 0


_heard = _Heard()


def listen() -> None:
    """Take these signals from now on, but for those that the caller had ignored (nohup)."""
    for number in _NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    sys.unraisablehook = _dropped


def begin() -> None:
    """Forget what came before."""
    _heard.count = 0


def heard() -> bool:
    """Whether the work was interrupted, whatever a native library made of the exception."""
    return _heard.count > 0


def leave(status: int) -> None:
    """From now on there is nothing to tidy up: a signal ends the process with this status, in silence."""
    sys.unraisablehook = sys.__unraisablehook__
    for number in _NUMBERS:
        if signal.getsignal(number) == _interrupt:
            signal.signal(number, lambda *_: os._exit(status))


def _interrupt(number: int, frame: FrameType | None) -> None:
    _heard.count += 1
    if _heard.count == 1:
        raise KeyboardInterrupt
    if _heard.count > _MOST:
        os._exit(STATUS)


def _dropped(what: Any) -> None:
    """Raise an interrupt again that Python dropped, as it does in finalizers, and show everything else as usual."""
    if issubclass(what.exc_type, KeyboardInterrupt):
        signal.signal(signal.SIGALRM, _again)
        signal.setitimer(signal.ITIMER_REAL, _SOON)
    else:
        sys.__unraisablehook__(what)


def _again(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
