"""A small adbd of our own: the real adb talks to it, and it fails when it is told to.

It answers ``shell,v2`` with commands of this machine's ``sh``, in a folder of its own. Source of the protocol:
protocol.txt and shell_protocol.h of Android's adb.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .commands import exit_code, started

_MESSAGE = struct.Struct("<6I")
_FRAME = struct.Struct("<BI")
_VERSION, _MOST = 0x01000001, 1 << 18
_BANNER = b"device::ro.product.name=fault;ro.product.model=Fault;ro.product.device=fault;features=shell_v2,cmd"
_TOKEN, _SIGNATURE = 1, 2  # kinds of AUTH messages
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)


def _code(name: str) -> int:
    return int.from_bytes(name.encode(), "little")


_CNXN, _AUTH, _OPEN, _OKAY, _WRTE, _CLSE = (_code(name) for name in ("CNXN", "AUTH", "OPEN", "OKAY", "WRTE", "CLSE"))


@dataclass
class Faults:
    """What goes wrong; None or False: nothing. Bytes are those of standard input of all commands together.

    Attributes:
        cut_at: the connection closes at this byte.
        corrupt_at: this byte is changed on its way.
        drop_shell_at: the command is killed at this byte, and its stream closed.
        stall_at: nothing is taken from this byte on.
        call_at: at this byte ``call`` is called, once.
        unauthorized: no key is ever accepted.
    """

    cut_at: int | None = None
    corrupt_at: int | None = None
    drop_shell_at: int | None = None
    stall_at: int | None = None
    unauthorized: bool = False
    call_at: int | None = None
    call: Callable[[], None] = lambda: None


@dataclass
class Adbd:
    """The daemon, on a free port of the loopback interface; stopped by :meth:`close`.

    Attributes:
        home: folder in which commands run, their HOME.
        faults: what goes wrong; may be changed at any time.
        seen: bytes of standard input so far, since :meth:`reset`.
    """

    home: Path
    faults: Faults = field(default_factory=Faults)
    seen: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[_Connection] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def serial(self) -> str:
        """What adb calls it after ``adb connect``."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def reset(self, faults: Faults | None = None) -> None:
        """Count bytes anew, with other faults."""
        self.faults, self.seen = faults or Faults(), 0

    def close(self) -> None:
        """Stop listening, and end every command."""
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = _Connection(self, self._listener.accept()[0])
                self._connections = [each for each in self._connections if not each.closed] + [connection]
                threading.Thread(target=connection.serve, daemon=True).start()


class _Connection:
    def __init__(self, daemon: Adbd, link: socket.socket) -> None:
        self.daemon, self._link, self.closed = daemon, link, False
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lock, self._streams, self._last = threading.Lock(), dict[int, _Stream](), 0

    def serve(self) -> None:
        with suppress(OSError, EOFError):
            while True:
                command, first, second, length, _, _ = _MESSAGE.unpack(self._exactly(_MESSAGE.size))
                self._handle(command, first, second, self._exactly(length))
        self.close()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = _MESSAGE.pack(command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self._lock:
            self._link.sendall(head + data)

    def close(self) -> None:
        self.closed = True
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()
        for stream in list(self._streams.values()):
            stream.end()

    def forget(self, number: int) -> None:
        self._streams.pop(number, None)

    def _handle(self, command: int, first: int, second: int, data: bytes) -> None:
        if command in (_CNXN, _AUTH):
            if self.daemon.faults.unauthorized:
                if command == _CNXN or first == _SIGNATURE:  # a public key waits for the user
                    self.send(_AUTH, _TOKEN, 0, os.urandom(20))
                return
            self.send(_CNXN, _VERSION, _MOST, _BANNER)
        elif command == _OPEN:
            self._open(first, data.rstrip(b"\0").decode())
        elif second in self._streams:
            self._streams[second].take(command, data)

    def _open(self, remote: int, service: str) -> None:
        kind, _, line = service.partition(":")
        if kind != "shell,v2,raw":
            self.send(_CLSE, 0, remote)
            return
        self._last += 1
        self._streams[self._last] = _Stream(self, self._last, remote, line)
        if self.closed:
            self._streams[self._last].end()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._link.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


class _Stream:
    """One command."""

    def __init__(self, connection: _Connection, number: int, remote: int, line: str) -> None:
        self._connection, self._number, self._remote = connection, number, remote
        connection.send(_OKAY, number, remote)
        self._process = started(line, connection.daemon.home)
        assert self._process.stdin is not None
        self._input: IO[bytes] = self._process.stdin
        self._incoming: queue.Queue[bytes | None] = queue.Queue()
        self._ready = threading.Semaphore(0)
        self._ended = False
        threading.Thread(target=self._feed, daemon=True).start()
        threading.Thread(target=self._drain, daemon=True).start()

    def take(self, command: int, data: bytes) -> None:
        """A message for this stream."""
        if command == _OKAY:
            self._ready.release()
        elif command == _WRTE:
            self._incoming.put(data)
        elif command == _CLSE:
            self.end()

    def end(self) -> None:
        """Kill the command."""
        self._ended = True
        self._incoming.put(None)
        self._ready.release()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGHUP)

    def _feed(self) -> None:
        """What comes in, to the command's standard input; faults happen here."""
        buffer = b""
        with suppress(OSError, ValueError):
            while (data := self._incoming.get()) is not None:
                buffer += data
                while len(buffer) >= _FRAME.size:
                    kind, length = _FRAME.unpack_from(buffer)
                    if len(buffer) < _FRAME.size + length:
                        break
                    content, buffer = buffer[_FRAME.size : _FRAME.size + length], buffer[_FRAME.size + length :]
                    if kind == _CLOSE_STDIN:
                        self._input.close()
                    elif kind == _STDIN and not self._give(content):
                        return
                self._connection.send(_OKAY, self._number, self._remote)

    def _give(self, content: bytes) -> bool:
        daemon, faults = self._connection.daemon, self._connection.daemon.faults
        start, end = daemon.seen, daemon.seen + len(content)

        def reached(at: int | None) -> bool:
            return at is not None and start <= at < end

        if reached(faults.call_at):
            faults.call()
        if reached(faults.corrupt_at):
            at = (faults.corrupt_at or 0) - start
            content = content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :]
        for limit in (faults.cut_at, faults.drop_shell_at, faults.stall_at):
            if limit is not None and limit < end:
                with suppress(OSError, ValueError):
                    self._input.write(content[: max(0, limit - start)])
                break
        else:
            daemon.seen = end
            with suppress(BrokenPipeError):  # the command takes no more: it says why
                view = memoryview(content)
                while view:
                    view = view[self._input.write(view) :]
            return True
        daemon.seen = limit
        if limit == faults.cut_at:
            self._connection.close()
        elif limit == faults.drop_shell_at:
            self.end()
            self._connection.send(_CLSE, self._number, self._remote)
        return False

    def _drain(self) -> None:
        """The command's output and status, each message when the one before it was taken."""
        pipes = {_STDOUT: self._process.stdout, _STDERR: self._process.stderr}
        pieces: queue.Queue[tuple[int, bytes]] = queue.Queue()

        def read(kind: int, pipe: IO[bytes] | None) -> None:
            assert pipe is not None
            with suppress(OSError, ValueError):
                while data := pipe.read(1 << 15):
                    pieces.put((kind, data))
            pipe.close()
            pieces.put((kind, b""))

        for item in pipes.items():
            threading.Thread(target=read, args=item, daemon=True).start()
        still = len(pipes)
        with suppress(OSError):
            while still and not self._ended:
                kind, data = pieces.get()
                if not data:
                    still -= 1
                    continue
                self._write(kind, data)
            status = exit_code(self._process)
            if not self._ended:
                self._write(_EXIT, bytes([status]))
                self._connection.send(_CLSE, self._number, self._remote)
        self._process.wait()
        with suppress(OSError, ValueError):
            self._input.close()
        self._connection.forget(self._number)

    def _write(self, kind: int, data: bytes) -> None:
        self._connection.send(_WRTE, self._number, self._remote, _FRAME.pack(kind, len(data)) + data)
        self._ready.acquire()
