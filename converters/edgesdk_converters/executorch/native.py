"""What ExecuTorch's native code prints: kept from the terminal, and used to explain failures."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def native_log() -> Iterator[Callable[[], str]]:
    """Keep what native code prints on standard error; gives a function that returns it."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        saved = os.dup(2)
        try:
            os.dup2(kept.fileno(), 2)
            yield lambda: _content(kept)
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _content(file: Any) -> str:
    file.seek(0)
    text: str = file.read().decode("utf-8", "replace")
    return text
