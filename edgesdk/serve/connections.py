"""Connections: how many there may be, how long each may keep the server waiting, and who is cut off for a new one."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import re
import resource
import time
from pathlib import Path
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .memory import Returning
from .settings import ServeError, Settings

#: Under this key of a request's state stands the number of its connection.
CONNECTION = "connection"
ACCEPTS = 16  # connections that are accepted in a row, before those are counted
QUEUED = 1024  # connections that the kernel keeps until they are accepted
_HEAD_SECONDS = 10.0  # for the head of a request, from its first byte
_WRITE_SECONDS = 30.0  # for a client to read what waits for it
_SPARE_FILES = 64 + 4 * ACCEPTS  # besides connections: files of the model, and connections not counted yet
_FEWEST = 16
_MOST_LINES, _LONGEST_HEAD = 100, 16_384  # of the head of a request
_HEAD_END = re.compile(rb"\n\r?\n")
_LOG = logging.getLogger("uvicorn.error")
_OPEN_FILES = Path("/proc/self/fd")
_FREE_CHUNKS, _SMALLEST_CHUNK = 64, 512  # so many chunks of a body may be small; all of them have that mean size


class Connections:
    """The open connections of a server.

    Attributes:
        most: how many there may be.
        most_of_one: how many of one address; of IPv6, of one network (/64).
        returning: gives back the memory of those that ended.
    """

    def __init__(self, most: int, most_of_one: int) -> None:
        self.most, self.most_of_one = most, most_of_one
        self._open: dict[Connection, str] = {}
        self._numbers = itertools.count()
        self.returning = Returning()

    def __len__(self) -> int:
        return len(self._open)

    def number(self) -> int:
        """A number that no other connection has, nor will have."""
        return next(self._numbers)

    def add(self, new: Connection, address: str) -> bool:
        """Count a connection in, cutting off the one that keeps the server waiting longest where there are too many.

        Returns: whether there is a place for it; there is none where every other one's request is at work.
        """
        network = _network(address)
        same = [other for other, theirs in self._open.items() if theirs == network]
        rivals = same if len(same) >= self.most_of_one else list(self._open) if len(self) >= self.most else []
        if rivals:
            waiting = [other for other in rivals if other.waiting_since is not None]
            if not waiting:
                return False
            longest = min(waiting, key=lambda other: other.waiting_since or 0.0)
            self.discard(longest)
            longest.cut()
        self._open[new] = network
        return True

    def discard(self, gone: Connection) -> None:
        """Count a connection out."""
        self._open.pop(gone, None)


class Connection(H11Protocol):
    """One connection: the head of a request has its time, and so has a client that does not read."""

    def __init__(self, *arguments: Any, connections: Connections, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._others = connections
        self.app_state = {**self.app_state, CONNECTION: connections.number()}
        self.conn = _Framing(h11.SERVER, self.config.h11_max_incomplete_event_size or 65536)
        self._since = time.monotonic()  # when it last began to wait for the client
        self._head: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None

    @property
    def waiting_since(self) -> float | None:
        """Since when the server waits for this client; None while the client waits for the server."""
        cycle = self.cycle
        idle = cycle is None or cycle.response_complete or cycle.more_body
        return self._since if idle or self._stuck is not None or self.transport.is_closing() else None

    def cut(self) -> None:
        """End it at once."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._others.add(self, self.client[0] if self.client else ""):
            self._await_head()
        else:
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.discard(self)
        self._others.returning.soon()
        self._stop_head()
        self._stop_stuck()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.IDLE and self._head is None:
            self._await_head()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_head()

    def on_response_complete(self) -> None:
        self._since = time.monotonic()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._since = time.monotonic()
        self._stuck = self.loop.call_later(_WRITE_SECONDS, self.cut)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_stuck()

    def _await_head(self) -> None:
        self._since = time.monotonic()
        self._head = self.loop.call_later(_HEAD_SECONDS, self.cut)

    def _stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _stop_stuck(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


class _Framing(h11.Connection):
    """HTTP/1.1 without large heads, nor bodies of many small chunks: each line and each chunk costs time."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._chunks = self._bytes = 0

    def next_event(self) -> Any:
        if self.their_state is h11.IDLE:
            self._refuse_large_head()
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
        elif isinstance(event, h11.Data) and event.chunk_start:
            self._chunks += 1
            if self._chunks > _FREE_CHUNKS and self._bytes < self._chunks * _SMALLEST_CHUNK:
                raise h11.RemoteProtocolError("a body of small chunks")
        if isinstance(event, h11.Data):
            self._bytes += len(event.data)
        return event

    def _refuse_large_head(self) -> None:
        data = self.trailing_data[0]
        end = _HEAD_END.search(data)
        size = end.start() if end else len(data)
        if size > _LONGEST_HEAD or data.count(b"\n", 0, size) > _MOST_LINES:
            raise h11.RemoteProtocolError("a large head")


def open_connections(settings: Settings) -> Connections:
    """Room for connections, as far as the process may open files.

    Raises:
        ServeError: it may open too few.
    """
    others = len(list(_OPEN_FILES.iterdir())) if _OPEN_FILES.is_dir() else _SPARE_FILES
    wanted = settings.connections + others + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = settings.connections if soft == resource.RLIM_INFINITY else soft - others - _SPARE_FILES
    if room < _FEWEST:
        raise ServeError(
            f"this process may open {soft} files, which leaves {max(0, room)} for connections",
            hint=f"raise the limit: ulimit -n {wanted}, or LimitNOFILE={wanted} of the service",
        )
    if room < settings.connections:
        _LOG.warning("%d connections and not %d: this process may open %d files", room, settings.connections, soft)
    return Connections(min(settings.connections, room), settings.address_connections)


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found) if found.version == 4 else str(ipaddress.ip_network((int(found), 64), strict=False))
