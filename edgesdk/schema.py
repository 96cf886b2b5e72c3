"""Typed loading of JSON and TOML into frozen dataclasses, with errors that name file, key and known keys."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import EdgeError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}
_ENDLESS = 1e100  # beyond everything that is counted or measured, and its square is still a number


def load(cls: type[T], data: object, where: str, error: type[EdgeError] = EdgeError, *, texts: bool = False) -> T:
    """Build the dataclass ``cls`` from plain data, strictly: true is no number, 1 is no text, infinity is no figure.

    Args:
        cls: a dataclass; nested dataclasses, tuples, literals and unions are followed.
        data: what a JSON or TOML parser returned.
        where: the file (or option) the data came from, for messages.
        error: the error class to raise.
        texts: whether numbers and flags may be written as text, as on a command line.

    Raises:
        EdgeError: (of class ``error``) on an unknown key, a missing key or a value of the wrong type.
    """
    unknown = _first_unknown_key(cls, data, "")
    if unknown is not None:
        path, known = unknown
        close = difflib.get_close_matches(path.rsplit(".", 1)[-1], known, n=1)
        raise error(
            f"{where}: unknown key '{path}'; known here: {', '.join(sorted(known)) or '(none)'}",
            hint=f"did you mean '{close[0]}'?" if close else None,
        )
    from pydantic import ValidationError

    try:  # as JSON, whose arrays are tuples where strictness would else refuse the parser's lists
        plain = json.dumps(data, ensure_ascii=False, default=_day).encode()
        loaded: T = _adapter(cls).validate_json(plain, strict=not texts)
    except ValidationError as failure:
        first = failure.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        found = "" if first["type"] == "missing" else f", found {_short(first['input'])}"
        raise error(f"{where}: key '{key}': {first['msg'].lower()}{found}") from None
    except UnicodeEncodeError:
        raise error(f"{where}: holds half of a surrogate pair, which is no text") from None
    except (TypeError, ValueError, RecursionError) as failure:
        raise error(f"{where}: holds what is no plain data ({failure})") from None
    if (endless := _endless(data, "")) is not None:
        raise error(f"{where}: key '{endless}': not a number that anything measures")
    return loaded


def load_open(cls: type[T], data: Mapping[str, object], where: str, error: type[EdgeError] = EdgeError) -> T:
    """As :func:`load` for the typed dictionary ``cls``, beside whose keys there may be others, which stay unread."""
    load(cls, data, where, error)
    return typing.cast(T, data)


def dump(value: Any) -> Any:
    """Return ``value`` (dataclasses, tuples, paths, mappings) as plain JSON data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: dump(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): dump(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [dump(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, date):
        return value.isoformat()
    return value


def _adapter(cls: Any) -> TypeAdapter[Any]:
    """The validator of a class, made once, which takes longer than many uses of it."""
    from pydantic import TypeAdapter

    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def _day(value: object) -> str:
    """A day of TOML as JSON has it."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _endless(data: object, path: str) -> str | None:
    """The key of the first number that is none, or so large that figures of it would be infinite."""
    if isinstance(data, float):
        return None if abs(data) < _ENDLESS else path.removeprefix(".")
    parts: Iterable[tuple[object, object]] = ()
    if isinstance(data, Mapping):
        parts = data.items()
    elif isinstance(data, (list, tuple)):
        parts = enumerate(data)
    return next((found for key, item in parts if (found := _endless(item, f"{path}.{key}")) is not None), None)


def _first_unknown_key(cls: Any, data: object, prefix: str) -> tuple[str, list[str]] | None:
    if not dataclasses.is_dataclass(cls) or not isinstance(data, Mapping):
        return None
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    for key, value in data.items():
        if key not in known:
            return prefix + str(key), known
        for inner, item in _members(hints[key], value):
            found = _first_unknown_key(inner, item, f"{prefix}{key}.")
            if found is not None:
                return found
    return None


def _members(hint: Any, value: object) -> list[tuple[Any, object]]:
    """Pair every nested value with the dataclass that its type hint asks for."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return [(hint, value)]
    if origin in (typing.Union, types.UnionType):
        options = [option for option in arguments if dataclasses.is_dataclass(option)]
        return [(options[0], value)] if len(options) == 1 else []
    if origin in (tuple, list) and isinstance(value, (list, tuple)) and arguments:
        return [(arguments[0], item) for item in value]
    if origin is dict and isinstance(value, Mapping):
        return [(arguments[1], item) for item in value.values()]
    return []
