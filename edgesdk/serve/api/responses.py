"""``/v1/responses``: the part of OpenAI's newer API that maps onto a conversation.

Answers are kept in memory for a while, so that a request may go on from one by its id; ``store: false`` keeps nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from ...generation import Sampling
from ...model.tokenizer import Message, Tokenizer
from ..asking import Asking, Site, answered, streamed
from ..decoding import Answered, Generation, Piece
from ..errors import documented
from ..kept import Kept
from ..limits import USER
from ..prompts import Conversation
from .base import Flag, Number, Sampled, Several, Whole, event, limit
from .chat import (
    STREAMED,
    AskedMessage,
    Effort,
    PlainFormat,
    WithTools,
    effort_variables,
    finish,
    usage_of,
)

_MOST_ITEMS = 10_000


class InputItem(AskedMessage):
    """A message of the conversation; other items, such as calls of tools, are not served."""

    type: Literal["message"] | None = None


class Reference(BaseModel):
    """An answer of before, by its id."""

    type: Literal["item_reference"]
    id: str = Field(max_length=200)


class TextOptions(BaseModel):
    """How the answer is written."""

    format: PlainFormat | None = None


class Reasoning(BaseModel):
    """How long a model thinks, where its chat template has a word for that."""

    effort: Effort | None = None


class ResponseRequest(WithTools):
    """A request of the Responses API."""

    input: str | Annotated[Several[Reference | InputItem], Field(min_length=1, max_length=_MOST_ITEMS)]
    instructions: str | None = Field(None, description="a system message before the input")
    max_output_tokens: Whole | None = Field(None, ge=-1)
    temperature: Number | None = Field(None, ge=-1, le=1000, description="0 is greedy; 1 unless given, and below 0")
    top_p: Number | None = Field(None, ge=0, le=1, description="0 and 1: all")
    stream: Flag | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    background: Literal[False] | None = None
    store: Flag | None = Field(None, description="whether the answer is kept for a while; true unless given")
    previous_response_id: str | None = Field(
        None, max_length=200, description="of an answer that this one goes on from"
    )

    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return Sampled.model_validate({"temperature": self.temperature, "top_p": self.top_p}).sampling()

    def messages(self, kept: Callable[[str, str], Sequence[Message]]) -> list[Message]:
        """The conversation without instructions; ``kept`` gives messages of before by id and the parameter's name.

        Raises:
            ApiError: messages of before are not here any more.
        """
        before = kept(self.previous_response_id, "previous_response_id") if self.previous_response_id else ()
        if isinstance(self.input, str):
            return [*before, {"role": "user", "content": self.input}]
        items = [kept(item.id, "input") if isinstance(item, Reference) else [item.plain()] for item in self.input]
        return [*before, *(message for messages in items for message in messages)]


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
    previous_response_id: str | None = None
    store: bool
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


def add_responses(router: APIRouter, site: Site, tokenizer: Tokenizer) -> None:
    """Serve the Responses API."""
    kept = Kept()

    @router.post(
        "/v1/responses",
        response_model=ResponseObject,
        responses={200: {"content": STREAMED}, **documented(400, 401, 403, 404, 408, 413, 429, 500, 503)},
    )
    async def responses(request: Request, asked: ResponseRequest) -> Response:
        """Answer a conversation, whole or as a stream of server-sent events."""
        site.check_model(asked.model)
        asked.check_tools(tokenizer)
        owner = _owner(request)
        messages = asked.messages(partial(kept.get, owner))
        instructions: list[Message] = [{"role": "system", "content": asked.instructions}] if asked.instructions else []
        effort = asked.reasoning.effort if asked.reasoning else None
        prompt = Conversation([*instructions, *messages], effort_variables(effort), "input")

        def keep(response: str, item: str, text: str) -> None:
            answer: Message = {"role": "assistant", "content": text}
            if asked.store is not False:
                kept.add(owner, item, [answer])
                kept.add(owner, response, [*messages, answer])

        job = partial(
            Generation,
            prompts=[prompt],
            sampling=asked.sampling(),
            max_tokens=limit(site.settings.max_tokens, asked.max_output_tokens),
        )
        asking, found = Asking(site, request, lambda mine: job(**mine)), _Written(site, asked, keep)
        if asked.stream:
            return await streamed(asking, found.stream)
        return await answered(asking, found.whole)


def _owner(request: Request) -> str:
    """Who may refer to an answer: the user of its token; without tokens whoever was told its id, on any connection."""
    user = str(request.scope[USER])
    return user if user.startswith("token ") else ""


class _Written:
    """A response as it comes to be; ``keep`` is told its ids and its text when it is complete."""

    def __init__(self, site: Site, asked: ResponseRequest, keep: Callable[[str, str, str], None]) -> None:
        self._keep = keep
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
            previous_response_id=asked.previous_response_id,
            store=asked.store is not False,
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
        self._keep(self._response.id, self._item, text)
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
