"""This machine as a device."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import IO, ClassVar, Literal

from .base import Ability
from .kernels import kernel_marks
from .shell import ShellDevice

_BLOCK = 1 << 16
Piece = tuple[Literal["out", "err"], bytes]


class LocalDevice(ShellDevice):
    """Commands of this machine's own shell."""

    abilities: ClassVar[frozenset[Ability]] = frozenset({"run", "files", "lines"})

    @property
    def python(self) -> str:
        return self.settings.python or sys.executable

    def marks(self) -> tuple[str, ...]:
        return (self.identity, *kernel_marks(self))

    def open(self, command: str) -> LocalChannel:
        return LocalChannel(command)

    def close(self) -> None:
        pass


class LocalChannel:
    """A child process in a group of its own."""

    def __init__(self, command: str) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            ["sh", "-c", command], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
        )
        process = self._process
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._input = process.stdin
        self._pieces = Pieces({"out": process.stdout, "err": process.stderr})

    def read(self, seconds: float | None) -> Piece | None:
        return self._pieces.next(seconds)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._input.write(view) :]

    def end_input(self) -> None:
        with suppress(OSError):
            self._input.close()

    def status(self) -> int:
        status = self._process.wait()
        return status if status >= 0 else 128 - status

    def close(self) -> None:
        self._signal(signal.SIGTERM)  # its children too, which may have outlived it
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self.end_input()
        if not self._pieces.close():
            self._signal(signal.SIGKILL)
            self._pieces.close()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


class Pieces:
    """What comes out of a process's two pipes, in the order of its coming."""

    def __init__(self, pipes: dict[Literal["out", "err"], IO[bytes]]) -> None:
        self._found: queue.Queue[Piece | None] = queue.Queue(maxsize=64)
        self._open, self._pipes, self._closed = len(pipes), pipes, False
        self._threads = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in pipes.items()]
        for thread in self._threads:
            thread.start()

    def next(self, seconds: float | None) -> Piece | None:
        """The next piece; None when both pipes have ended. Raises TimeoutError."""
        while self._open:
            try:
                piece = self._found.get(timeout=seconds)
            except queue.Empty:
                raise TimeoutError from None
            if piece is not None:
                return piece
            self._open -= 1
        return None

    def close(self) -> bool:
        """Stop reading; False where something still holds the pipes open."""
        self._closed = True
        give_up = time.monotonic() + 5
        while any(thread.is_alive() for thread in self._threads):
            if time.monotonic() > give_up:
                return False
            with suppress(queue.Empty):
                self._found.get(timeout=0.05)
        for pipe in self._pipes.values():
            pipe.close()
            with suppress(queue.Full):
                self._found.put_nowait(None)  # another thread may wait for the end that was thrown away here
        return True

    def _read(self, name: Literal["out", "err"], pipe: IO[bytes]) -> None:
        with suppress(OSError, ValueError):
            while not self._closed and (data := pipe.read(_BLOCK)):
                self._found.put((name, data))
        self._found.put(None)
