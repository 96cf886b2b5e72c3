"""A relay in front of any stream address, with faults that are switched on while it runs.

    with Relay(("127.0.0.1", 22)) as relay:
        relay.cut_after(100_000, "up")    # the connection breaks in the middle of an upload
        ...                               # connect to relay.port instead of 22

Bytes are counted from the call on, over all connections; ``up`` is towards the device. A fault replaces the one
before it. A cut and a corruption happen once, and what comes after is relayed faithfully; a stall and a refusal last
until :meth:`Relay.normal`.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

Address = tuple[str, int] | Path
Direction = Literal["up", "down"]
_BLOCK = 1 << 16
_CONNECT = 10.0  # seconds
FAULTS = ("normal", "refuse", "stall", "cut_after", "corrupt_at", "drop")


@dataclass
class _Fault:
    kind: Literal["stall", "cut", "corrupt"]
    direction: Direction | None
    left: int  # bytes that still pass untouched


class Relay:
    """Listens and forwards every connection to ``target``.

    Args:
        target: host and port, or the path of a Unix socket; it is connected anew for every connection.
        listen: where to listen; a free port of the loopback unless told.
        translator: makes, for every connection, what turns the bytes towards the target into others.
        rate: bytes a second, each way, that all connections together may pass; None is no limit.
    """

    def __init__(
        self,
        target: Address,
        listen: Address = ("127.0.0.1", 0),
        translator: Callable[[], Callable[[bytes], bytes]] | None = None,
        rate: float | None = None,
    ) -> None:
        self._rate = rate
        self._free_at: dict[Direction, float] = {"up": 0.0, "down": 0.0}  # when the line has passed what it was given
        self._translator = translator
        self._target = target
        self._changed = threading.Condition()
        self._fault: _Fault | None = None
        self._open: set[socket.socket] = set()
        self._passed: dict[Direction, int] = {"up": 0, "down": 0}
        self._address = listen
        self._held = None  # keeps the port while connections are refused
        if not isinstance(listen, Path):
            self._held = _bound(listen)
            self._address = self._held.getsockname()
        self._listener: socket.socket | None = None
        self._control: socket.socket | None = None
        self._listen()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert not isinstance(self._address, Path)
        return self._address[1]

    @property
    def passed(self) -> dict[Direction, int]:
        """Bytes relayed so far, each way."""
        with self._changed:
            return dict(self._passed)

    def normal(self) -> None:
        """No fault; what a stall held back goes on."""
        self._set(None)
        self._listen()

    def refuse(self) -> None:
        """Open connections break, new ones are refused."""
        self._set(None)
        self._deafen()
        self.drop()

    def stall(self, after: int = 0, direction: Direction | None = None) -> None:
        """After so many bytes nothing passes (in one direction, or either), and nothing breaks."""
        self._set(_Fault("stall", direction, after))

    def cut_after(self, count: int, direction: Direction = "up") -> None:
        """After exactly ``count`` bytes in a direction the connection breaks."""
        self._set(_Fault("cut", direction, count))

    def corrupt_at(self, position: int, direction: Direction = "up") -> None:
        """The byte after ``position`` others in a direction arrives with every bit turned over."""
        self._set(_Fault("corrupt", direction, position))

    def drop(self) -> None:
        """Every open connection breaks now."""
        with self._changed:
            for each in self._open:
                _shut(each)

    def serve_control(self, path: Path) -> None:
        """Take faults from other processes: on a Unix socket, lines like ``{"fault": "cut_after", "count": 9}``."""
        self._control = _bound(path)
        self._control.listen()
        threading.Thread(target=self._controlled, args=(self._control,), daemon=True).start()

    def close(self) -> None:
        """Stop listening and break every connection."""
        self._set(None)
        self._deafen()
        self.drop()
        if self._held is not None:
            self._held.close()
        if self._control is not None:
            _shut(self._control)
            self._control.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _set(self, fault: _Fault | None) -> None:
        with self._changed:
            self._fault = fault
            self._changed.notify_all()

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = _bound(self._address)
            self._listener.listen()
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _deafen(self) -> None:
        if self._listener is not None:
            _shut(self._listener)
            self._listener.close()
            self._listener = None
            if isinstance(self._address, Path):
                self._address.unlink(missing_ok=True)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near: socket.socket) -> None:
        """One connection, from its acceptance to the end of both directions."""
        far = None
        try:
            far = _connected(self._target)
            for each in (near, far):
                if each.family == socket.AF_INET:
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                self._open |= {near, far}
            back = threading.Thread(target=self._pump, args=(far, near, "down"), daemon=True)
            back.start()
            self._pump(near, far, "up")
            back.join()
        except OSError:
            pass  # the target is not there: so the near end sees its connection closed
        finally:
            with self._changed:
                self._open -= {near, far}
            for end in (near, far):
                if end is not None:
                    end.close()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        translate = self._translator() if self._translator and direction == "up" else bytes
        with suppress(OSError):
            while data := source.recv(_BLOCK):
                data = translate(data)
                while data:
                    piece, cut = self._admitted(data, direction, sink)
                    self._paced(len(piece), direction)
                    sink.sendall(piece)
                    data = data[len(piece) :]
                    if cut:
                        _shut(source)
                        _shut(sink)
                        return
            sink.shutdown(socket.SHUT_WR)
            return
        _shut(source)
        _shut(sink)

    def _admitted(self, data: bytes, direction: Direction, sink: socket.socket) -> tuple[bytes, bool]:
        """What of ``data`` may pass now, and whether the connection breaks after it."""
        with self._changed:
            while (fault := self._fault) and fault.kind == "stall" and fault.left == 0 and self._concerns(direction):
                self._changed.wait()
            cut = False
            if fault and self._concerns(direction):
                if fault.kind == "corrupt" and fault.left < len(data):
                    data = data[: fault.left] + bytes([data[fault.left] ^ 0xFF]) + data[fault.left + 1 :]
                    self._fault = None
                elif fault.kind != "corrupt":
                    data = data[: fault.left]
                fault.left -= min(fault.left, len(data))
                if fault.kind == "cut" and fault.left == 0:
                    cut, self._fault = True, None
            self._passed[direction] += len(data)
            return data, cut

    def _paced(self, count: int, direction: Direction) -> None:
        """Wait as long as the line takes for so many bytes after those before them."""
        if self._rate is None:
            return
        with self._changed:
            now = time.monotonic()
            self._free_at[direction] = max(now, self._free_at[direction]) + count / self._rate
            wait = self._free_at[direction] - now
        time.sleep(wait)

    def _concerns(self, direction: Direction) -> bool:
        return self._fault is not None and self._fault.direction in (None, direction)

    def _controlled(self, control: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = control.accept()
                with connection, connection.makefile("r", encoding="utf-8") as lines, suppress(OSError):
                    for line in lines:
                        connection.sendall(json.dumps(self._obey(line)).encode() + b"\n")

    def _obey(self, line: str) -> dict[str, Any]:
        try:
            options = json.loads(line)
            name = options.pop("fault")
            if name not in FAULTS:
                raise ValueError(f"no fault {name!r}; there are: {', '.join(FAULTS)}")
            getattr(self, name)(**options)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return {"error": str(error)}
        return {"passed": self.passed}


def _bound(address: Address) -> socket.socket:
    made = socket.socket(socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(str(address) if isinstance(address, Path) else address)
    return made


def _connected(address: Address) -> socket.socket:
    if not isinstance(address, Path):
        made = socket.create_connection(address, _CONNECT)
        made.settimeout(None)
        return made
    made = socket.socket(socket.AF_UNIX)
    try:
        made.connect(str(address))
    except OSError:
        made.close()
        raise
    return made


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
