"""Bodies of requests to the server, over its real application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from ..case import Case, Files, Opener
from ..trees import changed_json
from .bundles import exported

_SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/v1/chat/completions",
    "raw_path": b"/v1/chat/completions",
    "query_string": b"",
    "root_path": "",
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80),
    "state": {},
    "extensions": {},
    "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
}
_BODY = {
    "model": "default",
    "messages": [
        {"role": "system", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ],
    "max_tokens": 4,
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 1,
    "stop": ["x"],
    "stream": False,
    "n": 1,
    "frequency_penalty": 0,
    "logit_bias": {"5": 1},
    "stream_options": {"include_usage": True},
    "user": "x",
}


def _bodies(folder: Path) -> Case:
    from edgesdk.bundle import open_bundle
    from edgesdk.chat import bundle_tokenizer
    from edgesdk.serve import Settings
    from edgesdk.serve.app import add_decoder, make_app
    from edgesdk.serve.asking import Served
    from edgesdk.serve.decoding import Decoder
    from edgesdk.serve.engine import Engine

    from ...unit.serving import Script

    with open_bundle(exported(folder, "linux-x86_64")) as bundle:
        tokenizer, session = bundle_tokenizer(bundle), Script(bundle, "hello")
    engine = Engine(Decoder(session, tokenizer), 8, 60.0)
    add = partial(add_decoder, tokenizer=tokenizer)
    app = make_app(engine, Served("x", "d" * 64, 0, ()), Settings(), (), add)

    async def answered(body: bytes) -> int:
        """The status of the answer, which is read to its end."""
        sent: list[MutableMapping[str, Any]] = []
        received = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if received:
                return received.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await app(dict(_SCOPE), receive, send)
        return int(sent[0]["status"])

    def run(files: Files) -> None:
        status = asyncio.run(answered(files["body"]))
        if status >= 500:
            raise AssertionError(f"the server answers {status}")

    def make(random: Random) -> Files:
        body = {**_BODY, "stream": random.random() < 0.3}
        return {"body": changed_json(random, body) if random.random() < 0.95 else json.dumps(body).encode()}

    return Case(make, run)


TARGETS: dict[str, Opener] = {"server": _bodies}
