"""Web pages: which may ask, and what their browser must be told before it lets them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from .errors import ApiError
from .settings import is_loopback

Headers = Sequence[tuple[bytes, bytes]]
ANY = "*"
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::[0-9]{1,5})?")
_REMEMBERED = b"600"  # seconds that a browser may keep a preflight's answer
_READABLE = b"Retry-After, WWW-Authenticate"


def header(headers: Headers, name: bytes) -> bytes:
    """The first header of a name, b"" where there is none."""
    return next((value for key, value in headers if key == name), b"")


@dataclass(frozen=True)
class Pages:
    """Which web pages may ask, by the Fetch standard's CORS protocol.

    With tokens any page may, unless origins are named: it needs a token as anyone does, and browsers add none by
    themselves. Without tokens only the named ones may, and the server's own: any page in this machine's browser could
    ask too, from a name that was made to lead here, or across origins.

    Attributes:
        origins: those that may ask; "*" is any.
        secured: whether clients need a token.
    """

    origins: tuple[str, ...]
    secured: bool

    def allowed(self, origin: str) -> bool:
        """Whether pages of an origin may read answers."""
        origins = self.origins or ((ANY,) if self.secured else ())
        return ANY in origins or origin.lower() in map(str.lower, origins)

    def refuse(self, headers: Headers) -> None:
        """Refuse a request without a token that a page of another place made.

        Raises:
            ApiError: it did.
        """
        if self.secured:
            return
        host = header(headers, b"host").decode("latin-1")
        found = _HOST.fullmatch(host)
        if found is None or not is_loopback((found[1] or found[2]).lower()):
            raise ApiError(
                403,
                "without a token, this server answers to localhost and loopback addresses, not to the host "
                f"'{host}': start it with a token to reach it by other names",
                kind="permission_error",
                code="host_not_allowed",
            )
        origins = [value.decode("latin-1") for key, value in headers if key == b"origin"]
        if any(origin.lower() != f"http://{host}".lower() and not self.allowed(origin) for origin in origins):
            raise ApiError(
                403,
                "without a token, this server does not answer to web pages of other origins: start it with "
                "--allow-origin and the page's origin, or with a token that the page sends",
                kind="permission_error",
                code="origin_not_allowed",
            )

    def headers(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """What every answer to a page tells its browser."""
        origin = header(headers, b"origin")
        if not origin:
            return []
        varies = [(b"vary", b"Origin")]
        if not self.allowed(origin.decode("latin-1")):
            return varies
        return [
            *varies,
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _READABLE),
        ]

    def preflight(self, method: str, headers: Headers) -> Response | None:
        """The answer to a browser that asks whether a page may ask; None where it does not.

        Raises:
            ApiError: the page may not.
        """
        if method != "OPTIONS":
            return None
        self.refuse(headers)
        response = Response(status_code=204, headers={"Allow": "GET, HEAD, POST, OPTIONS"})
        if not header(headers, b"access-control-request-method"):
            return response
        if not self.allowed(header(headers, b"origin").decode("latin-1")):
            raise ApiError(
                403,
                "pages of this origin may not ask this server: start it with --allow-origin and the page's origin",
                kind="permission_error",
                code="origin_not_allowed",
            )
        told = [(b"access-control-allow-methods", b"GET, HEAD, POST"), (b"access-control-max-age", _REMEMBERED)]
        if wanted := header(headers, b"access-control-request-headers"):
            told.append((b"access-control-allow-headers", wanted))
        if header(headers, b"access-control-request-private-network"):
            told.append((b"access-control-allow-private-network", b"true"))
        response.raw_headers += told
        return response
