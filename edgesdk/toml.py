"""TOML as Python has it since 3.11; boards may have 3.10, and the package that it came from."""

from __future__ import annotations

import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def toml_tables(text: str) -> dict[str, Any]:
    """The tables of a text.

    Raises:
        ValueError: it is no TOML; the message says where.
    """
    return tomllib.loads(text)
