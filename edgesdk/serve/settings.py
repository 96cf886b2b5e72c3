"""What a server may be told, on the command line and in a TOML file."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from ..documents import read_toml
from ..errors import EdgeError
from ..schema import load

TOKEN_VARIABLE = "EDGESDK_TOKEN"
_SHORTEST_TOKEN = 16


class ServeError(EdgeError):
    """The server cannot start as it was told to."""


@dataclass(frozen=True)
class Settings:
    """How a server behaves.

    Attributes:
        host: address to listen on; anything but the loopback needs a token.
        port: to listen on; 0 takes a free one.
        token_file: file whose one line clients send as ``Authorization: Bearer``; "": none.
        queue: requests that may wait while one is answered; the next is refused with 429.
        wait_seconds: how long one may wait before it is refused with 429.
        max_tokens: most tokens of one answer.
        body_kb: largest body of a request, in 1000 bytes.
        stop_seconds: how long the running answer may go on after SIGTERM.
        threads: of the model's kernels; 0 leaves the choice to the runtime.
        providers: what to run the program with, the first choice first, where the runtime has more than one way.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token_file: str = ""
    queue: int = 8
    wait_seconds: float = 60.0
    max_tokens: int = 1024
    body_kb: int = 1000
    stop_seconds: float = 20.0
    threads: int = 0
    providers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = {
            "port": 0 <= self.port <= 65535,
            "queue": 0 <= self.queue <= 10_000,
            "wait_seconds": 0 < self.wait_seconds <= 3600,
            "max_tokens": 1 <= self.max_tokens <= 1_000_000,
            "body_kb": 1 <= self.body_kb <= 100_000,
            "stop_seconds": 0 <= self.stop_seconds <= 3600,
            "threads": 0 <= self.threads <= 256,
        }
        for key, fine in checks.items():
            if not fine:
                raise ServeError(f"serve: {key} = {getattr(self, key)} is out of range")


def open_settings(path: Path) -> Settings:
    """Read settings from a TOML file.

    Raises:
        ServeError: it cannot be read, or a key or a value is wrong.
    """
    return load(Settings, read_toml(path, ServeError), str(path), ServeError)


def token(settings: Settings, environment: str | None) -> str | None:
    """The token that clients must send, or None where they need none.

    Args:
        settings: names its file, and the address that decides whether one is needed.
        environment: the value of EDGESDK_TOKEN, which counts where no file is named.

    Raises:
        ServeError: there is none and the address is not the loopback; or it cannot be read, or is short.
    """
    found, where = environment, TOKEN_VARIABLE
    if settings.token_file:
        where = settings.token_file
        try:
            found = Path(where).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as failure:
            raise ServeError(f"{where}: no token can be read from it ({failure})") from None
    if found is None:
        if not is_loopback(settings.host):
            raise ServeError(
                f"{settings.host} can be reached from other machines, and there is no token",
                hint=f"name a file with one by --token-file, set {TOKEN_VARIABLE}, or listen on 127.0.0.1",
            )
        return None
    if len(found) < _SHORTEST_TOKEN or not found.isascii() or not found.isprintable() or " " in found:
        raise ServeError(
            f"{where}: a token has {_SHORTEST_TOKEN} or more ASCII characters in one word",
            hint="python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes one",
        )
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name counts as one that others reach, but for localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
