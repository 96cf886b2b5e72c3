"""The server's routes as clients know them: what asks for nothing, limits, likelihoods, several answers, pages."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from openai import OpenAI

import edgesdk
from edgesdk.bundle import open_bundle
from edgesdk.chat import bundle_tokenizer, open_session
from edgesdk.encoders import Encoder
from edgesdk.serve import ServeError, Settings
from edgesdk.serve.kept import Kept
from edgesdk.serve.paths import route_path

from ..conftest import make_checkpoint
from .encoder_rows import ROWS, save_encoder
from .serving import PATIENCE, QUESTION, Running, running, script_of

TEXT = "Grüße aus 東京"
SECRET = "a-token-of-the-tests"
PAGE = "http://localhost:3000"
CHAT = "/v1/chat/completions"


def call(
    server: Running, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """A request without any client's help: status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server.listener.getsockname()[1], timeout=PATIENCE)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        raw = None if body is None else json.dumps(body)
        connection.request(method, path, raw, sent | ({} if raw is None else {"Content-Type": "application/json"}))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def ask(server: Running, **changes: Any) -> dict[str, Any]:
    """An answer to a question with more fields."""
    body = {"model": "default", "messages": QUESTION, "temperature": 0, "max_tokens": 40} | changes
    status, _, answer = call(server, "POST", CHAT, body)
    assert status == 200, answer
    return json.loads(answer)


@pytest.fixture(scope="module")
def scripted(bundle: Path) -> Any:
    with running(bundle, TEXT, max_tokens=40) as server:
        yield server


@pytest.fixture(scope="module")
def base_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without a chat template."""
    folder = make_checkpoint(tmp_path_factory.mktemp("base") / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    edgesdk.export(folder, "linux-x86_64", folder.parent / "bundle", context=128, checks=edgesdk.Checks(skip=True))
    return folder.parent / "bundle"


@pytest.fixture(scope="module")
def encoder_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that embeds."""
    folder = tmp_path_factory.mktemp("encoder")
    save_encoder(next(row for row in ROWS if row.name == "bert-sentences"), folder / "model")
    edgesdk.export(folder / "model", "linux-x86_64", folder / "bundle", recipe="none")
    return folder / "bundle"


@pytest.mark.parametrize(
    "field",
    [
        {"logit_bias": {}},
        {"tools": []},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"},
        {"functions": [], "function_call": "auto"},
        {"tool_choice": "auto"},
        {"parallel_tool_calls": True},
        {"top_logprobs": 0},
        {"modalities": ["text"]},
        {"audio": None, "prediction": {"type": "content", "content": "x"}},
        {"service_tier": "flex", "store": True, "metadata": {"a": "b"}, "user": "x"},
        {"best_of": 1, "n": 1},
        {"prompt_cache_key": "a", "safety_identifier": "u", "prompt_cache_retention": "24h"},
        {"seed": -1, "top_k": -1, "top_p": 0, "min_p": -1, "n": 0, "max_completion_tokens": -1},
        {"temperature": -1, "top_k": 1},
        {"repetition_penalty": 0, "repeat_penalty": 1.0, "frequency_penalty": 0, "presence_penalty": 0},
        {"stop": ["", "nowhere"]},
        {"stop": []},
        {"stop": ""},
        {"stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"stream_options": None, "stream": None},
        {"response_format": {"type": "text"}},
        {"reasoning_effort": "low"},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"cache_prompt": True, "id_slot": -1, "timings_per_token": True, "mirostat": 0, "typical_p": 1, "grammar": ""},
        {"samplers": [], "dry_multiplier": 0.0, "repeat_last_n": -1, "guided_json": None, "keep_alive": "5m"},
        {"anything": None, "else": [], "there": {}, "might": False, "be": "", "yet": 0},
        {"model": None},
        {"model": "gpt-4o"},
    ],
)
def test_what_asks_for_nothing_changes_nothing(scripted: Running, field: dict[str, Any]) -> None:
    assert ask(scripted, **field)["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize(
    "replayed",
    [
        {
            "role": "assistant",
            "content": "hi",
            "refusal": None,
            "annotations": [],
            "audio": None,
            "function_call": None,
        },
        {"role": "assistant", "content": "hi", "tool_calls": [], "reasoning_content": "because", "id": "1"},
        {"role": "assistant", "content": "hi", "tool_calls": None, "provider_specific_fields": {"refusal": None}},
        {"role": "assistant", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i", "id": 1}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}]},
        {"role": "assistant", "content": ["h", "i"], "name": "bob", "cache_control": {"type": "ephemeral"}},
        {"role": "assistant", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
    ],
)
def test_replayed_messages_make_the_same_prompt(bundle: Path, replayed: dict[str, Any]) -> None:
    with running(bundle, max_tokens=40) as server:
        plain = ask(server, messages=[*QUESTION, {"role": "assistant", "content": "hi"}, *QUESTION])
        found = ask(server, messages=[*QUESTION, replayed, *QUESTION])
    assert found["choices"] == plain["choices"]
    assert found["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]


def test_no_content_is_an_empty_text(scripted: Running) -> None:
    empty = ask(scripted, messages=[*QUESTION, {"role": "assistant", "content": ""}, *QUESTION])["usage"]
    for replayed in (
        {"role": "assistant"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": []},
    ):
        assert ask(scripted, messages=[*QUESTION, replayed, *QUESTION])["usage"] == empty


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "n_predict"])
def test_more_tokens_than_there_may_be_are_cut_to_the_limit(bundle: Path, field: str) -> None:
    with running(bundle, TEXT, endless=True, max_tokens=30) as server:
        for value in (32_000, 2**40, -1, 0, None):
            found = (
                ask(server, max_tokens=None, **{field: value})["choices"][0]
                if field != "max_tokens"
                else (ask(server, max_tokens=value)["choices"][0])
            )
            assert found["finish_reason"] == "length", value
            assert found["message"]["content"].startswith(TEXT), value
    with running(bundle, max_tokens=100_000) as server:  # the context is the limit
        found = ask(server, max_tokens=32_000, temperature=0, logit_bias={"2": -100, "1": -100, "0": -100})
        assert found["choices"][0]["finish_reason"] == "length"
        assert found["usage"]["total_tokens"] >= 255


def test_tools_that_a_template_reads_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    """Their calls would be plain text; a template that does not read them makes the same prompt without."""
    shutil.copytree(checkpoint, tmp_path / "model")
    config = json.loads((tmp_path / "model/tokenizer_config.json").read_text())
    config["chat_template"] = "{% if tools %}{{ tools | tojson }}{% endif %}" + config["chat_template"]
    (tmp_path / "model/tokenizer_config.json").write_text(json.dumps(config))
    edgesdk.export(tmp_path / "model", "linux-x86_64", tmp_path / "b", context=128, checks=edgesdk.Checks(skip=True))
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    with running(tmp_path / "b", TEXT) as server:
        client = server.client()
        with pytest.raises(openai.BadRequestError, match="chat template tells it of tools"):
            client.chat.completions.create(model="m", messages=QUESTION, tools=tools)
        with pytest.raises(openai.BadRequestError, match="chat template tells it of tools"):
            client.responses.create(model="m", input="x", tools=[{"type": "function", "name": "f", "parameters": {}}])
        assert ask(server, tools=tools, tool_choice="none")["choices"][0]["message"]["content"] == TEXT


def test_a_strict_server_has_one_name(bundle: Path) -> None:
    with running(bundle, TEXT, strict_model=True) as server:
        name = server.client().models.list().data[0].id
        for model in (name, "default", None, ""):
            assert ask(server, model=model)["model"] == name
        with pytest.raises(openai.NotFoundError, match="there is no such model here"):
            server.client().chat.completions.create(model="gpt-4", messages=QUESTION)
        with pytest.raises(openai.NotFoundError, match="there is no such model here"):
            server.client().models.retrieve("gpt-4")


def test_logprobs_are_those_of_the_model(bundle: Path) -> None:
    with open_bundle(bundle) as opened:
        session, tokenizer = open_session(opened), bundle_tokenizer(opened)
        logits = session.prefill(tokenizer.chat(QUESTION)).astype(np.float64)
    expected = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    with running(bundle) as server:
        client = server.client()
        whole = client.chat.completions.create(
            model="m", messages=QUESTION, temperature=0, max_tokens=6, logprobs=True, top_logprobs=3
        )
        chunks = list(
            client.chat.completions.create(
                model="m", messages=QUESTION, temperature=0, max_tokens=6, logprobs=True, top_logprobs=3, stream=True
            )
        )
        text = client.completions.create(
            model="m", prompt=tokenizer.chat(QUESTION), temperature=0, max_tokens=6, logprobs=2
        )
    likely = whole.choices[0].logprobs
    assert likely is not None and likely.content is not None and len(likely.content) == 6
    first = likely.content[0]
    said = b"".join(bytes(each.bytes or []) for each in likely.content)
    assert whole.choices[0].message.content == said.decode(errors="ignore")
    assert first.logprob == pytest.approx(expected.max(), abs=1e-3)
    assert [each.logprob for each in first.top_logprobs] == pytest.approx(np.sort(expected)[::-1][:3], abs=1e-3)
    assert first.top_logprobs[0].token == first.token
    streamed = [
        each for chunk in chunks for choice in chunk.choices if choice.logprobs for each in choice.logprobs.content
    ]
    assert [each.logprob for each in streamed] == pytest.approx([each.logprob for each in likely.content], abs=1e-4)
    others = text.choices[0].logprobs
    assert others is not None and others.token_logprobs == pytest.approx(
        [each.logprob for each in likely.content], abs=1e-4
    )
    assert others.text_offset is not None and others.text_offset[:1] == [0] and len(others.top_logprobs or []) == 6


def test_several_answers_differ_and_come_apart(bundle: Path) -> None:
    with running(bundle) as server:
        create = server.client().chat.completions.create
        options: Any = {"model": "m", "messages": QUESTION, "seed": 5, "temperature": 1.5, "max_tokens": 12, "n": 3}
        whole = create(**options)
        one = create(**options | {"n": 1})
        pieces: dict[int, str] = {0: "", 1: "", 2: ""}
        ends = {}
        for chunk in create(**options, stream=True, stream_options={"include_usage": True}):
            for choice in chunk.choices:
                pieces[choice.index] += choice.delta.content or ""
                ends[choice.index] = choice.finish_reason
            last = chunk
    said = [choice.message.content for choice in whole.choices]
    assert len({*said}) == 3 and said[0] == one.choices[0].message.content
    assert list(pieces.values()) == said and set(ends) == {0, 1, 2}
    assert whole.usage is not None and one.usage is not None and last.usage is not None
    assert whole.usage.prompt_tokens == last.usage.prompt_tokens == one.usage.prompt_tokens
    assert whole.usage.completion_tokens == last.usage.completion_tokens > one.usage.completion_tokens


def test_penalties_and_bias_change_the_answer_as_they_say(bundle: Path) -> None:
    with running(bundle) as server:
        for penalty in ("frequency_penalty", "presence_penalty"):
            found = ask(server, logprobs=True, **{penalty: 50})["choices"][0]["logprobs"]["content"]
            said = [tuple(each["bytes"]) for each in found]
            assert len({*said}) == len(said) == 40, penalty
        again = [tuple(each["bytes"]) for each in ask(server, logprobs=True)["choices"][0]["logprobs"]["content"]]
        assert len({*again}) < 40
        assert ask(server, logit_bias={"30": 100})["choices"][0]["message"]["content"] == chr_of(bundle, 30) * 40


def chr_of(bundle: Path, token: int) -> str:
    with open_bundle(bundle) as opened:
        return bundle_tokenizer(opened).decode([token])


def test_texts_go_on(bundle: Path) -> None:
    with open_bundle(bundle) as opened:
        tokenizer, session = bundle_tokenizer(opened), open_session(opened)
        ids = tokenizer.encode("Once upon", prefix=True)
        said: list[int] = [int(session.prefill(ids).argmax())]
        while len(said) < 6:
            said.append(int(session.decode(said[-1]).argmax()))
    with running(bundle) as server:
        create = server.client().completions.create
        options: Any = {"model": "m", "temperature": 0, "max_tokens": 6}
        whole = create(prompt="Once upon", **options)
        several = create(prompt=["Once upon", "A"], n=2, **options)
        echoed = create(prompt=ids, echo=True, **options)
        pieces = "".join(
            choice.text for chunk in create(prompt="Once upon", stream=True, **options) for choice in chunk.choices
        )
        short = create(model="m", prompt="Once upon", temperature=0)
        for wrong in ([999_999], [[0], [10**7]]):
            with pytest.raises(openai.BadRequestError, match="there is no token"):
                create(prompt=wrong, **options)
    expected = tokenizer.decode(said).rstrip("\ufffd")  # the last token is a part of a character
    assert whole.choices[0].text == pieces == expected
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == several.choices[1].text == expected != several.choices[2].text
    assert echoed.choices[0].text == "Once upon" + expected
    assert several.usage is not None and whole.usage is not None and short.usage is not None
    assert several.usage.prompt_tokens < 2 * whole.usage.prompt_tokens
    assert short.usage.completion_tokens <= 16


def test_a_base_model_is_served_without_chat(base_bundle: Path) -> None:
    with running(base_bundle) as server:
        client = server.client()
        assert client.completions.create(model="m", prompt="Once", max_tokens=4).choices[0].text
        with pytest.raises(openai.NotFoundError, match="POST /v1/completions"):
            client.chat.completions.create(model="m", messages=QUESTION)


def test_responses_are_conversations(bundle: Path) -> None:
    with running(bundle) as server:
        client = server.client()
        options: Any = {"model": "m", "temperature": 0, "max_output_tokens": 12}
        chat = client.chat.completions.create(model="m", messages=QUESTION, temperature=0, max_tokens=12)
        plain = client.responses.create(input="hello", **options)
        items = client.responses.create(
            instructions="be brief",
            input=[{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}],
            **options,
        )
        system = client.chat.completions.create(
            model="m", messages=[{"role": "system", "content": "be brief"}, *QUESTION], temperature=0, max_tokens=12
        )
        turns: list[Any] = [{"role": "user", "content": "hello"}, *plain.output, {"role": "user", "content": "more"}]
        again = client.responses.create(input=turns, **options)
        events = list(client.responses.create(input="hello", stream=True, **options))
        more = client.responses.create(input="more", previous_response_id=plain.id, **options)
        item: Any = {"type": "item_reference", "id": plain.output[0].id}
        referred = client.responses.create(input=[turns[0], item, turns[-1]], **options)
        unkept = client.responses.create(input="hello", store=False, **options)
        for gone in ("resp_1", unkept.id):
            with pytest.raises(openai.NotFoundError, match="previous_response_id"):
                client.responses.create(input="x", previous_response_id=gone, **options)
    assert plain.output_text == chat.choices[0].message.content
    assert items.output_text == system.choices[0].message.content
    assert again.output_text == more.output_text == referred.output_text
    assert again.usage is not None and plain.usage is not None
    assert again.usage.input_tokens > plain.usage.input_tokens
    assert plain.status == "incomplete" and plain.incomplete_details is not None
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == plain.output_text
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.incomplete" and events[-1].response.usage == plain.usage


def test_an_answer_is_kept_for_its_user_alone(bundle: Path, tmp_path: Path) -> None:
    others = "another-token-of-the-tests"
    (tmp_path / "token").write_text(f"{SECRET}\n{others}\n")
    (tmp_path / "token").chmod(0o600)
    with running(bundle, TEXT, token_file=str(tmp_path / "token")) as server:
        made = server.client(SECRET).responses.create(model="m", input="hello")
        assert server.client(SECRET).responses.create(model="m", input="x", previous_response_id=made.id).output_text
        with pytest.raises(openai.NotFoundError):
            server.client(others).responses.create(model="m", input="x", previous_response_id=made.id)


def test_what_is_kept_is_bounded() -> None:
    kept = Kept()
    for number in range(3000):
        kept.add("", f"r{number}", [{"role": "user", "content": "x" * 10}])
    assert len(kept._entries) == 1000
    kept.add("", "large", [{"role": "user", "content": "x" * 4_000_001}])
    assert not kept._entries
    kept.add("", "small", [{"role": "user", "content": "x"}])
    assert kept.get("", "small", "input")[0]["content"] == "x"


def test_a_response_that_ends_is_completed(scripted: Running) -> None:
    client = scripted.client()
    with client.responses.stream(model="m", input="hello", temperature=0) as stream:
        assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == TEXT
        final = stream.get_final_response()
    assert (final.status, final.output_text) == ("completed", TEXT)


def test_tokens_of_a_text_and_back(scripted: Running, bundle: Path) -> None:
    with open_bundle(bundle) as opened:
        tokenizer = bundle_tokenizer(opened)
    for body, expected in (
        ({"content": TEXT}, tokenizer.encode(TEXT)),
        ({"prompt": TEXT, "add_special_tokens": True}, tokenizer.encode(TEXT, prefix=True)),
        ({"messages": QUESTION, "model": "x"}, tokenizer.chat(QUESTION)),
    ):
        status, _, answer = call(scripted, "POST", "/tokenize", body)
        found = json.loads(answer)
        assert status == 200 and found["tokens"] == expected and found["count"] == len(expected)
        assert found["max_model_len"] == 256
    pieces = json.loads(call(scripted, "POST", "/tokenize", {"content": "hi", "with_pieces": True})[2])["pieces"]
    assert pieces == [tokenizer.token(index) for index in tokenizer.encode("hi")]
    status, _, answer = call(scripted, "POST", "/detokenize", {"tokens": tokenizer.encode(TEXT)})
    assert (status, json.loads(answer)) == (200, {"content": TEXT})
    for body in ({}, {"content": "x", "messages": QUESTION}, {"tokens": [10**6]}):
        path = "/detokenize" if "tokens" in body else "/tokenize"
        assert call(scripted, "POST", path, body)[0] == 400


def test_an_encoder_gives_embeddings(encoder_bundle: Path) -> None:
    texts = ["w5 w17 w33", "w9", "w8 w60 w5 w17 w33 w60"]
    with open_bundle(encoder_bundle) as opened:
        encoder = Encoder(opened)
        expected = encoder.embed(texts)
        ids = encoder.tokenizer.encode("w9")
        context = encoder.context
    with running(encoder_bundle) as server:
        client: OpenAI = server.client()
        found = client.embeddings.create(model="m", input=texts)  # the client asks for base64
        plain = client.embeddings.create(model="m", input="w9", encoding_format="float")
        tokens = client.embeddings.create(model="m", input=[ids])
        with pytest.raises(openai.BadRequestError, match="dimensions"):
            client.embeddings.create(model="m", input="w9", dimensions=3)
        with pytest.raises(openai.BadRequestError, match="truncate"):
            client.embeddings.create(model="m", input="w5 " * 3 * context)
        cut = client.embeddings.create(model="m", input="w5 " * 3 * context, extra_body={"truncate": True})
        with pytest.raises(openai.NotFoundError, match="POST /v1/embeddings"):
            client.chat.completions.create(model="m", messages=QUESTION)
        assert json.loads(call(server, "GET", "/health")[2])["context"] == context
        raw = json.loads(call(server, "POST", "/v1/embeddings", {"input": "w9", "encoding_format": "base64"})[2])
        assert b"edgesdk_embedded_tokens_total" in call(server, "GET", "/metrics")[2]
    assert np.allclose([row.embedding for row in found.data], expected, atol=1e-5)
    assert np.allclose(plain.data[0].embedding, expected[1], atol=1e-5)
    assert np.allclose(tokens.data[0].embedding, expected[1], atol=1e-5)
    assert np.allclose(np.frombuffer(base64.b64decode(raw["data"][0]["embedding"]), "<f4"), expected[1], atol=1e-5)
    assert found.usage.prompt_tokens > 0 and len(cut.data) == 1


@pytest.mark.parametrize(
    "path", [CHAT, "/chat/completions", "//v1//chat/completions", "/v1/v1/chat/completions", CHAT + "/"]
)
def test_paths_with_a_slash_too_many_or_without_the_version_are_meant(scripted: Running, path: str) -> None:
    assert call(scripted, "POST", path, {"messages": QUESTION, "max_tokens": 2})[0] == 200


def test_a_missing_route_says_what_is_served(scripted: Running) -> None:
    for method, path, status in (
        ("POST", "/v1/embeddings", 404),
        ("POST", "/api/chat", 404),
        ("GET", "/", 404),
        ("POST", "/v1/messages", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
    ):
        found, headers, body = call(scripted, method, path)
        assert found == status, path
        assert "POST /v1/chat/completions" in json.loads(body)["error"]["message"]
        assert status != 405 or headers["allow"]
    assert route_path("/v1/models/org/name", ["/v1/models/"]) == "/v1/models/org/name"
    assert route_path("/v1/metrics", ["/metrics"]) == "/metrics"
    assert route_path("/v1/models/", ["/v1/models", "/v1/models/"]) == "/v1/models"


@pytest.mark.parametrize("path", ["/health", "/props", "/v1/models", "/v1/models/default", "/metrics", "/openapi.json"])
def test_head_is_get_without_a_body(scripted: Running, path: str) -> None:
    status, headers, body = call(scripted, "HEAD", path)
    assert (status, body) == (200, b"") and int(headers["content-length"]) > 0
    assert call(scripted, "HEAD", "/nothing")[0] == 404


def secured(folder: Path) -> dict[str, str]:
    (folder / "token").write_text(SECRET)
    (folder / "token").chmod(0o600)
    return {"token_file": str(folder / "token")}


PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
}


def test_with_a_token_a_page_may_ask(bundle: Path, tmp_path: Path) -> None:
    with running(bundle, TEXT, **secured(tmp_path)) as server:
        status, headers, body = call(server, "OPTIONS", CHAT, **PREFLIGHT)
        assert (status, body) == (204, b"") and headers["access-control-allow-origin"] == PAGE
        assert headers["access-control-allow-headers"] == PREFLIGHT["Access-Control-Request-Headers"]
        assert "POST" in headers["access-control-allow-methods"]
        bearer = {"Authorization": f"Bearer {SECRET}", "Origin": PAGE}
        for method, path, sent, expected in (
            ("GET", "/v1/models", bearer, 200),
            ("HEAD", "/v1/models", bearer, 200),
            ("GET", "/v1/models", {"Origin": PAGE}, 401),
            ("GET", "/nothing", bearer, 404),
            ("GET", CHAT, bearer, 405),
            ("GET", "/health", {"Origin": PAGE}, 200),
        ):
            status, headers, _ = call(server, method, path, **sent)
            assert (status, headers["access-control-allow-origin"]) == (expected, PAGE), path
            assert "Origin" in headers["vary"]
        for body in ({"messages": QUESTION}, {"messages": []}, {"messages": QUESTION, "user": "x" * 2_000_000}):
            assert call(server, "POST", CHAT, body, **bearer)[1]["access-control-allow-origin"] == PAGE
        assert "access-control-allow-origin" not in call(server, "GET", "/health")[1]


def test_origins_may_be_named(bundle: Path, tmp_path: Path) -> None:
    other = PREFLIGHT | {"Origin": "https://evil.example"}
    with running(bundle, TEXT, origins=(PAGE,), **secured(tmp_path)) as server:
        assert call(server, "OPTIONS", CHAT, **PREFLIGHT)[0] == 204
        status, headers, _ = call(server, "OPTIONS", CHAT, **other)
        assert status == 403 and "access-control-allow-origin" not in headers
    with running(bundle, TEXT, origins=(PAGE,)) as server:  # without a token, by the loopback's name
        assert call(server, "OPTIONS", CHAT, **PREFLIGHT)[0] == 204
        status, headers, _ = call(server, "POST", CHAT, {"messages": QUESTION}, Origin=PAGE)
        assert (status, headers["access-control-allow-origin"]) == (200, PAGE)
        assert call(server, "OPTIONS", CHAT, **other)[0] == 403
        assert call(server, "POST", CHAT, {"messages": QUESTION}, Origin="https://evil.example")[0] == 403
        assert call(server, "POST", CHAT, {"messages": QUESTION}, Origin=PAGE, Host="evil.example")[0] == 403
    with running(bundle, TEXT) as server:
        status, _, body = call(server, "OPTIONS", CHAT, **PREFLIGHT)
        assert status == 403 and b"--allow-origin" in body
    with running(bundle, TEXT, origins=("*",)) as server:
        assert call(server, "GET", "/v1/models", Origin="null")[1]["access-control-allow-origin"] == "null"
    for wrong in ("localhost:3000", "http://a/b", "http://a b", "", "http://a\n"):
        with pytest.raises(ServeError, match="origins"):
            Settings(origins=(wrong,))


def test_a_connection_is_kept_and_ends_when_it_was_idle(bundle: Path) -> None:
    def idle(seconds: float) -> bool:
        """Whether a connection still answers after so long."""
        connection = http.client.HTTPConnection("127.0.0.1", server.server.listener.getsockname()[1], timeout=PATIENCE)
        try:
            connection.request("GET", "/health")
            connection.getresponse().read()
            time.sleep(seconds)
            connection.request("GET", "/health")
            return connection.getresponse().read() != b""
        except (http.client.RemoteDisconnected, ConnectionError):
            return False
        finally:
            connection.close()

    with running(bundle, TEXT) as server:
        assert server.server.config.timeout_keep_alive == 75
        assert idle(6)
    with running(bundle, TEXT, keep_alive_seconds=1) as server:
        assert not idle(2.5)


def test_16_clients_wait_for_each_other(bundle: Path) -> None:
    with running(bundle, TEXT) as server:
        script = script_of(server)
        script.open.clear()
        found: list[int] = []
        body = {"messages": QUESTION, "max_tokens": 4}
        threads = [
            threading.Thread(target=lambda: found.append(call(server, "POST", CHAT, body)[0])) for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        give_up = time.monotonic() + PATIENCE
        while server.server.engine.waiting < 15 and time.monotonic() < give_up:
            time.sleep(0.01)
        script.open.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert found == [200] * 16


def test_a_wait_that_would_be_too_long_is_refused_at_once(bundle: Path) -> None:
    with running(bundle, TEXT, wait_seconds=1) as server:
        engine, script = server.server.engine, script_of(server)
        engine._seconds = 30.0  # of the answers before
        script.open.clear()
        first = threading.Thread(target=call, args=(server, "POST", CHAT, {"messages": QUESTION}))
        first.start()
        give_up = time.monotonic() + PATIENCE
        while not engine.running and time.monotonic() < give_up:
            time.sleep(0.01)
        status, headers, body = call(server, "POST", CHAT, {"messages": QUESTION})
        assert status == 429 and b"takes about 30 seconds" in body and int(headers["retry-after"]) == 30
        script.open.set()
        first.join(PATIENCE)
        assert engine._seconds < 30


def test_an_answer_of_the_sdk_is_that_of_the_server(bundle: Path) -> None:
    with edgesdk.open_bundle(bundle) as opened:
        expected = edgesdk.Chat(opened).ask("hello", max_tokens=40)
    with running(bundle) as server:
        assert ask(server)["choices"][0]["message"]["content"] == expected
