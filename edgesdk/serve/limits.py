"""What stands before the routes: the token or who asks, whole bodies of a bounded size, and the count of responses."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError
from .settings import is_loopback

_BODY_SECONDS = 30.0
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::[0-9]{1,5})?")
OPEN = ("/health",)  # what needs no token: it tells a load balancer or a supervisor that the server lives


class Limits:
    """Reads a request's body whole before anything sees it, and refuses what is too large, too slow or not allowed.

    Without a token, which is so on the loopback only, web pages in this machine's browser could ask too: from a name
    that was made to lead here, or across origins. Both are refused. Any port is taken: a tunnel may have another one.
    """

    def __init__(self, app: ASGIApp, body: int, token: str | None, responded: Callable[[str, int], None]) -> None:
        self._app, self._body, self._responded = app, body, responded
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._responded(getattr(scope.get("route"), "path", "other"), message["status"])
            await send(message)

        try:
            self._authorize(scope)
            body = await self._read(scope, receive)
        except ApiError as refused:
            response = refused.response()
            response.headers["Connection"] = "close"  # what is left of the body is not read
            await response(scope, receive, counted)
            return
        if body is not None:
            await self._app(scope, _replayed(body, receive), counted)

    def _authorize(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self._token is None:
            _refuse_web_pages(headers)
            return
        if scope["path"] in OPEN:
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token):
            raise ApiError(
                401,
                "a token is needed: Authorization: Bearer TOKEN",
                kind="authentication_error",
                code="invalid_api_key",
            )

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None where the client went away."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._body:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self._body:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise ApiError(408, f"the body did not come within {_BODY_SECONDS:g} seconds") from None

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self._body} bytes", code="body_too_large")


def _refuse_web_pages(headers: dict[bytes, bytes]) -> None:
    host = headers.get(b"host", b"").decode("latin-1")
    found = _HOST.fullmatch(host)
    if found is None or not is_loopback((found[1] or found[2]).lower()):
        raise ApiError(
            403,
            f"without a token, this server answers to localhost and loopback addresses, not to the host '{host}': "
            "start it with a token to reach it by other names",
            kind="permission_error",
            code="host_not_allowed",
        )
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1").lower() != f"http://{host}".lower():
        raise ApiError(
            403,
            "without a token, this server does not answer to web pages: start it with a token that the page sends",
            kind="permission_error",
            code="origin_not_allowed",
        )


def _replayed(body: bytes, receive: Receive) -> Receive:
    left = [body]

    async def replay() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replay
