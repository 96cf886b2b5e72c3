"""Python's clients at work: ``in_python.py CHAT EMBEDDINGS`` tries each and prints one JSON line a trial.

It runs in an environment of its own (``install.sh``) and knows nothing of edgesdk. ``CHAT`` and ``EMBEDDINGS`` are the
addresses of two servers, up to and with ``/v1``.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable
from typing import Any

import instructor
import litellm
import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

CHAT, EMBEDDINGS = sys.argv[1:3]
KEY, MODEL, TURNS = "none", "gpt-4o-mini", 20
ASKED: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hi."}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}},
}
litellm.suppress_debug_info = True


class Named(BaseModel):
    """What a structured answer has."""

    name: str


def tried(client: str, case: str, work: Callable[[], Any]) -> None:
    try:
        said, fine = work(), True
    except Exception as failure:
        said, fine = f"{type(failure).__name__}: {failure}", False
    version = importlib.metadata.version(client)
    print(
        json.dumps({"client": f"{client} {version}", "case": case, "fine": fine, "said": str(said)[:300]}), flush=True
    )


def openai_python() -> None:
    client = openai.OpenAI(base_url=CHAT, api_key=KEY, max_retries=0)
    create = client.chat.completions.create

    def turns(kept: Callable[[Any], Any]) -> int:
        messages = list(ASKED)
        for number in range(TURNS):
            answer = create(model=MODEL, messages=messages, max_tokens=4).choices[0].message
            messages += [kept(answer), {"role": "user", "content": f"{number}?"}]
        return len(messages)

    def streamed() -> int:
        chunks = list(
            create(model=MODEL, messages=ASKED, max_tokens=6, stream=True, stream_options={"include_usage": True})
        )
        return chunks[-1].usage.total_tokens  # type: ignore[union-attr]

    def helped() -> int:
        with client.chat.completions.stream(model=MODEL, messages=ASKED, max_tokens=6) as stream:
            return sum(1 for _ in stream)

    def response() -> int:
        first = client.responses.create(model=MODEL, input="Say hi.", instructions="Be brief.", max_output_tokens=4)
        again: list[Any] = [{"role": "user", "content": "Say hi."}, *first.output, {"role": "user", "content": "More."}]
        events = list(client.responses.create(model=MODEL, input=again, max_output_tokens=4, stream=True))
        return len(events)

    name = "openai"
    tried(name, "chat", lambda: create(model=MODEL, messages=ASKED, max_tokens=4).choices[0].message.content)
    tried(name, "stream", lambda: (streamed(), helped()))
    tried(
        name,
        "20 turns",
        lambda: (turns(lambda it: it), turns(lambda it: it.model_dump()), turns(lambda it: it.to_dict())),
    )
    tried(name, "max_tokens 32000", lambda: create(model=MODEL, messages=ASKED, max_tokens=32000, stop=["e"]).id)
    tried(
        name,
        "n, logprobs",
        lambda: (
            create(model=MODEL, messages=ASKED, max_tokens=4, n=2, logprobs=True).choices[1].logprobs.content[0].logprob
        ),
    )  # type: ignore
    tried(
        name, "completions", lambda: client.completions.create(model=MODEL, prompt="Once", max_tokens=4).choices[0].text
    )
    tried(name, "responses", response)
    tried(
        name,
        "embeddings",
        lambda: len(
            openai.OpenAI(base_url=EMBEDDINGS, api_key=KEY)
            .embeddings.create(model=MODEL, input=["w5", "w9"])
            .data[1]
            .embedding
        ),
    )
    tried(
        name,
        "structured",
        lambda: (
            client.chat.completions.parse(model=MODEL, messages=ASKED, max_tokens=4, response_format=Named)
            .choices[0]
            .message.parsed
        ),
    )
    tried(name, "tools offered", lambda: create(model=MODEL, messages=ASKED, max_tokens=4, tools=[TOOL]))  # type: ignore


def langchain() -> None:
    def model(**options: Any) -> ChatOpenAI:
        return ChatOpenAI(base_url=CHAT, api_key=KEY, model=MODEL, max_retries=0, **{"max_tokens": 4} | options)  # type: ignore

    def turns() -> int:
        messages: list[Any] = [SystemMessage("Be brief."), HumanMessage("hi", name="bob"), AIMessage("yo", name="bot")]
        for number in range(TURNS):
            messages += [HumanMessage(f"{number}?")]
            messages += [model().invoke(messages)]
        return len(messages)

    vectors = OpenAIEmbeddings(base_url=EMBEDDINGS, api_key=KEY, model=MODEL, check_embedding_ctx_length=False)  # type: ignore
    name = "langchain-openai"
    tried(name, "chat", lambda: model(seed=1, top_p=0.9, frequency_penalty=0.5, n=1).invoke("hi").content)
    tried(name, "stream", lambda: [chunk.content for chunk in model(stream_usage=True).stream("hi")])
    tried(name, "20 turns", turns)
    tried(name, "max_tokens 32000", lambda: model(max_tokens=32000, stop=["e"]).invoke("hi").content)
    tried(
        name,
        "n, logprobs",
        lambda: model(logprobs=True, top_logprobs=2).invoke("hi").response_metadata["logprobs"]["content"][0],
    )
    tried(name, "responses", lambda: model(use_responses_api=True).invoke("hi").content)
    tried(name, "embeddings", lambda: len(vectors.embed_documents(["w5", "w9"])[1]))
    tried(name, "structured", lambda: model().with_structured_output(Named).invoke("hi"))
    tried(name, "tools offered", lambda: model().bind_tools([TOOL]).invoke("hi"))


def lite_llm() -> None:
    def ask(messages: list[Any], provider: str = "openai", **options: Any) -> Any:
        options = {"max_tokens": 4} | options
        return litellm.completion(model=f"{provider}/{MODEL}", api_base=CHAT, api_key=KEY, messages=messages, **options)

    def turns(kept: Callable[[Any], Any]) -> int:
        messages = list(ASKED)
        for number in range(TURNS):
            messages += [kept(ask(messages).choices[0].message), {"role": "user", "content": f"{number}?"}]
        return len(messages)

    name = "litellm"
    tried(
        name,
        "chat",
        lambda: [ask(ASKED, provider).choices[0].message.content for provider in ("openai", "hosted_vllm")],
    )
    tried(name, "stream", lambda: [chunk.choices[0].delta.content for chunk in ask(ASKED, stream=True)])
    tried(name, "20 turns", lambda: (turns(lambda it: it), turns(lambda it: it.model_dump())))
    tried(name, "max_tokens 32000", lambda: ask(ASKED, max_tokens=32000, stop=["e"]).id)
    tried(name, "n, logprobs", lambda: ask(ASKED, n=2, logprobs=True).choices[1].logprobs)
    tried(
        name,
        "completions",
        lambda: (
            litellm.text_completion(
                model=f"text-completion-openai/{MODEL}", api_base=CHAT, api_key=KEY, prompt="Once", max_tokens=4
            )
            .choices[0]
            .text
        ),
    )
    tried(
        name,
        "responses",
        lambda: (
            litellm.responses(model=f"openai/{MODEL}", api_base=CHAT, api_key=KEY, input="hi", max_output_tokens=4).id
        ),
    )
    tried(
        name,
        "embeddings",
        lambda: len(
            litellm.embedding(model=f"openai/{MODEL}", api_base=EMBEDDINGS, api_key=KEY, input=["w5", "w9"]).data[1][
                "embedding"
            ]
        ),
    )
    tried(name, "structured", lambda: ask(ASKED, response_format=Named))
    tried(name, "tools offered", lambda: ask(ASKED, tools=[TOOL]))


def with_instructor() -> None:
    client = openai.OpenAI(base_url=CHAT, api_key=KEY, max_retries=0)

    def asked(mode: Any) -> Any:
        """What its request comes to: the answer of a random model is no JSON, which it says after a good response."""
        try:
            return instructor.from_openai(client, mode=mode).chat.completions.create(
                model=MODEL, messages=ASKED, response_model=Named, max_tokens=20, max_retries=1
            )
        except Exception as failure:
            if "BadRequest" in repr(failure) or "400" in str(failure):
                raise
            return "an answer that is no JSON"

    tried("instructor", "chat", lambda: asked(instructor.Mode.MD_JSON))
    tried("instructor", "structured", lambda: (asked(instructor.Mode.TOOLS), asked(instructor.Mode.JSON)))


if __name__ == "__main__":
    openai_python()
    langchain()
    lite_llm()
    with_instructor()
