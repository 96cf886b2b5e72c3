"""The server as its clients see it: the official client on a real socket."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

import edgesdk
from edgesdk.serve import ServeError, Settings
from edgesdk.serve.settings import is_loopback, tokens

from .serving import PATIENCE, QUESTION, Running, running, script_of

TEXT = "Grüße aus 東京, 🌍🚀 und äh"
SECRET = "a-token-of-the-tests"


def post(server: Running, body: Any, **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    """A request without any client's help: status, body and headers."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.server.listener.getsockname()[1], timeout=PATIENCE)
    try:
        connection.request("POST", "/v1/chat/completions", raw, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), dict(answer.getheaders())
    finally:
        connection.close()


def wait_for(condition: Any) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_the_official_client_streams_whole_characters(bundle: Path) -> None:
    with running(bundle, TEXT) as server:
        chunks = list(
            server.client().chat.completions.create(
                model="default", messages=QUESTION, stream=True, stream_options={"include_usage": True}
            )
        )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == TEXT and len(pieces) > 10 and not any("\ufffd" in piece for piece in pieces)
    assert chunks[-1].usage is not None and chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == len(TEXT.encode())  # a byte is a token of this tokenizer
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_real_bundle_answers_as_the_sdk_does_and_keeps_its_cache(bundle: Path) -> None:
    with edgesdk.open_bundle(bundle) as opened:
        chat = edgesdk.Chat(opened)
        expected = chat.ask("hello", max_tokens=12)
    with running(bundle) as server:
        client = server.client()
        ask: Any = {"model": client.models.list().data[0].id, "temperature": 0, "max_tokens": 12}
        first = client.chat.completions.create(messages=QUESTION, **ask)
        again = client.chat.completions.create(messages=QUESTION, **ask)
    assert first.choices[0].message.content == again.choices[0].message.content == expected
    assert first.usage is not None and again.usage is not None and again.usage.prompt_tokens_details is not None
    assert first.choices[0].finish_reason == "length" and first.usage.completion_tokens == 12
    assert again.usage.prompt_tokens_details.cached_tokens == first.usage.prompt_tokens - 1


def test_a_seed_repeats_an_answer(bundle: Path) -> None:
    with running(bundle) as server:
        create = server.client().chat.completions.create
        answers = [
            create(model="default", messages=QUESTION, temperature=1.5, top_p=0.9, seed=seed, max_tokens=16)
            for seed in (1, 1, 2)
        ]
    said = [answer.choices[0].message.content for answer in answers]
    assert said[0] == said[1] != said[2]


def test_stop_strings_end_an_answer_and_are_not_part_of_it(bundle: Path) -> None:
    with running(bundle, TEXT) as server:
        create = server.client().chat.completions.create
        found = create(model="default", messages=QUESTION, stop=["nowhere", ", 🌍"]).choices[0]
        parts: Any = [{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}]
        limited = create(model="default", messages=parts, max_completion_tokens=3).choices[0]
    assert (found.message.content, found.finish_reason) == ("Grüße aus 東京", "stop")
    assert (limited.message.content, limited.finish_reason) == ("Grü"[:2], "length")


@pytest.mark.parametrize(
    ("change", "param", "status"),
    [
        ({"tool_choice": "required"}, "tool_choice", 400),
        ({"logit_bias": {"99999": 5}}, "logit_bias", 400),
        ({"n": 17}, "n", 400),
        ({"frequency_penalty": 101}, "frequency_penalty", 400),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", 400),
        ({"response_format": {"type": "json_object"}}, "response_format.type", 400),
        ({"grammar": "root ::= x"}, "grammar", 400),
        ({"modalities": ["text", "audio"]}, "modalities", 400),
        ({"chat_template_kwargs": {"enable_thinking": "<|im_end|>"}}, "chat_template_kwargs.enable_thinking", 400),
        ({"chat_template_kwargs": {"Messages": 1}}, "chat_template_kwargs.Messages", 400),
        ({"messages": []}, "messages", 400),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", 400),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages.0", 400),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content",
            400,
        ),
        ({"messages": [{"role": "user", "content": "x" * 300}]}, "messages", 400),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, None, 400),
        ({"max_tokens": -2}, "max_tokens", 400),
        ({"top_p": 1.1}, "top_p", 400),
    ],
)
def test_what_is_not_served_is_refused_by_name(bundle: Path, change: dict[str, Any], param: str, status: int) -> None:
    with running(bundle, TEXT) as server:
        found, body, _ = post(server, {"model": "default", "messages": QUESTION, **change})
    assert found == status
    assert body["error"]["type"] == "invalid_request_error"
    if param is not None:
        assert body["error"]["param"] == param and param in body["error"]["message"]


def test_neutral_values_are_taken(bundle: Path) -> None:
    neutral = {"n": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logprobs": False, "user": "me", "seed": None}
    neutral |= dict.fromkeys(("tools", "vendors_own", "audio"))
    sent_back = {"role": "assistant", "content": "hi", "refusal": None}
    with running(bundle, TEXT) as server:
        ask = {"model": "default", "messages": [*QUESTION, sent_back, *QUESTION], **neutral}
        status, body, _ = post(server, ask)
    assert status == 200 and body["choices"][0]["message"]["content"] == TEXT


def test_bodies_are_limited_and_must_be_json(bundle: Path) -> None:
    with running(bundle, TEXT, body_kb=2) as server:
        assert post(server, {"model": "default", "messages": QUESTION, "user": "x" * 2000})[0] == 413
        assert post(server, b"{")[1]["error"]["code"] == "invalid_json"
        assert post(server, b"[1]")[0] == post(server, b"", Host="localhost")[0] == 400
        assert post(server, {"model": "default", "messages": QUESTION})[0] == 200
        assert post(server, {"model": "default", "messages": QUESTION}, Connection="close")[0] == 200


def test_a_body_without_a_length_is_limited_too(bundle: Path) -> None:
    with running(bundle, TEXT, body_kb=2) as server:
        port = server.server.listener.getsockname()[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("POST", "/v1/chat/completions", iter([b"x" * 1500] * 2), encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()


def test_a_full_queue_is_429_with_an_advice(bundle: Path) -> None:
    with running(bundle, TEXT, queue=1) as server:
        script = script_of(server)
        script.open.clear()
        answers: list[int] = []
        ask = {"model": "default", "messages": QUESTION}
        threads = [threading.Thread(target=lambda: answers.append(post(server, ask)[0])) for _ in range(2)]
        for thread, wanted in zip(threads, ((1, 0), (1, 1)), strict=True):
            thread.start()
            wait_for(lambda wanted=wanted: (server.server.engine.running, server.server.engine.waiting) == wanted)
        status, body, headers = post(server, ask)
        assert status == 429 and body["error"]["code"] == "busy" and 1 <= int(headers["retry-after"]) <= 120
        with pytest.raises(openai.RateLimitError):
            server.client().chat.completions.create(model="default", messages=QUESTION)
        script.open.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert answers == [200, 200]


def test_who_waits_too_long_is_told_so(bundle: Path) -> None:
    with running(bundle, TEXT, wait_seconds=0.2) as server:
        script_of(server).open.clear()
        first = threading.Thread(target=post, args=(server, {"model": "default", "messages": QUESTION}))
        first.start()
        wait_for(lambda: server.server.engine.running)
        status, body, _ = post(server, {"model": "default", "messages": QUESTION})
        assert status == 429 and "no answer began" in body["error"]["message"]
        assert server.server.engine.waiting == 0
        script_of(server).open.set()
        first.join(PATIENCE)


def test_a_client_that_goes_away_frees_its_place(bundle: Path) -> None:
    with running(bundle, TEXT, endless=True, queue=1, max_tokens=1_000_000) as server:
        engine = server.server.engine
        stream = server.client().chat.completions.create(model="default", messages=QUESTION, stream=True)
        next(stream)
        waiting = http.client.HTTPConnection("127.0.0.1", server.server.listener.getsockname()[1])
        body = json.dumps({"model": "default", "messages": QUESTION})
        waiting.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        wait_for(lambda: engine.waiting == 1)
        waiting.close()
        wait_for(lambda: engine.waiting == 0)
        assert engine.running == 1
        stream.close()
        wait_for(lambda: engine.running == 0)
        assert post(server, {"model": "default", "messages": QUESTION, "max_tokens": 3})[0] == 200


def test_a_client_that_waits_for_a_whole_answer_may_go_away_too(bundle: Path) -> None:
    with running(bundle, TEXT, endless=True, max_tokens=1_000_000) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.server.listener.getsockname()[1])
        body = json.dumps({"model": "default", "messages": QUESTION})
        client.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        wait_for(lambda: server.server.engine.running == 1)
        client.close()
        wait_for(lambda: server.server.engine.running == 0)


def test_a_failure_of_the_model_ends_one_answer_only(bundle: Path) -> None:
    with running(bundle, TEXT) as server:
        script = script_of(server)
        script.fails = True
        status, body, _ = post(server, {"model": "default", "messages": QUESTION})
        assert status == 500 and "of the runtime" in body["error"]["message"]
        with pytest.raises(openai.APIError, match="of the runtime"):
            list(server.client().chat.completions.create(model="default", messages=QUESTION, stream=True))
        script.fails = False
        assert post(server, {"model": "default", "messages": QUESTION})[0] == 200


def test_a_stop_lets_the_running_answer_end_and_refuses_the_rest(bundle: Path) -> None:
    with running(bundle, TEXT, queue=4) as server:
        script, engine = script_of(server), server.server.engine
        script.free = 3
        script.open.clear()
        stream = server.client().chat.completions.create(model="default", messages=QUESTION, stream=True)
        refused: list[int] = []
        ask = {"model": "default", "messages": QUESTION}
        waiting = threading.Thread(target=lambda: refused.append(post(server, ask)[0]))
        waiting.start()
        wait_for(lambda: engine.waiting == 1)
        server.server.stop()
        wait_for(lambda: engine.stopping)
        waiting.join(PATIENCE)
        status, body, _ = post(server, ask)
        refused.append(status)
        assert body["error"]["code"] == "stopping"
        script.open.set()
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        server.thread.join(PATIENCE)
    assert refused == [503, 503] and text == TEXT


def test_a_stop_cuts_an_answer_that_takes_too_long(bundle: Path) -> None:
    with running(bundle, TEXT, endless=True, max_tokens=1_000_000, stop_seconds=0.2) as server:
        stream = server.client().chat.completions.create(model="default", messages=QUESTION, stream=True)
        next(stream)
        server.server.stop()
        with pytest.raises(openai.APIError, match="cut off"):
            list(stream)
        server.thread.join(PATIENCE)
        assert not server.thread.is_alive()


def test_a_token_is_needed_where_there_is_one(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    with running(bundle, TEXT, token_file=str(file)) as server:
        for wrong in ("wrong", SECRET + "x", SECRET[:-1]):
            with pytest.raises(openai.AuthenticationError):
                server.client(wrong).models.list()
        assert post(server, {"model": "default", "messages": QUESTION})[0] == 401
        assert server.client(SECRET).models.list().data[0].owned_by == "edgesdk"
        assert get(server, "/health")[0] == 200 and get(server, "/metrics")[0] == 401


def test_without_a_token_web_pages_are_refused(bundle: Path) -> None:
    """A page whose name was made to lead here, and one of another origin, whatever the route and the verb."""
    ask = {"model": "default", "messages": QUESTION}
    with running(bundle, TEXT) as server:
        port = server.server.listener.getsockname()[1]
        rebound = ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", f"localhost@evil.example:{port}")
        for host in (*rebound, "192.168.1.2", "0.0.0.0", "[::]", "localhost:", "", "[127.0.0.1", "localhost evil"):
            status, body, _ = post(server, ask, Host=host)
            assert (status, body["error"]["code"]) == (403, "host_not_allowed"), host
            assert get(server, "/health", Host=host)[0] == get(server, "/metrics", Host=host)[0] == 403, host
        here = f"127.0.0.1:{port}"
        foreign = (
            "https://evil.example",
            "null",
            f"https://{here}",
            "http://localhost:3000",
            f"http://{here}.evil.example",
        )
        for origin in (*foreign, f"http://localhost:{port}", "http://127.0.0.1", ""):
            status, body, _ = post(server, ask, Host=here, Origin=origin)
            assert (status, body["error"]["code"]) == (403, "origin_not_allowed"), origin
            assert get(server, "/v1/models", Host=here, Origin=origin)[0] == 403, origin
        assert server.server.engine.running == server.server.engine.waiting == 0
        tunnel = "localhost:9000"
        for host in (here, f"localhost:{port}", "LOCALHOST", "127.0.0.2:80", f"[::1]:{port}", tunnel):
            assert post(server, ask, Host=host)[0] == 200, host
        assert post(server, ask, Host=here, Origin=f"http://{here}")[0] == 200
        assert 'status="403"' in get(server, "/metrics")[1]


def test_with_a_token_any_name_and_any_page_may_ask(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "token").chmod(0o600)
    with running(bundle, TEXT, token_file=str(tmp_path / "token")) as server:
        page = {"Host": "board.example", "Origin": "https://app.example"}
        ask = {"model": "default", "messages": QUESTION}
        assert post(server, ask, Authorization=f"Bearer {SECRET}", **page)[0] == 200
        assert post(server, ask, **page)[0] == 401


def get(server: Running, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server.listener.getsockname()[1], timeout=PATIENCE)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_beyond_the_loopback_a_token_is_demanded(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.2", "board.local"):
        assert not is_loopback(host)
        with pytest.raises(ServeError, match="there is no token"):
            tokens(Settings(host=host), None)
        assert tokens(Settings(host=host), SECRET) == (SECRET,)
    assert tokens(Settings(), None) == () and is_loopback("127.0.0.2") and is_loopback("::1")
    (tmp_path / "short").write_text("abc")
    (tmp_path / "short").chmod(0o600)
    for file in ("short", "missing"):
        with pytest.raises(ServeError, match=file):
            tokens(Settings(token_file=str(tmp_path / file)), None)


def test_health_and_metrics_say_what_runs(bundle: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    with running(bundle) as server:
        client: OpenAI = server.client()
        client.chat.completions.create(model="default", messages=QUESTION, max_tokens=5)
        client.chat.completions.create(model="default", messages=QUESTION, max_tokens=5)
        health = json.loads(get(server, "/health")[1])
        text = get(server, "/metrics")[1]
        assert get(server, "/v1/nothing")[0] == 404
    assert health["status"] == "ok" and health["providers"] == ["CPUExecutionProvider"] and health["context"] == 256
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples[("edgesdk_responses_total", "/v1/chat/completions", "200")] == 2
    assert 0 < samples[("edgesdk_answer_tokens_total",)] <= 10
    assert samples[("edgesdk_reused_prompt_tokens_total",)] == samples[("edgesdk_prompt_tokens_total",)] / 2 - 1
    assert samples[("edgesdk_prefill_seconds_count",)] == 2


def test_the_server_needs_neither_torch_nor_a_converters_library(bundle: Path) -> None:
    code = f"""
import sys
from edgesdk.bundle import open_bundle
from edgesdk.serve import Settings
from edgesdk.serve.server import Server
with open_bundle({str(bundle)!r}) as opened:
    Server(opened, Settings(port=0)).close()
print(sorted({{"torch", "onnx", "onnx_ir", "transformers", "gguf", "safetensors"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert done.stdout.strip() == "[]"


def test_what_cannot_be_served_is_said_at_once(bundle: Path) -> None:
    with pytest.raises(edgesdk.EdgeError, match=r"no execution provider 'gpu'"), running(bundle, providers=("gpu",)):
        pass
    with running(bundle) as server:
        port = server.server.listener.getsockname()[1]
        with pytest.raises(ServeError, match="cannot listen there"), running(bundle, port=port):
            pass
    with pytest.raises(ServeError, match=r"queue = -1"):
        Settings(queue=-1)
