"""What stands in a template for a value, by the format of the file: one escape for each format.

Values that a file's format would read as more than text (a quote, a line end, a specifier) are escaped where they go
in, whatever they are and wherever they came from. Each function takes a text and gives what the format reads back as
that text, at the places where this project's templates have values: inside of double quotes in TOML, YAML, Kotlin and
Swift, as a word in a shell, as the rest of a line elsewhere.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import PurePath
from xml.sax.saxutils import escape

from markupsafe import Markup

from ..lines import shown_line

Escape = Callable[[str], str]
_LONGEST = 100_000  # characters; what is too long is refused where it enters


def one_line(text: str) -> str:
    """A text as one printable line."""
    return shown_line(text, _LONGEST)


def xml(text: str) -> str:
    """Character data of XML 1.0, and attributes in double quotes."""
    return escape(one_line(text), {'"': "&quot;"})


def android_string(text: str) -> str:
    """The value of a string resource, before XML: quotes, backslashes, and what begins a reference.

    Source: "String resources" of developer.android.com, escapes; checked with aapt2.
    """
    found = re.sub(r"([\\'\"])", r"\\\1", one_line(text))
    return f"\\{found}" if found[:1] in ("@", "?") else found


def double_quoted(text: str) -> str:
    """Inside of double quotes in TOML and YAML 1.2, which both read JSON's escapes."""
    return json.dumps(one_line(text), ensure_ascii=False)[1:-1]


def kotlin(text: str) -> str:
    """Inside of double quotes in Kotlin, where a dollar begins an expression."""
    return double_quoted(text).replace("$", "\\$")


def swift(text: str) -> str:
    """Inside of double quotes in Swift, where a backslash begins an expression."""
    return double_quoted(text)


def shell(text: str) -> str:
    """One word of a POSIX shell."""
    return shlex.quote(one_line(text))


def systemd(text: str) -> str:
    """Inside of a line of a unit, where a percent sign begins a specifier (systemd.unit(5)).

    A backslash that ends the line would join it with the next: the template has words of its own behind the value.
    """
    return one_line(text).replace("%", "%%")


def deb822(text: str) -> str:
    """The rest of a field's line in Debian's control file (deb822(5))."""
    return one_line(text)


def properties(text: str) -> str:
    """A value of Java's properties."""
    return one_line(text).replace("\\", "\\\\")


def markdown(text: str) -> str:
    """Text of CommonMark: no markup, link or HTML begins in it."""
    return re.sub(r"([\\`<\[|*])", r"\\\1", one_line(text))


#: By the end of the file's name, or by the name itself where it has none.
FORMATS: dict[str, Escape] = {
    ".entitlements": xml,
    ".kt": kotlin,
    ".kts": kotlin,
    ".md": markdown,
    ".properties": properties,
    ".service": systemd,
    ".sh": shell,
    ".swift": swift,
    ".toml": double_quoted,
    ".xcprivacy": xml,
    ".xml": xml,
    ".yml": double_quoted,
    "control": deb822,
    "copyright": one_line,
    "edgesdk-service": shell,
    "postinst": shell,
}


def escape_of(name: str) -> Escape:
    """The escape of a file's format.

    Raises:
        KeyError: no format is known by this name; a template that has one is a defect.
    """
    path = PurePath(name)
    return FORMATS[path.suffix or path.name]


def finalizer(name: str) -> Callable[[object], object]:
    """For Jinja's ``finalize`` in the template of a file: every text that is not marked as safe is escaped."""
    found = escape_of(name)

    def finalize(value: object) -> object:
        return found(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    return finalize


#: Filters for places of a template whose format is another than the file's; their results are not escaped again.
FILTERS: dict[str, Callable[[str], Markup]] = {
    "shell": lambda text: Markup(shell(text)),
}
