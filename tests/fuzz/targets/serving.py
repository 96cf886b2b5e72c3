"""Bodies of requests to the server, over its real application."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random

from ..case import Case, Files, Opener
from ..trees import changed_json
from .bundles import exported

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
    import httpx

    from edgesdk.bundle import open_bundle
    from edgesdk.chat import bundle_tokenizer
    from edgesdk.serve import Settings
    from edgesdk.serve.app import Served, make_app
    from edgesdk.serve.engine import Engine

    from ...unit.serving import Script

    with open_bundle(exported(folder, "linux-x86_64")) as bundle:
        tokenizer, session = bundle_tokenizer(bundle), Script(bundle, "hello")
    engine = Engine(session, tokenizer, 8)
    app = make_app(engine, tokenizer, Served("x", "d" * 64, 0, ()), Settings(), None)

    async def asked(body: bytes) -> int:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            headers = {"Content-Type": "application/json"}
            answer = await client.post("/v1/chat/completions", content=body, headers=headers)
            return answer.status_code

    def run(files: Files) -> None:
        status = asyncio.run(asked(files["body"]))
        if status >= 500:
            raise AssertionError(f"the server answers {status}")

    def make(random: Random) -> Files:
        body = {**_BODY, "stream": random.random() < 0.3}
        return {"body": changed_json(random, body) if random.random() < 0.95 else json.dumps(body).encode()}

    return Case(make, run)


TARGETS: dict[str, Opener] = {"server": _bodies}
