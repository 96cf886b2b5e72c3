"""Names of hosts, users and ports, and URLs of serial lines: patterns that no option and no other scheme passes."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..lines import shown_line
from .base import DeviceError

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?")  # a name (RFC 1123, and underscores), or IPv4
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@-]{0,63}\$?")
_WORD = re.compile(r"[A-Za-z0-9/][A-Za-z0-9._:/@+()\[\] %-]{0,252}")
_LARGEST_PORT = 65535
#: Schemes of pyserial's URLs that are lines, and the options that each may have; others read or write files.
_LINES = {"socket": frozenset[str](), "rfc2217": frozenset({"ign_set_control", "poll_modem", "timeout"})}
_OPTION = re.compile(r"([a-z_0-9]+)(=[0-9.]+)?")


@dataclass(frozen=True)
class Place:
    """Where something answers: ``user@host:port``, each but the host None where it is not named."""

    user: str | None
    host: str
    port: int | None


def place_of(text: str) -> Place | None:
    """User, host and port of ``user@host:port``, an IPv6 address in brackets; None: it is no such address."""
    user, at, rest = text.rpartition("@")
    if rest.startswith("["):
        host, closed, port = rest[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            return None
        port = port.removeprefix(":")
        named = _is_ipv6(host)
    else:
        host, _, port = rest.partition(":")
        named = _HOST.fullmatch(host) is not None
    if not named or (at and not _USER.fullmatch(user)) or (port and not _is_port(port)):
        return None
    return Place(user or None, host, int(port) if port else None)


def check_word(text: str, what: str) -> None:
    """Refuse a serial number or the like that a program could take for an option.

    Raises:
        DeviceError: it is none.
    """
    if not _WORD.fullmatch(text):
        raise DeviceError(f"'{shown_line(text)}' is no {what}", hint="it begins with a letter, a digit or /")


def check_port(path: str) -> None:
    """Refuse what is no serial port: pyserial's other URLs record into files, search for ports, and load classes.

    Raises:
        DeviceError: a URL of another scheme than ``socket://`` and ``rfc2217://``, a broken one, or an option.
    """
    if "://" not in path:
        check_word(path, "port")
    elif not _is_line_url(path):
        raise DeviceError(
            f"'{shown_line(path)}' is no line that is opened",
            hint="a port such as /dev/ttyACM0, socket://HOST:PORT or rfc2217://HOST:PORT",
        )


def _is_line_url(text: str) -> bool:
    """Whether a URL of pyserial is a line over the network: ``socket://HOST:PORT`` or ``rfc2217://HOST:PORT``."""
    try:
        parts = urlsplit(text)
        place = place_of(parts.netloc)
    except ValueError:
        return False
    options = [_OPTION.fullmatch(each) for each in parts.query.split("&")] if parts.query else []
    allowed = _LINES.get(parts.scheme)
    return (
        allowed is not None
        and place is not None
        and place.user is None
        and place.port is not None
        and parts.path in ("", "/")
        and not parts.fragment
        and all(found is not None and found[1] in allowed for found in options)
    )


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return re.fullmatch(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?", text) is not None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= _LARGEST_PORT
