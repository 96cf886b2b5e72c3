"""Strings from outside: one printable line where they enter, control characters shown where they leave.

A name, a version or a licence that has a line end could become a line of a service's unit or of a project file, and one
with an escape sequence could redraw a terminal. They are refused where they are read; what is only shown passes
:func:`shown`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from .errors import EdgeError

LONGEST_NAME = 200  # characters of a name, a version or a licence
LONGEST_LINE = 4000  # characters of any other string of a manifest: a note or a reason
# Unicode's explicit directional formatting (UAX #9): it makes a text look like another one.
_DIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SEPARATORS = frozenset("\u2028\u2029")


def why_no_line(text: str, longest: int = LONGEST_NAME) -> str | None:
    """Why a text is not one printable line of so many characters; None where it is."""
    if len(text) > longest:
        return f"has {len(text)} characters, and at most {longest} are taken"
    strange = next((letter for letter in text if not _plain(letter)), None)
    return None if strange is None else f"has the character U+{ord(strange):04X}, which is not printable"


def name_line(text: str) -> str:
    """``text``, which is one printable line as names, versions and licences are.

    Raises:
        ValueError: it is not.
    """
    reason = why_no_line(text)
    if reason is not None:
        raise ValueError(f"must be one printable line, but it {reason}")
    return text


class _OneLine:
    """Has pydantic check a field with :func:`name_line`; pydantic itself is loaded when a record is read."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(name_line, handler(source))


#: A field of a record that holds a name, a version or a licence; :func:`edgesdk.schema.load` checks it.
Line = Annotated[str, _OneLine()]


def check_line(text: str, what: str, error: type[EdgeError] = EdgeError, hint: str | None = None) -> None:
    """Refuse a text that is not one printable line.

    Args:
        text: the text.
        what: what it is, and of which file, for the message.
        error: the error to raise.
        hint: the way out.

    Raises:
        EdgeError: (of class ``error``) why.
    """
    reason = why_no_line(text)
    if reason is not None:
        raise error(f"{what} {shown_line(text, 60)!r} {reason}", hint=hint or "a name is one line of printable text")


def check_lines(data: Any, where: str, error: type[EdgeError] = EdgeError) -> None:
    """Refuse plain data (of JSON or TOML) in which any string, keys among them, is not one printable line.

    Raises:
        EdgeError: (of class ``error``) with the key.
    """
    for key, text in _strings(data, ""):
        reason = why_no_line(text, LONGEST_LINE)
        if reason is not None:
            raise error(f"{where}: key '{shown_line(key, 80)}': the text {shown_line(text, 60)!r} {reason}")


def _strings(data: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every string under plain data, with the key that leads to it."""
    waiting = [(key, data)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, Mapping):
            for name, inner in value.items():
                yield key or "(top)", str(name)
                waiting.append((f"{key}.{name}" if key else str(name), inner))
        elif isinstance(value, (list, tuple)):
            waiting += [(key, inner) for inner in value]


def shown(text: str) -> str:
    """A text whose control characters, but line ends and tabs, are written as escapes: for terminals and logs."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(letter if _shows(letter) else _escape(letter) for letter in text)


def shown_line(text: str, longest: int = LONGEST_NAME) -> str:
    """A text as one printable line, cut to ``longest`` characters: for what a device says of itself."""
    cut = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return cut if cut.isprintable() else "".join(letter if _plain(letter) else _escape(letter) for letter in cut)


def _plain(letter: str) -> bool:
    return letter.isprintable()


def _shows(letter: str) -> bool:
    if letter in "\n\t":
        return True
    return unicodedata.category(letter) not in ("Cc", "Cs") and letter not in _DIRECTIONAL | _SEPARATORS


def _escape(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
