"""What stands before the routes: whose request it is, web pages, bodies of a bounded size, the count of responses."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .connections import CONNECTION
from .errors import ApiError
from .pages import Pages, header
from .paths import route_path

_BODY_SECONDS = 30.0
_AT_A_TIME = 8  # requests for something small: with more, each would wait for all others at every step
_MOST_BODIES = 16  # of the largest size that the server holds at a time
_READ_ON = 4  # so many times the largest body are read, and thrown away, for a client to hear that it is too large
OPEN = ("/health",)  # what needs no token: it tells a load balancer or a supervisor that the server lives
#: Under this key of a request's scope stands whose it is.
USER = "edgesdk.user"


@dataclass
class _Body:
    """A body as it comes in; one that is not wanted any more is read to its end, so that its client hears why."""

    data: bytearray = field(default_factory=bytearray)
    size: int = 0
    refused: ApiError | None = None


class Limits:
    """Reads a request's body whole before anything sees it, and refuses what is too large, too slow or not allowed.

    Whose a request is follows from its token. Without tokens, which is so on the loopback only, each connection counts
    as a user of its own. HEAD is answered as GET, without the body.
    """

    def __init__(
        self,
        app: ASGIApp,
        body: int,
        tokens: Sequence[str],
        pages: Pages,
        paths: Collection[str],
        responded: Callable[[str, int], None],
        refuse: Callable[[], None],
    ) -> None:
        """Stand before an application.

        Args:
            app: the application.
            body: largest body, in bytes.
            tokens: of the users.
            pages: which of the web may ask.
            paths: of the application's routes.
            responded: told the path and the status of every response.
            refuse: raises ApiError where no request with a body can be answered now.
        """
        self._app, self._body, self._responded, self._refuse = app, body, responded, refuse
        self._pages, self._paths = pages, paths
        self._tokens = [token.encode() for token in tokens]
        self._held = 0  # bytes of bodies
        self._turns = asyncio.Semaphore(_AT_A_TIME)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        headers = scope["headers"]
        told = self._pages.headers(headers)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # what stands beside HTTP leaves the body out
        scope = {**scope, "method": method, "path": route_path(scope["path"], self._paths)}

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._responded(getattr(scope.get("route"), "path", "other"), message["status"])
                message = {**message, "headers": [*message["headers"], *told]}
            await send(message)

        body = _Body()
        try:
            if (preflight := self._pages.preflight(method, headers)) is not None:
                await preflight(scope, receive, counted)
                return
            scope[USER] = self._user(scope)
            if await self._read(scope, receive, body):
                await self._answered(scope, _replayed(body, receive), counted)
        except ApiError as refused:
            response = refused.response()
            response.headers["Connection"] = "close"  # what is left of the body is not read
            await response(scope, receive, counted)
        finally:
            self._held -= body.size

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":  # these wait in the engine's queue
            await self._app(scope, receive, send)
            return
        await self._turns.acquire()
        waits = True

        async def sent(message: Message) -> None:
            nonlocal waits
            if waits:  # a client that does not read keeps nobody else waiting
                waits = False
                self._turns.release()
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            if waits:
                self._turns.release()

    def _user(self, scope: Scope) -> str:
        headers = scope["headers"]
        if not self._tokens:
            self._pages.refuse(headers)
            return f"connection {scope.get('state', {}).get(CONNECTION)}"
        if scope["path"] in OPEN:
            return "anyone"
        kind, _, given = header(headers, b"authorization").partition(b" ")
        same = [hmac.compare_digest(given.strip(), token) for token in self._tokens]
        if kind.lower() != b"bearer" or not any(same):
            raise ApiError(
                401,
                "a token is needed: Authorization: Bearer TOKEN",
                kind="authentication_error",
                code="invalid_api_key",
            )
        return f"token {same.index(True)}"

    async def _read(self, scope: Scope, receive: Receive, body: _Body) -> bool:
        """Take the body in; False where the client went away.

        Raises:
            ApiError: it is too large or too slow, or there is no place for it.
        """
        declared = header(scope["headers"], b"content-length")
        if declared.isdigit() and int(declared) > self._body:
            body.refused = self._too_large()
        try:
            with anyio.fail_after(_BODY_SECONDS):
                seen, more = 0, True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return False
                    data = message.get("body", b"")
                    more, seen = message.get("more_body", False), seen + len(data)
                    if seen > self._body:
                        body.refused = self._too_large()
                        body.data.clear()
                    if seen > _READ_ON * self._body:
                        raise self._too_large()
                    self._take(data, body)
        except TimeoutError:
            raise ApiError(408, f"the body did not come within {_BODY_SECONDS:g} seconds") from None
        if body.refused is not None:
            raise body.refused
        return True

    def _take(self, data: bytes, body: _Body) -> None:
        if data and body.refused is None:
            try:
                self._refuse()
                if self._held + len(data) > _MOST_BODIES * self._body:
                    raise ApiError(429, "too many bodies come in", kind="rate_limit_error", code="busy", retry_after=1)
            except ApiError as refused:
                body.refused = refused
                body.data.clear()
        if body.refused is None:
            body.data += data
            body.size += len(data)
            self._held += len(data)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self._body} bytes", code="body_too_large")


def _replayed(body: _Body, receive: Receive) -> Receive:
    left = [bytes(body.data)]
    body.data.clear()

    async def replay() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replay
