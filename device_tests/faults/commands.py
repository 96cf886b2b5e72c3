"""Commands that our own servers start on this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def started(line: str, home: Path) -> subprocess.Popen[bytes]:
    """A command line in a shell whose HOME is ``home``, in a process group of its own, with three pipes."""
    return subprocess.Popen(
        ["sh", "-c", line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        cwd=home,
        env={**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home)},
        start_new_session=True,
    )


def exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for its end; 128 + number where a signal ended it, as shells say it."""
    status = process.wait()
    return status if status >= 0 else 128 - status
