"""Reads JSON and TOML that others wrote: a whole and valid text of ordinary numbers, or one error that names the file.

Every file and line with data passes here, so that what a parser makes of odd ones is decided once: text that is not
UTF-8, nesting without end, ``NaN`` and infinities, whole numbers beyond 64 bits, and halves of surrogate pairs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import EdgeError
from .toml import toml_tables

_LARGEST = 2**64


def parse_json(
    text: str | bytes,
    where: str,
    error: type[EdgeError] = EdgeError,
    *,
    hint: str | None = None,
    infinities: bool = False,
) -> Any:
    """The data of a JSON text.

    Args:
        text: the text, or its UTF-8 bytes.
        where: the file (or line) that it came from, for messages.
        error: the error class to raise.
        hint: the way out, for messages.
        infinities: whether ``NaN`` and ``Infinity`` are taken, which are no JSON, but which Python writes.

    Raises:
        EdgeError: (of class ``error``) it is not JSON, or holds what no other program would read alike.
    """
    return _parsed(_python_json if infinities else _json, "JSON", text, where, error, hint)


def parse_toml(
    text: str | bytes, where: str, error: type[EdgeError] = EdgeError, *, hint: str | None = None
) -> dict[str, Any]:
    """The tables of a TOML text; see :func:`parse_json`."""
    found: dict[str, Any] = _parsed(_toml, "TOML", text, where, error, hint)
    return found


def read_json(path: Path, error: type[EdgeError] = EdgeError, *, hint: str | None = None) -> Any:
    """The data of a JSON file; see :func:`parse_json`.

    Raises:
        EdgeError: (of class ``error``) also where the file cannot be read.
    """
    return parse_json(read_bytes(path, error, hint=hint), str(path), error, hint=hint)


def read_toml(path: Path, error: type[EdgeError] = EdgeError, *, hint: str | None = None) -> dict[str, Any]:
    """The tables of a TOML file; see :func:`read_json`."""
    return parse_toml(read_bytes(path, error, hint=hint), str(path), error, hint=hint)


def read_text(path: Path, error: type[EdgeError] = EdgeError, *, hint: str | None = None) -> str:
    """The text of a UTF-8 file.

    Raises:
        EdgeError: (of class ``error``) it cannot be read, or is no such text.
    """
    return _decoded(read_bytes(path, error, hint=hint), str(path), error, hint)


def read_bytes(path: Path, error: type[EdgeError] = EdgeError, *, hint: str | None = None) -> bytes:
    """The content of a file.

    Raises:
        EdgeError: (of class ``error``) it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as failure:
        raise error(f"{path}: {failure.strerror or failure}", hint=hint) from None
    except ValueError:  # a NUL in the name
        raise error(f"{str(path)!r}: no name of a file", hint=hint) from None


def _parsed(
    parse: Callable[[str], Any], kind: str, text: str | bytes, where: str, error: type[EdgeError], hint: str | None
) -> Any:
    if isinstance(text, bytes):
        text = _decoded(text, where, error, hint)
    try:
        data = parse(text)
        if "\\u" in text:
            json.dumps(data, ensure_ascii=False, default=str).encode()
        return data
    except RecursionError:
        raise error(f"{where}: not valid {kind} (nested too deeply)", hint=hint) from None
    except UnicodeEncodeError:
        raise error(f"{where}: not valid {kind} (half of a surrogate pair)", hint=hint) from None
    except ValueError as failure:
        raise error(f"{where}: not valid {kind} ({failure})", hint=hint) from None


def _decoded(data: bytes, where: str, error: type[EdgeError], hint: str | None) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as failure:
        raise error(f"{where}: not UTF-8 text (byte {failure.start})", hint=hint) from None


def _json(text: str) -> Any:
    return json.loads(text, parse_int=_whole, parse_float=_real, parse_constant=_refused)


def _python_json(text: str) -> Any:
    return json.loads(text, parse_int=_whole)


def _toml(text: str) -> dict[str, Any]:
    data = toml_tables(text)
    _refuse_huge(data)
    return data


def _whole(text: str) -> int:
    if len(text) > 20 or abs(value := int(text)) >= _LARGEST:
        raise ValueError(f"the number {text[:20]}... does not fit into 64 bits")
    return value


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is not finite")
    return value


def _refused(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _refuse_huge(data: object) -> None:
    """TOML's parser has no hook for whole numbers."""
    if isinstance(data, int) and abs(data) >= _LARGEST:
        raise ValueError("a number does not fit into 64 bits")
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            _refuse_huge(item)


def whole(text: str | None) -> int | None:
    """A whole number as programs print it: up to 18 plain digits. None for everything else."""
    return int(text) if text is not None and len(text) <= 18 and text.isascii() and text.isdigit() else None
