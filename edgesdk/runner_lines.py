"""The runner protocol, the same over a UART, ssh and adb: JSON events and commands, one a line, each with its CRC-32.

``text*XXXXXXXX``: the checksum (IEEE 802.3, eight lower-case hexadecimal digits) is of the UTF-8 text before the ``*``.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from .errors import EdgeError


def sealed(text: str) -> bytes:
    """A command as it goes over the line.

    Raises:
        EdgeError: it holds a line end.
    """
    if "\n" in text or "\r" in text:
        raise EdgeError("a command of the runner protocol is one line", hint="write line ends in a prompt as \\n")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise EdgeError("the prompt is not valid Unicode") from None
    return data + b"*%08x\n" % zlib.crc32(data)


def event_line(name: str, **fields: Any) -> bytes:
    """An event as a runner sends it."""
    return sealed(json.dumps({"event": name, **fields}, ensure_ascii=True, separators=(",", ":")))


def command_of(line: bytes) -> str:
    """The command of one received line.

    Raises:
        EdgeError: the line was cut or changed on its way.
    """
    return _checked(line).decode("utf-8", "replace")


def opened(line: bytes) -> dict[str, Any]:
    """The event of one received line.

    Raises:
        EdgeError: the line was cut or changed on its way, or it is no event.
    """
    try:
        event = json.loads(_checked(line))
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise EdgeError(f"the runner sent no event: {line[:80]!r}", hint="flash the firmware of this edgesdk again")
    return event


def _checked(line: bytes) -> bytes:
    text, star, wanted = line.rstrip(b"\r\n").rpartition(b"*")
    if not star or b"%08x" % zlib.crc32(text) != wanted:
        raise EdgeError(f"a line of the runner was cut or changed on its way: {line[:80]!r}", hint="ask again")
    return text


def prompt_command(
    text: str, *, new_tokens: int, temperature: float = 0.0, top_p: float = 1.0, seed: int = 1, slide: bool = False
) -> bytes:
    """The command that asks for an answer to a text."""
    escaped = text.replace("\\", "\\\\").replace("\r", "").replace("\n", "\\n")
    return sealed(f"run {_sampling(new_tokens, temperature, top_p, seed, slide)} {escaped}")


def tokens_command(
    ids: list[int],
    *,
    new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 1,
    slide: bool = False,
) -> bytes:
    """The command that asks for an answer to tokens."""
    return sealed(f"ids {_sampling(new_tokens, temperature, top_p, seed, slide)} {','.join(map(str, ids))}")


def measure_command(ids: list[int], tokens: int, *, operators: bool = False) -> bytes:
    """The command that asks for so many tokens, greedily and whatever they are; with every operator timed if asked."""
    return sealed(f"{'operators' if operators else 'measure'} {tokens} {','.join(map(str, ids))}")


def _sampling(new_tokens: int, temperature: float, top_p: float, seed: int, slide: bool) -> str:
    return f"{new_tokens} {round(1000 * temperature)} {round(1000 * top_p)} {seed} {int(slide)}"
