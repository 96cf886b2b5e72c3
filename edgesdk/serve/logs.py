"""What a server writes into its log: one line a record, no control characters, and not more than a journal can bear."""

from __future__ import annotations

import logging
import time

from ..lines import shown_line

_MOST, _SECONDS = 20, 10.0  # lines in that time; the rest are counted
_LONGEST = 500
_LEVELS = {"uvicorn": logging.WARNING, "uvicorn.error": logging.WARNING, "asyncio": logging.ERROR}


class OneLine(logging.Formatter):
    """A record as one printable line; of an exception its class and its message."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage().strip()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        return shown_line(f"{record.levelname}: {text}", _LONGEST)


class Seldom(logging.Filter):
    """Lets so many records through in a while; the next that passes says how many did not."""

    def __init__(self) -> None:
        super().__init__()
        self._began, self._passed, self._lost = 0.0, 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._began > _SECONDS:
            self._began, self._passed = now, 0
        self._passed += 1
        if self._passed > _MOST:
            self._lost += 1
            return False
        if self._lost:
            record.msg = f"{record.getMessage().strip()} ({self._lost} more lines were left out before)"
            record.args, self._lost = None, 0
        return True


def write_to(handler: logging.Handler) -> None:
    """Send what the server's libraries log to a handler, and nowhere else."""
    handler.setFormatter(OneLine())
    handler.addFilter(Seldom())
    for name, level in _LEVELS.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
