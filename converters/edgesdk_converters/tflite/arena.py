"""The smallest arena in which the host build of TFLM runs a program; a failed attempt there may end the process.

``python -m edgesdk_converters.tflite.arena MODEL`` prints it in bytes; :func:`arena_bytes` runs that as a child.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edgesdk.children import module_command
from edgesdk.errors import TargetError

_STEP = 16  # what TFLM aligns an arena to
_LARGEST = 1 << 30


def arena_bytes(model: Path) -> int:
    """The smallest arena for a file, in bytes.

    Raises:
        TargetError: TFLM does not run the file at all.
    """
    command = [*module_command(sys.executable, __name__), str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in reasons if not line.startswith(("Traceback", " "))), "no reason given")
        raise TargetError(f"{model.name}: TFLite-Micro does not run it: {reason}")
    return int(done.stdout)


def smallest(content: bytes) -> int:
    """The smallest arena for a program that runs, found by halving; in bytes."""
    from tflite_micro import runtime  # noqa: F401 - before forking, so that it is loaded once

    low, high = 0, 1 << 14
    while not _fits(content, high):
        if high >= _LARGEST:
            raise RuntimeError(f"no arena up to {_LARGEST} bytes is enough")
        low, high = high, high * 2
    while high - low > _STEP:
        middle = (low + high) // 2 // _STEP * _STEP
        low, high = (low, middle) if _fits(content, middle) else (middle, high)
    return high


def _fits(content: bytes, size: int) -> bool:
    """Whether a program starts in an arena; tried in a fork, since an arena that is far too small is a crash."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            from tflite_micro import runtime

            runtime.Interpreter.from_bytes(content, arena_size=size)
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    print(smallest(Path(sys.argv[1]).read_bytes()))  # noqa: T201
