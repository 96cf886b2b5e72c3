"""``/v1/chat/completions``: a conversation becomes its next message, whole or as a stream."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ...model.chat_template import Variable
from ...model.tokenizer import Message, Tokenizer
from ..asking import Asking, Site, answered, streamed
from ..decoding import Answered, Generation, Likelihood, Piece, Written
from ..errors import ApiError, documented
from ..prompts import Conversation
from .base import (
    DONE,
    CachedTokens,
    Completion,
    FinishReason,
    Flag,
    Named,
    Number,
    Sampled,
    Several,
    StreamOptions,
    Usage,
    Whole,
    event,
    limit,
)

_MOST_MESSAGES = 10_000
_MOST_PARTS = 1000  # of a message
_EVENTS = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
STREAMED = {"text/event-stream": {"schema": _EVENTS}}
_MOST_TOOLS = 1000
_TOOLS = re.compile(r"\btools\b")
_NO_CALLS: dict[str, Any] = {"enum": [None, []], "description": "calls of tools are not served"}
TextKind = Literal["text", "input_text", "output_text"]


class TextPart(BaseModel):
    """A part of a message; there are no others than text. What else it says, such as ``cache_control``, is not read."""

    type: TextKind
    text: str


class AskedMessage(BaseModel):
    """One message of a conversation. Keys that are not named here, such as ``name``, are not read."""

    model_config = ConfigDict(json_schema_extra=lambda schema: schema["properties"].update(tool_calls=_NO_CALLS))

    role: Literal["system", "developer", "user", "assistant"] = Field(description="developer is taken as system")
    content: str | Annotated[Several[TextPart | str], Field(max_length=_MOST_PARTS)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_calls(cls, data: Any) -> Any:
        if isinstance(data, dict) and (data.get("tool_calls") or data.get("function_call")):
            raise ValueError("calls of tools are not served here: replay the conversation without them")
        return data

    @field_validator("content", mode="before")
    @classmethod
    def _refuse_other_parts(cls, content: Any) -> Any:
        parts = content if isinstance(content, list) else []
        kinds = [part.get("type") for part in parts if isinstance(part, dict)]
        if others := [kind for kind in kinds if kind not in get_args(TextKind)]:
            raise ValueError(f"parts of type '{others[0]}' are not served here, only text")
        return content

    def plain(self) -> Message:
        """As chat templates take it."""
        return {"role": "system" if self.role == "developer" else self.role, "content": plain_text(self.content)}


def plain_text(content: str | list[TextPart | str] | None) -> str:
    """The text of a message's content."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part if isinstance(part, str) else part.text for part in content)


class PlainFormat(BaseModel):
    """The only format of answers."""

    type: Literal["text"]


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


def effort_variables(effort: Effort | None) -> dict[str, Variable]:
    """The variables by which templates are told how long to think."""
    variables: dict[str, Variable] = {} if effort is None else {"reasoning_effort": effort}
    if effort == "none":
        variables["enable_thinking"] = False
    return variables


VariableName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class WithTools(Named):
    """A request that may offer tools, of which a model knows nothing whose chat template does not read them."""

    tool_choice: Literal["none", "auto"] | None = Field(None, description="calls of tools are not served")
    tools: Annotated[Several[dict[str, Any]], Field(max_length=_MOST_TOOLS)] | None = Field(
        None, description="taken where the chat template does not read them, or tool_choice is none: then nothing does"
    )

    def check_tools(self, tokenizer: Tokenizer) -> None:
        """Refuse tools that the model would be told of: the calls in its answers would be plain text.

        Raises:
            ApiError: the chat template reads them.
        """
        if self.tools and self.tool_choice != "none" and _TOOLS.search(tokenizer.chat_template or ""):
            raise ApiError(
                400,
                "tools: this model's chat template tells it of tools, and its calls are not served here: send none, or "
                "tool_choice none",
                param="tools",
                code="unsupported_value",
            )


class ChatRequest(Sampled, WithTools):
    """A chat completion request."""

    messages: Several[AskedMessage] = Field(min_length=1, max_length=_MOST_MESSAGES)
    stream_options: StreamOptions | None = None
    max_tokens: Whole | None = Field(None, ge=-1, description="-1 and 0: as many as the server lets answers have")
    max_completion_tokens: Whole | None = Field(None, ge=-1, description="the newer name of max_tokens")
    n_predict: Whole | None = Field(None, ge=-1, description="llama.cpp's name of max_tokens")
    logprobs: Flag | None = None
    top_logprobs: Whole | None = Field(None, ge=-1, le=20)
    response_format: PlainFormat | None = None
    reasoning_effort: Effort | None = Field(None, description="a variable of the chat template, where it reads it")
    chat_template_kwargs: dict[VariableName, Flag | Whole | Number | Effort | None] | None = Field(
        None, description="variables of the chat template, such as enable_thinking"
    )

    def conversation(self) -> Conversation:
        """The prompt."""
        given = {name: value for name, value in (self.chat_template_kwargs or {}).items() if value is not None}
        return Conversation(
            [message.plain() for message in self.messages], effort_variables(self.reasoning_effort) | given
        )


class TopLogprob(BaseModel):
    """A token that could have come."""

    token: str
    logprob: float
    bytes: list[int] = Field(description="of its text in UTF-8, of which it may be a part of a character")


class TokenLogprob(TopLogprob):
    """A token of the answer."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """The tokens of an answer, or of a part of it, as the model saw them before temperature and penalties."""

    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """One answer of a response."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: FinishReason


class ChatResponse(Completion):
    """Whole answers."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[Choice]
    usage: Usage


class Delta(BaseModel):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """One answer of a stream."""

    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None


class ChatChunk(Completion):
    """One event of a stream."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice]
    usage: Usage | None = None


def add_chat(router: APIRouter, site: Site, tokenizer: Tokenizer) -> None:
    """Serve conversations."""

    @router.post(
        "/v1/chat/completions",
        response_model=ChatResponse,
        responses={200: {"content": STREAMED}, **documented(400, 401, 403, 404, 408, 413, 429, 500, 503)},
    )
    async def chat_completions(request: Request, asked: ChatRequest) -> Response:
        """Answer a conversation, whole or as a stream of server-sent events."""
        site.check_model(asked.model)
        asked.check_tools(tokenizer)
        most = limit(site.settings.max_tokens, asked.max_completion_tokens, asked.max_tokens, asked.n_predict)
        job = partial(
            Generation,
            prompts=[asked.conversation()],
            sampling=asked.sampling(),
            max_tokens=most,
            stop=asked.stops(),
            choices=asked.choices,
            logprobs=max(0, asked.top_logprobs or 0) if asked.logprobs else None,
        )
        asking, shared = Asking(site, request, lambda mine: job(**mine)), site.completion("chatcmpl-")
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return await streamed(asking, lambda events: _chunks(events, shared, asked.choices, usage))
        return await answered(asking, lambda events: _whole(events, shared))


def _whole(events: list[Any], shared: dict[str, Any]) -> Response:
    ends = [found for found in events if isinstance(found, Answered)]
    choices = []
    for end in ends:
        pieces = [piece for piece in events if isinstance(piece, Piece) and piece.index == end.index]
        message = AnswerMessage(content="".join(piece.text for piece in pieces))
        likely = _logprobs([each for piece in pieces for each in piece.likelihoods])
        choices.append(Choice(index=end.index, message=message, logprobs=likely, finish_reason=finish(end)))
    found = ChatResponse(**shared, choices=choices, usage=usage_of(ends))
    return Response(found.model_dump_json(), media_type="application/json")


async def _chunks(
    events: AsyncIterator[Any], shared: dict[str, Any], choices: int, with_usage: bool
) -> AsyncIterator[str]:
    def chunk(index: int, delta: Delta, finish: FinishReason | None = None, likely: Logprobs | None = None) -> str:
        choice = ChunkChoice(index=index, delta=delta, finish_reason=finish, logprobs=likely)
        return event(ChatChunk(**shared, choices=[choice]))

    for index in range(choices):
        yield chunk(index, Delta(role="assistant", content=""))
    ends = []
    async for found in events:
        match found:
            case Piece(index, text, likely):
                yield chunk(index, Delta(content=text), likely=_logprobs(likely))
            case Answered(index) as end:
                ends.append(end)
                yield chunk(index, Delta(), finish(end))
    if with_usage:
        yield event(ChatChunk(**shared, choices=[], usage=usage_of(ends)))
    yield DONE


def _logprobs(likely: list[Likelihood] | tuple[Likelihood, ...]) -> Logprobs | None:
    if not likely:
        return None
    content = [
        TokenLogprob(
            **_named(each.token),
            logprob=each.logprob,
            top_logprobs=[TopLogprob(**_named(token), logprob=value) for token, value in each.top],
        )
        for each in likely
    ]
    return Logprobs(content=content)


def _named(token: Written) -> dict[str, Any]:
    return {"token": token.text, "bytes": list(token.data)}


def finish(end: Answered) -> FinishReason:
    """Why an answer ended; a full context is a limit too."""
    return "stop" if end.statistics.reason == "stop" else "length"


def usage_of(ends: list[Answered], choices: int | None = None) -> Usage:
    """The tokens of a request: each prompt counts once.

    Args:
        ends: of its answers.
        choices: how many answers there are of a prompt; None: they are all of one.
    """
    firsts = ends[:: choices or max(1, len(ends))]
    prompt = sum(end.statistics.prompt_tokens + end.reused for end in firsts)
    new = sum(len(end.statistics.tokens) for end in ends)
    details = CachedTokens(cached_tokens=sum(end.reused for end in firsts))
    return Usage(prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new, prompt_tokens_details=details)
