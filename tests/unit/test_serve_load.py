"""The server under load, under a fuzzer, and as a process that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hypothesis
import openai
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from .serving import PATIENCE, QUESTION, running

CLIENTS = 200
CHAT, ONE_MODEL = "/v1/chat/completions", "/v1/models/{name}"
TOKEN = "a-token-of-the-tests"


def test_of_200_clients_each_gets_an_answer_or_a_429(bundle: Path) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int) -> int:
        try:
            stream = number % 2 == 0
            answer: Any = await client.chat.completions.create(
                model="default", messages=QUESTION, max_tokens=4, stream=stream
            )
            if stream:
                async for _ in answer:
                    pass
        except openai.APIStatusError as refused:
            return refused.status_code
        return 200

    async def all_of_them(address: str) -> Counter[int]:
        async with openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=PATIENCE
        ) as client:
            return Counter(await asyncio.gather(*(ask(client, number) for number in range(CLIENTS))))

    with running(bundle, queue=20) as server:
        found = asyncio.run(all_of_them(server.address))
        assert server.server.engine.waiting == server.server.engine.running == 0
        again = server.client().chat.completions.create(model="default", messages=QUESTION, max_tokens=2)
    assert again.choices
    assert found[200] >= 21 and found[429] > 0 and found[200] + found[429] == CLIENTS, found


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_a_fuzzer_finds_no_failure_of_the_server(bundle: Path, tmp_path: Path, mode: GenerationMode) -> None:
    """Requests as the OpenAPI document has them, and requests that break it; answers are those that it promises."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    found: Counter[tuple[str, int]] = Counter()
    quick = hypothesis.settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    with running(bundle, "ok", token_file=str(file), body_kb=20, max_tokens=8) as server:
        document = schemathesis.openapi.from_url(
            f"{server.address}/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        for result in document.get_all_operations():
            operation = result.ok()

            @quick
            @hypothesis.given(operation.as_strategy(generation_mode=mode))
            def look(case: Any) -> None:
                if mode is GenerationMode.POSITIVE and case.path == CHAT:
                    case.body["model"] = "default"  # no other gets far
                response = case.call(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=PATIENCE)
                found[(case.path, response.status_code)] += 1
                assert response.status_code < 500, response.text
                if response.status_code == 413:  # of a large body that is wrong too
                    return
                case.validate_response(response, excluded_checks=[positive_data_acceptance])  # prompts may be too long

            try:
                look()
            except hypothesis.errors.Unsatisfiable:  # nothing can be wrong with a request that has no parameters
                assert mode is GenerationMode.NEGATIVE and operation.path not in (CHAT, ONE_MODEL)
    statuses = {status for path, status in found if path == CHAT}
    assert statuses >= ({200, 400} if mode is GenerationMode.POSITIVE else {400}) and found.total() > 60, found


@contextmanager
def process(bundle: Path, port: int, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The server as a service starts it; ready when the block begins."""
    settings = folder / "service.toml"
    settings.write_text(f"port = {port}\nstop_seconds = 3\nmax_tokens = 200\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(folder / "notify"))
        notified.settimeout(PATIENCE)
        started = subprocess.Popen(
            [sys.executable, "-m", "edgesdk.serve", str(bundle), str(settings)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"NOTIFY_SOCKET": str(folder / "notify")},
        )
        try:
            assert notified.recv(100) == b"READY=1"
            with started:
                yield started
        finally:
            started.kill()
            started.wait(PATIENCE)
            (folder / "notify").unlink()


def cut_off(port: int, server: subprocess.Popen[str]) -> bool:
    """Kill the server when the first bytes of a stream come; whether its end did not come then."""
    body = json.dumps({"model": "default", "messages": QUESTION, "max_tokens": 200, "stream": True, "temperature": 0})
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(f"{head}{len(body)}\r\n\r\n{body}".encode())
        said = connection.recv(1)
        server.send_signal(signal.SIGKILL)
        with suppress(ConnectionResetError):
            while data := connection.recv(1 << 16):
                said += data
    assert said.startswith(b"HTTP/1.1 200")
    return b"[DONE]" not in said


def test_killed_in_the_middle_of_an_answer_it_starts_again_on_the_same_port(bundle: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=PATIENCE)
    ask: Any = {"model": "default", "messages": QUESTION, "temperature": 0}
    answers, cut = [], []
    for _ in range(3):  # a busy machine may hear of the first byte after the last was sent
        with process(bundle, port, tmp_path) as server:
            answers.append(client.chat.completions.create(**ask, max_tokens=150).choices)
            cut.append(cut_off(port, server))
    assert any(cut) and answers[0] == answers[1] == answers[2]


def test_sigterm_in_the_middle_of_an_answer_lets_it_end(bundle: Path, tmp_path: Path) -> None:
    with process(bundle, 0, tmp_path) as started:
        assert started.stderr is not None
        address = started.stderr.readline().split()[-1]
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=PATIENCE)
        stream = client.chat.completions.create(
            model="default", messages=QUESTION, temperature=0, max_tokens=200, stream=True
        )
        next(stream)
        started.send_signal(signal.SIGTERM)
        chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason == "length"
        assert started.wait(PATIENCE) == 0
        assert "Traceback" not in started.stderr.read()
