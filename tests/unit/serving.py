"""Servers on real sockets, over a real bundle or over a session that says what a test wrote for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import OpenAI

from edgesdk.bundle import Bundle, open_bundle
from edgesdk.chat import bundle_tokenizer
from edgesdk.serve import Settings
from edgesdk.serve.server import Server
from edgesdk.session import Session

PATIENCE = 30.0
QUESTION: list[Any] = [{"role": "user", "content": "hello"}]


class Script:
    """A session whose answer is ``text``; ``endless`` repeats it. After ``free`` tokens it waits for ``open``."""

    def __init__(self, bundle: Bundle, text: str, *, endless: bool = False) -> None:
        tokenizer = bundle_tokenizer(bundle)
        self._tokens, self._stop = tokenizer.encode(text), tokenizer.special.stop[0]
        self._endless, self._said = endless, 0
        self.context, self.vocab, self.position = bundle.manifest.context, tokenizer.size, 0
        self.open, self.free, self.fails = threading.Event(), 0, False
        self.open.set()

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        self.position, self._said = self.position + len(ids), 0
        return self._next()

    def decode(self, token: int) -> np.ndarray:
        self.position = min(self.position + 1, self.context - 1) if self._endless else self.position + 1
        return self._next()

    def score(self, ids: Sequence[int]) -> np.ndarray:
        raise NotImplementedError

    def reset(self) -> None:
        self.position = 0

    def rewind(self, count: int) -> None:
        self.position -= count

    def _next(self) -> np.ndarray:
        assert self._said < self.free or self.open.wait(PATIENCE)
        if self.fails:
            raise RuntimeError("of the runtime")
        token = self._tokens[self._said % len(self._tokens)]
        if self._said >= len(self._tokens) and not self._endless:
            token = self._stop
        self._said += 1
        logits = np.zeros(self.vocab, dtype=np.float32)
        logits[token] = 100
        return logits


@dataclass
class Running:
    """A server in a thread."""

    server: Server
    thread: threading.Thread

    @property
    def address(self) -> str:
        return self.server.address

    def client(self, token: str = "none", **options: Any) -> OpenAI:
        """The official client, without its retries."""
        return OpenAI(base_url=f"{self.address}/v1", api_key=token, max_retries=0, timeout=PATIENCE, **options)


@contextmanager
def running(
    path: Path, script: str | None = None, *, endless: bool = False, session: Session | None = None, **settings: Any
) -> Iterator[Running]:
    """A server over a bundle, or over a session or a :class:`Script` with the bundle's tokenizer."""
    with open_bundle(path, check=False) as bundle:
        if script is not None:
            session = Script(bundle, script, endless=endless)
        ready = threading.Event()
        with pytest.MonkeyPatch.context() as patch:
            if session is not None:
                patch.setattr("edgesdk.serve.server.open_session", lambda *_: session)
            server = Server(bundle, Settings(**{"port": 0, "stop_seconds": 3.0} | settings), lambda _: ready.set())
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[server.listener])), daemon=True)
        thread.start()
        try:
            assert ready.wait(PATIENCE)
            yield Running(server, thread)
        finally:
            if isinstance(session, Script):
                session.open.set()
            server.stop()
            server.stop()
            thread.join(PATIENCE)
            server.close()
        assert not thread.is_alive()


def script_of(running: Running) -> Script:
    """The script behind a server."""
    session = running.server.engine._worker._session._session
    assert isinstance(session, Script)
    return session
