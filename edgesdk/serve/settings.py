"""What a server may be told, on the command line and in a TOML file."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from ..documents import read_toml
from ..errors import EdgeError
from ..schema import load

TOKEN_VARIABLE = "EDGESDK_TOKEN"
_SHORTEST_TOKEN = 16
_LONGEST_FILE = 1 << 20
_LONGEST_STOP = 3.0
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^\s/?#@,\"]*", re.IGNORECASE)
_WAYS_OUT = {
    "stop_seconds": f"at most {_LONGEST_STOP:g}: a server ends within 5 seconds",
    "origins": "an origin is a scheme, a host and perhaps a port, such as http://localhost:3000; * is any",
}


class ServeError(EdgeError):
    """The server cannot start as it was told to."""


@dataclass(frozen=True)
class Settings:
    """How a server behaves.

    Attributes:
        host: address to listen on; anything but the loopback needs a token.
        port: to listen on; 0 takes a free one.
        token_file: file with a token a line, one for each user, which clients send as ``Authorization: Bearer``; "":
            none. Only its owner may have permissions for it.
        queue: requests that may wait while one is answered; the next is refused with 429.
        wait_seconds: how long one may wait before it is refused with 429; at once where those before it, at the speed
            of the last answers, take longer.
        max_tokens: most tokens of one answer; one that asks for more gets these.
        strict_model: whether a request that names another model is refused.
        origins: of web pages that may ask, such as ``http://localhost:3000``; "*" is any. None named: any where clients
            need a token, and only the server's own where they do not.
        keep_alive_seconds: how long a connection may be idle between two requests.
        body_kb: largest body of a request, in 1000 bytes.
        connections: most connections at a time; a new one takes the place of the one that keeps the server waiting
            longest.
        address_connections: most of them from one address.
        stop_seconds: how long the running answer may go on after SIGTERM, which ends the server within 5 seconds.
        threads: of the model's kernels; 0 leaves the choice to the runtime.
        providers: what to run the program with, the first choice first, where the runtime has more than one way.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token_file: str = ""
    queue: int = 64
    wait_seconds: float = 60.0
    max_tokens: int = 1024
    strict_model: bool = False
    origins: tuple[str, ...] = ()
    keep_alive_seconds: float = 75.0
    body_kb: int = 1000
    connections: int = 512
    address_connections: int = 256
    stop_seconds: float = 3.0
    threads: int = 0
    providers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = {
            "port": 0 <= self.port <= 65535,
            "queue": 0 <= self.queue <= 10_000,
            "wait_seconds": 0 < self.wait_seconds <= 3600,
            "max_tokens": 1 <= self.max_tokens <= 1_000_000,
            "origins": all(map(_is_origin, self.origins)),
            "keep_alive_seconds": 1 <= self.keep_alive_seconds <= 3600,
            "body_kb": 1 <= self.body_kb <= 100_000,
            "connections": 16 <= self.connections <= 60_000,
            "address_connections": 1 <= self.address_connections <= 60_000,
            "stop_seconds": 0 <= self.stop_seconds <= _LONGEST_STOP,
            "threads": 0 <= self.threads <= 256,
        }
        for key, fine in checks.items():
            if not fine:
                raise ServeError(f"serve: {key} = {getattr(self, key)} is out of range", hint=_WAYS_OUT.get(key))


def open_settings(path: Path) -> Settings:
    """Read settings from a TOML file.

    Raises:
        ServeError: it cannot be read, or a key or a value is wrong.
    """
    return load(Settings, read_toml(path, ServeError), str(path), ServeError)


def tokens(settings: Settings, environment: str | None) -> tuple[str, ...]:
    """The tokens of which clients must send one, each a user's; () where they need none.

    Args:
        settings: names their file, and the address that decides whether any are needed.
        environment: the value of EDGESDK_TOKEN, which counts where no file is named.

    Raises:
        ServeError: there are none and the address is not the loopback; or they cannot be read, others than the file's
            owner may read or write it, or one is short.
    """
    text, where = environment, TOKEN_VARIABLE
    if settings.token_file:
        where = settings.token_file
        text = _private_text(Path(where))
    if text is None:
        if not is_loopback(settings.host):
            raise ServeError(
                f"{settings.host} can be reached from other machines, and there is no token",
                hint=f"name a file with one by --token-file, set {TOKEN_VARIABLE}, or listen on 127.0.0.1",
            )
        return ()
    found = tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    if not found or not all(map(_is_token, found)):
        raise ServeError(
            f"{where}: a token has {_SHORTEST_TOKEN} or more ASCII characters in one word",
            hint="python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes one; one a line",
        )
    return tuple(dict.fromkeys(found))


def _is_origin(text: str) -> bool:
    return _ORIGIN.fullmatch(text) is not None


def _is_token(text: str) -> bool:
    return len(text) >= _SHORTEST_TOKEN and text.isascii() and text.isprintable() and " " not in text


def _private_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LONGEST_FILE)
        text = data.decode("ascii")
    except (OSError, UnicodeDecodeError) as failure:
        raise ServeError(f"{path}: no token can be read from it ({failure})") from None
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")  # systemd's own, which lets nobody else in
    if mode & (stat.S_IRWXG | stat.S_IRWXO) and not (credentials and path.is_relative_to(credentials)):
        raise ServeError(
            f"{path}: others than its owner have permissions for it (mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 600 {path}, and new tokens if others could have read the old ones",
        )
    return text


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name counts as one that others reach, but for localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
