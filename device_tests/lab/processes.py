"""Processes that end with the one that started them, and at a time limit.

A keeper runs between the two: it holds the reading end of a pipe from the starter, and the program as its child. When
the pipe closes (the starter ended, however it ended), or the time is over, it kills the program; when the keeper
itself is killed, the kernel kills the program.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from edgesdk.errors import EdgeError

LIMIT = 7200.0  # seconds that anything of the lab runs at the most
_STOP = 15.0  # seconds for a killed program to be gone
_PR_SET_PDEATHSIG = 1


class Kept:
    """A program in the background.

    Args:
        command: its line.
        log: where goes what it says.
        limit: seconds after which it is killed.
        env: its environment.
        scratch: a folder to remove if the starter ends without doing so.

    Raises:
        EdgeError: it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        limit: float = LIMIT,
        env: Mapping[str, str] | None = None,
        scratch: Path | None = None,
    ) -> None:
        self.name = Path(command[0]).name
        self.log = log
        keeper = [sys.executable, __file__, str(limit), str(scratch or ""), *map(str, command)]
        with log.open("ab") as out:
            try:
                self._keeper = subprocess.Popen(
                    keeper, stdin=subprocess.PIPE, stdout=out, stderr=out, env=env, start_new_session=True
                )
            except OSError as error:
                raise EdgeError(f"{self.name} cannot be started: {error}") from error

    @property
    def running(self) -> bool:
        return self._keeper.poll() is None

    def check(self) -> None:
        """Raise EdgeError with its last words if it has ended."""
        if not self.running:
            said = self.log.read_text(encoding="utf-8", errors="replace").strip()[-1500:]
            raise EdgeError(f"{self.name} ended with status {self._keeper.returncode}: {said or 'it said nothing'}")

    def stop(self) -> None:
        """Kill it, and wait until it is gone."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        try:
            self._keeper.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()

    def __enter__(self) -> Kept:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def started_at(pid: int) -> str | None:
    """When a process started, in the kernel's count; with its id this names it for good. None: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _keep(limit: float, scratch: str, command: Sequence[str]) -> int:
    give_up = time.monotonic() + limit
    starter = os.getppid()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent) as child:
        ended = os.pidfd_open(child.pid)
        while time.monotonic() < give_up and os.getppid() == starter:
            events, _, _ = select.select([0, ended], [], [], 1)
            if events:
                break
        if child.poll() is None:
            child.kill()
    if scratch and os.getppid() != starter:  # nobody else is left to do it
        shutil.rmtree(scratch, ignore_errors=True)
    return 128 - child.returncode if child.returncode < 0 else child.returncode


if __name__ == "__main__":
    sys.exit(_keep(float(sys.argv[1]), sys.argv[2], sys.argv[3:]))
