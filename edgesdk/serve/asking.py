"""One request on its way through the engine: waiting, at work, complete, and given up when its client goes away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..errors import EdgeError
from .engine import BusyError, Ended, Engine, Failed, Job, Started, StoppingError
from .errors import ApiError, error_body
from .limits import USER
from .prompts import PromptError

if TYPE_CHECKING:
    from .metrics import Metrics
    from .settings import Settings

T = TypeVar("T")
_GONE = 499  # what nginx writes into its log of clients that went away
STREAM = "text/event-stream"


class GoneError(Exception):
    """The client went away."""


@dataclass(frozen=True)
class Served:
    """What a server serves.

    Attributes:
        name: the model's id.
        digest: of the bundle.
        created: when the server started, in seconds since 1970.
        providers: what runs the program.
    """

    name: str
    digest: str
    created: int
    providers: tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """What every route has."""

    engine: Engine
    metrics: Metrics
    served: Served
    settings: Settings

    def check_model(self, asked: str | None) -> None:
        """Refuse another model's name where the server is strict.

        Raises:
            ApiError: it is, and it was asked for another one.
        """
        if self.settings.strict_model and asked and asked not in (self.served.name, "default"):
            raise ApiError(
                404,
                f"model: there is no such model here; there is '{self.served.name}'",
                param="model",
                code="model_not_found",
            )

    def completion(self, prefix: str) -> dict[str, Any]:
        """What an answer says of itself; the beginning of its id tells the route."""
        return {
            "id": f"{prefix}{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self.served.name,
            "system_fingerprint": f"edgesdk-{self.served.digest[:12]}",
        }


def refuse_when_full(engine: Engine) -> None:
    """Refuse a request before any work for it, even before its body is read.

    Raises:
        ApiError: the queue is full, or the server is stopping.
    """
    try:
        engine.refuse()
    except EdgeError as refused:
        raise api_error(refused) from None


class Asking:
    """One job; :meth:`begin` comes first, then :meth:`events` to their end.

    However it ends, its place in the engine is free then.
    """

    def __init__(self, site: Site, request: Request, job: Callable[[Mapping[str, Any]], Job]) -> None:
        """Prepare a job; ``job`` makes it of whose it is and where its events go."""
        self._site, self._request = site, request
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._job = job({"user": request.scope[USER], "emit": self._emit})
        self._complete = False

    async def begin(self) -> None:
        """Wait until it is this request's turn.

        Raises:
            ApiError: it is none for this model, there is no place, the wait was too long, or the server is stopping.
            GoneError: the client went away.
        """
        engine = self._site.engine
        try:
            engine.submit(self._job)
            with anyio.fail_after(self._site.settings.wait_seconds):
                event = await self._unless_gone(self._events.get())
        except TimeoutError:
            engine.cancel(self._job)
            raise api_error(engine.too_long(self._job)) from None
        except EdgeError as refused:
            raise api_error(refused) from None
        except BaseException:
            self._give_up()
            raise
        if isinstance(event, Failed):
            raise api_error(event.error)
        assert isinstance(event, Started)
        self._site.metrics.started(event)

    async def events(self) -> AsyncIterator[Any]:
        """What the job emits, until it ended.

        Raises:
            ApiError: it could not be completed.
        """
        try:
            while True:
                event = await self._events.get()
                if isinstance(event, Ended | Failed):
                    self._complete = True
                    if isinstance(event, Failed):
                        raise api_error(event.error)
                    return
                self._site.metrics.count(event)
                yield event
        finally:
            if not self._complete:
                self._give_up()

    async def all_events(self) -> list[Any]:
        """What the job emits, when it is complete.

        Raises:
            ApiError: it could not be completed.
            GoneError: the client went away.
        """

        async def collected() -> list[Any]:
            return [event async for event in self.events()]

        return await self._unless_gone(collected())

    def _emit(self, event: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def _give_up(self) -> None:
        self._site.engine.cancel(self._job)
        self._site.metrics.gone()

    async def _unless_gone(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns, unless the client goes away before."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_disconnected(self._request))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise GoneError
            return task.result()
        finally:
            task.cancel()
            gone.cancel()


async def answered(asking: Asking, whole: Callable[[list[Any]], Response]) -> Response:
    """The response to a request, when its job is complete."""
    try:
        await asking.begin()
        return whole(await asking.all_events())
    except GoneError:
        return Response(status_code=_GONE)


async def streamed(asking: Asking, lines: Callable[[AsyncIterator[Any]], AsyncIterator[str]]) -> Response:
    """The response to a request as server-sent events; a failure is the last of them."""

    async def stream() -> AsyncIterator[str]:
        events = asking.events()
        written = lines(events)
        try:
            async for line in written:
                yield line
        except ApiError as failed:
            yield f"data: {json.dumps(error_body(failed.detail), ensure_ascii=False)}\n\n"
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    try:
        await asking.begin()
    except GoneError:
        return Response(status_code=_GONE)
    return StreamingResponse(stream(), media_type=STREAM, headers={"Cache-Control": "no-cache"})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def api_error(error: EdgeError) -> ApiError:
    """An error as a client gets it."""
    match error:
        case BusyError():
            kind = "rate_limit_error"
            return ApiError(429, error.message, kind=kind, code="busy", retry_after=error.retry_after)
        case PromptError():
            return ApiError(400, error.message, param=error.param, code=error.code)
        case StoppingError():
            return ApiError(503, error.message, kind="server_error", code="stopping")
        case _:
            return ApiError(500, error.message, kind="server_error")
