"""``/v1/responses``: the part of OpenAI's newer API that maps onto a conversation; nothing is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from ...generation import Sampling
from ..asking import Asking, Site, answered, streamed
from ..decoding import Answered, Generation, Piece
from ..errors import documented
from ..prompts import Conversation
from .base import Sampled, Several, event, limit
from .chat import (
    STREAMED,
    AskedMessage,
    Effort,
    PlainFormat,
    Toolless,
    effort_variables,
    finish,
    usage_of,
)

_MOST_ITEMS = 10_000


class InputItem(AskedMessage):
    """A message of the conversation; other items, such as calls of tools, are not served."""

    type: Literal["message"] | None = None


class TextOptions(BaseModel):
    """How the answer is written."""

    format: PlainFormat | None = None


class Reasoning(BaseModel):
    """How long a model thinks, where its chat template has a word for that."""

    effort: Effort | None = None


class ResponseRequest(Toolless):
    """A request of the Responses API."""

    input: str | Annotated[Several[InputItem], Field(min_length=1, max_length=_MOST_ITEMS)]
    instructions: str | None = Field(None, description="a system message before the input")
    max_output_tokens: int | None = Field(None, ge=-1)
    temperature: float | None = Field(None, ge=-1, le=1000, description="0 is greedy; 1 unless given, and below 0")
    top_p: float | None = Field(None, ge=0, le=1, description="0 and 1: all")
    stream: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    background: Literal[False] | None = None
    previous_response_id: None = Field(None, description="nothing is stored: send the whole conversation")

    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return Sampled.model_validate({"temperature": self.temperature, "top_p": self.top_p}).sampling()

    def conversation(self) -> Conversation:
        """The prompt."""
        given = self.input
        messages = [AskedMessage(role="system", content=self.instructions)] if self.instructions else []
        messages += [AskedMessage(role="user", content=given)] if isinstance(given, str) else given
        effort = self.reasoning.effort if self.reasoning else None
        return Conversation([message.plain() for message in messages], effort_variables(effort), "input")


class OutputText(BaseModel):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[None] = []
    logprobs: list[None] = []


class OutputMessage(BaseModel):
    """An answer."""

    type: Literal["message"] = "message"
    id: str
    role: Literal["assistant"] = "assistant"
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class InputDetails(BaseModel):
    """How much of a prompt need not run again."""

    cached_tokens: int


class OutputDetails(BaseModel):
    """Reasoning is not told apart from the rest of an answer."""

    reasoning_tokens: Literal[0] = 0


class ResponseUsage(BaseModel):
    """Tokens of one exchange."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


class Incomplete(BaseModel):
    """Why an answer is not complete."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseObject(BaseModel):
    """A response of the Responses API."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["in_progress", "completed", "incomplete"]
    model: str
    output: list[OutputMessage]
    usage: ResponseUsage | None = None
    incomplete_details: Incomplete | None = None
    error: None = None
    instructions: str | None = None
    metadata: dict[str, str] = {}
    parallel_tool_calls: bool = False
    tool_choice: Literal["none"] = "none"
    tools: list[None] = []
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    previous_response_id: None = None
    store: Literal[False] = False
    text: TextOptions = TextOptions(format=PlainFormat(type="text"))
    truncation: Literal["disabled"] = "disabled"


class ResponseEvent(BaseModel):
    """One event of a stream: what became of the response, of its message or of its text."""

    type: str
    sequence_number: int


class ResponseStatus(ResponseEvent):
    """The whole response as it is now."""

    response: ResponseObject


class ItemEvent(ResponseEvent):
    """The message as it is now."""

    output_index: Literal[0] = 0
    item: OutputMessage


class _OfText(ResponseEvent):
    item_id: str
    output_index: Literal[0] = 0
    content_index: Literal[0] = 0


class PartEvent(_OfText):
    """The text as it is now."""

    part: OutputText


class DeltaEvent(_OfText):
    """More of the text."""

    delta: str
    logprobs: list[None] = []


class TextEvent(_OfText):
    """The whole text."""

    text: str
    logprobs: list[None] = []


def add_responses(router: APIRouter, site: Site) -> None:
    """Serve the Responses API."""

    @router.post(
        "/v1/responses",
        response_model=ResponseObject,
        responses={200: {"content": STREAMED}, **documented(400, 401, 403, 404, 408, 413, 429, 500, 503)},
    )
    async def responses(request: Request, asked: ResponseRequest) -> Response:
        """Answer a conversation, whole or as a stream of server-sent events."""
        site.check_model(asked.model)
        job = partial(
            Generation,
            prompts=[asked.conversation()],
            sampling=asked.sampling(),
            max_tokens=limit(site.settings.max_tokens, asked.max_output_tokens),
        )
        asking, found = Asking(site, request, lambda mine: job(**mine)), _Written(site, asked)
        if asked.stream:
            return await streamed(asking, found.stream)
        return await answered(asking, found.whole)


class _Written:
    """A response as it comes to be."""

    def __init__(self, site: Site, asked: ResponseRequest) -> None:
        shared = site.completion("resp_")
        self._response = ResponseObject(
            id=shared["id"],
            created_at=shared["created"],
            status="in_progress",
            model=shared["model"],
            output=[],
            instructions=asked.instructions,
            temperature=asked.temperature,
            top_p=asked.top_p,
            max_output_tokens=asked.max_output_tokens,
        )
        self._item = site.completion("msg_")["id"]
        self._number = -1

    def whole(self, events: list[Any]) -> Response:
        """The response when all is known."""
        text = "".join(found.text for found in events if isinstance(found, Piece))
        (end,) = (found for found in events if isinstance(found, Answered))
        return Response(self._ended(text, end).model_dump_json(), media_type="application/json")

    async def stream(self, events: AsyncIterator[Any]) -> AsyncIterator[str]:
        """The response as events."""
        for kind in ("response.created", "response.in_progress"):
            yield self._event(ResponseStatus, kind, response=self._response)
        yield self._event(ItemEvent, "response.output_item.added", item=self._message("in_progress"))
        yield self._text(PartEvent, "response.content_part.added", part=OutputText(text=""))
        text, end = "", None
        async for found in events:
            match found:
                case Piece(_, piece):
                    text += piece
                    yield self._text(DeltaEvent, "response.output_text.delta", delta=piece)
                case Answered():
                    end = found
        assert end is not None
        ended = self._ended(text, end)
        yield self._text(TextEvent, "response.output_text.done", text=text)
        yield self._text(PartEvent, "response.content_part.done", part=OutputText(text=text))
        yield self._event(ItemEvent, "response.output_item.done", item=ended.output[0])
        yield self._event(ResponseStatus, f"response.{ended.status}", response=ended)

    def _event(self, kind: type[ResponseEvent], name: str, **said: Any) -> str:
        self._number += 1
        return event(kind(type=name, sequence_number=self._number, **said), name)

    def _text(self, kind: type[_OfText], name: str, **said: Any) -> str:
        return self._event(kind, name, item_id=self._item, **said)

    def _message(self, status: Literal["in_progress", "completed", "incomplete"], *texts: str) -> OutputMessage:
        return OutputMessage(id=self._item, status=status, content=[OutputText(text=text) for text in texts])

    def _ended(self, text: str, end: Answered) -> ResponseObject:
        usage = usage_of([end])
        whole = finish(end) == "stop"
        return self._response.model_copy(
            update={
                "status": "completed" if whole else "incomplete",
                "incomplete_details": None if whole else Incomplete(),
                "output": [self._message("completed" if whole else "incomplete", text)],
                "usage": ResponseUsage(
                    input_tokens=usage.prompt_tokens,
                    input_tokens_details=InputDetails(cached_tokens=usage.prompt_tokens_details.cached_tokens),
                    output_tokens=usage.completion_tokens,
                    total_tokens=usage.total_tokens,
                ),
            }
        )
