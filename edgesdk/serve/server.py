"""Starting and stopping: the model is loaded, then the port is opened; SIGTERM lets the running answer end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import uvicorn
from fastapi import FastAPI

from ..bundle import Bundle, kind_of
from ..chat import bundle_tokenizer, open_session
from ..encoders import Encoder
from ..kinds import ENCODER
from ..model.template_runner import RUNNER
from . import logs, memory
from .app import Loaded, add_decoder, add_encoder, make_app
from .asking import Served
from .connections import ACCEPTS, QUEUED, Connection, open_connections
from .decoding import Decoder
from .encoding import Embedder
from .engine import Engine
from .settings import TOKEN_VARIABLE, ServeError, Settings, tokens

_FLUSH_SECONDS = 1  # for what was answered to reach its clients, after the last answer ended
_END_SECONDS = 4.7  # after a signal; a step of the model that is still at work then is not waited for
_NO_CHOICE = ("default",)  # what a runtime runs programs with when it knows one way only


@runtime_checkable
class _WithProviders(Protocol):
    providers: tuple[str, ...]


def run(bundle: Bundle, settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until a signal; see :func:`edgesdk.serve.serve`."""
    server = Server(bundle, settings, ready)
    memory.begin()
    try:
        asyncio.run(server.serve(sockets=[server.listener]))
    finally:
        server.close()


class Server(uvicorn.Server):
    """A server with its model loaded and its port open.

    Attributes:
        engine: what answers.
        listener: the open port.
    """

    def __init__(self, bundle: Bundle, settings: Settings, ready: Callable[[str], None] = lambda address: None) -> None:
        known = tokens(settings, os.environ.get(TOKEN_VARIABLE))
        self.engine, app = _loaded(bundle, settings, known)
        self.listener = _listener(settings)
        logs.write_to(logging.StreamHandler())
        protocol: Any = partial(Connection, connections=open_connections(settings))
        config = uvicorn.Config(
            app,
            http=protocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            backlog=ACCEPTS,
            access_log=False,
            server_header=False,
            timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]  # it goes to the loop's call_later
            timeout_graceful_shutdown=_FLUSH_SECONDS,
        )
        super().__init__(config)
        self._seconds, self._ready = settings.stop_seconds, ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._early = False  # a signal came before there was a loop to tell
        self._end: threading.Timer | None = None

    @property
    def address(self) -> str:
        """Where clients reach it."""
        host, port = self.listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.listener.listen(QUEUED)
        _tell_systemd("READY=1")
        self._ready(self.address)
        if self._early:
            self._stop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._end is None:
            self._end = threading.Timer(_END_SECONDS, _end_now)
            self._end.daemon = True
            self._end.start()
        self.stop()

    def stop(self) -> None:
        """Begin to stop, from any thread; the second time without patience."""
        if self._loop is None:
            self._early = True
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop)

    def close(self) -> None:
        """Free what a server holds that does not run any more."""
        self.listener.close()
        if self.engine.close(0) and self._end is not None:
            self._end.cancel()

    def _stop(self) -> None:
        if self._draining is None:
            _tell_systemd("STOPPING=1")
            self._draining = asyncio.ensure_future(self._drain())
        else:
            self.engine.cut()

    async def _drain(self) -> None:
        await asyncio.to_thread(self.engine.close, self._seconds)
        self.should_exit = True


def _end_now() -> None:
    RUNNER.kill()
    os._exit(0)


def _loaded(bundle: Bundle, settings: Settings, known: tuple[str, ...]) -> tuple[Engine, FastAPI]:
    manifest = bundle.manifest
    serve = _encoder if kind_of(manifest) == ENCODER else _decoder
    engine, providers, add = serve(bundle, settings)
    served = Served(manifest.model.name, manifest.digest, int(time.time()), providers)
    return engine, make_app(engine, served, settings, known, add)


def _decoder(bundle: Bundle, settings: Settings) -> Loaded:
    tokenizer = bundle_tokenizer(bundle)
    if tokenizer.chat_template is not None:
        RUNNER.start()
    session = open_session(bundle, settings.threads or None, settings.providers)
    providers = session.providers if isinstance(session, _WithProviders) else _NO_CHOICE
    engine = Engine(Decoder(session, tokenizer), settings.queue, settings.wait_seconds)
    return engine, providers, partial(add_decoder, tokenizer=tokenizer)


def _encoder(bundle: Bundle, settings: Settings) -> Loaded:
    name = bundle.manifest.model.name
    if settings.providers:
        raise ServeError(f"{name}: encoders run in one way only: they know no providers")
    encoder = Encoder(bundle, threads=settings.threads or None)
    if encoder.labels:
        raise ServeError(f"{name}: gives labels, and only embeddings are served", hint="edgesdk run gives its labels")
    engine = Engine(Embedder(encoder), settings.queue, settings.wait_seconds)
    return engine, _NO_CHOICE, partial(add_encoder, encoder=encoder)


def _listener(settings: Settings) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as failure:
        raise ServeError(
            f"{settings.host}:{settings.port}: cannot listen there ({getattr(failure, 'strerror', None) or failure})",
            hint="choose another --port or --host",
        ) from None


def _tell_systemd(state: str) -> None:
    """Where systemd waits for it (Type=notify), say what became of the server."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
