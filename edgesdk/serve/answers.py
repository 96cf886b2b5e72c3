"""One request on its way through the engine: waiting, streaming or whole, and given up when its client goes away."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.requests import Request

from ..errors import EdgeError
from .engine import BusyError, Ended, Engine, Event, Failed, Job, Piece, PromptError, Started, StoppingError
from .errors import ApiError, error_body
from .messages import (
    AnswerMessage,
    CachedTokens,
    ChatChunk,
    ChatRequest,
    ChatResponse,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
    Usage,
)

if TYPE_CHECKING:
    from .metrics import Metrics

T = TypeVar("T")


class GoneError(Exception):
    """The client went away."""


def refuse_when_full(engine: Engine) -> None:
    """Refuse a request before any work for it, even before its body is read.

    Raises:
        ApiError: the queue is full, or the server is stopping.
    """
    try:
        engine.refuse()
    except EdgeError as refused:
        raise _api_error(refused) from None


class Answer:
    """One answer; :meth:`begin` comes first, then :meth:`whole` or :meth:`stream`.

    However it ends, its place in the engine is free then.
    """

    def __init__(
        self, engine: Engine, metrics: Metrics, asked: ChatRequest, user: str, limit: int, names: tuple[str, str]
    ) -> None:
        self._engine, self._metrics = engine, metrics
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        messages = [message.plain() for message in asked.messages]
        self._job = Job(messages, user, asked.sampling(), limit, asked.stops(), self._emit)
        options = asked.stream_options
        self._with_usage = bool(options and options.include_usage)
        model, fingerprint = names
        self._shared: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    async def begin(self, request: Request, seconds: float) -> None:
        """Wait until it is this request's turn.

        Raises:
            ApiError: the messages make no prompt, the queue is full, the wait was too long, or the server is stopping.
            GoneError: the client went away.
        """
        try:
            self._engine.submit(self._job)
            async with asyncio.timeout(seconds):
                event = await unless_gone(request, self._events.get())
        except TimeoutError:
            self._engine.cancel(self._job)
            raise _api_error(self._engine.too_long(self._job)) from None
        except EdgeError as refused:
            raise _api_error(refused) from None
        except BaseException:
            self._give_up()
            raise
        if isinstance(event, Failed):
            raise _api_error(event.error)
        assert isinstance(event, Started)
        self._metrics.started(event)

    async def whole(self, request: Request) -> ChatResponse:
        """The answer, when it is complete.

        Raises:
            ApiError: it could not be completed.
            GoneError: the client went away.
        """
        try:
            text, ended = await unless_gone(request, self._collected())
        except GoneError:
            self._give_up()
            raise
        choice = Choice(message=AnswerMessage(content=text), finish_reason=_finish(ended))
        return ChatResponse(**self._shared, choices=[choice], usage=self._usage(ended))

    async def stream(self) -> AsyncIterator[str]:
        """The answer as server-sent events; a failure is the last of them."""
        complete = False
        try:
            yield self._event(Delta(role="assistant", content=""))
            while True:
                match await self._events.get():
                    case Piece(text):
                        yield self._event(Delta(content=text))
                    case Ended() as ended:
                        complete = True
                        self._metrics.ended(ended)
                        yield self._event(Delta(), _finish(ended))
                        if self._with_usage:
                            yield _line(ChatChunk(**self._shared, choices=[], usage=self._usage(ended)))
                        yield "data: [DONE]\n\n"
                        return
                    case Failed(error):
                        complete = True
                        failed = _api_error(error)
                        yield f"data: {_json(error_body(failed.detail))}\n\n"
                        return
        finally:
            if not complete:
                self._give_up()

    async def _collected(self) -> tuple[str, Ended]:
        text = ""
        while True:
            match await self._events.get():
                case Piece(piece):
                    text += piece
                case Ended() as ended:
                    self._metrics.ended(ended)
                    return text, ended
                case Failed(error):
                    raise _api_error(error)

    def _emit(self, event: Event) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def _give_up(self) -> None:
        self._engine.cancel(self._job)
        self._metrics.gone()

    def _event(self, delta: Delta, finish: FinishReason | None = None) -> str:
        return _line(ChatChunk(**self._shared, choices=[ChunkChoice(delta=delta, finish_reason=finish)]))

    def _usage(self, ended: Ended) -> Usage:
        new = len(ended.statistics.tokens)
        prompt = ended.statistics.prompt_tokens + ended.reused
        details = CachedTokens(cached_tokens=ended.reused)
        return Usage(
            prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new, prompt_tokens_details=details
        )


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns, unless the client goes away before.

    Raises:
        GoneError: it did; ``work`` was cancelled.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise GoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _api_error(error: EdgeError) -> ApiError:
    match error:
        case BusyError():
            kind = "rate_limit_error"
            return ApiError(429, error.message, kind=kind, code="busy", retry_after=error.retry_after)
        case PromptError():
            return ApiError(400, error.message, param="messages", code=error.code)
        case StoppingError():
            return ApiError(503, error.message, kind="server_error", code="stopping")
        case _:
            return ApiError(500, error.message, kind="server_error")


def _finish(ended: Ended) -> FinishReason:
    return "stop" if ended.statistics.reason == "stop" else "length"  # a full context too


def _line(chunk: ChatChunk) -> str:
    return f"data: {chunk.model_dump_json(exclude_unset=False)}\n\n"


def _json(data: Any) -> str:
    import json

    return json.dumps(data, ensure_ascii=False)
