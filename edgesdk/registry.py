"""One lookup for built-ins and plugins: a table of strings plus entry points; listing imports nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module, metadata
from pkgutil import iter_modules
from typing import Generic, TypeVar

from .errors import EdgeError, MissingExtraError

T = TypeVar("T")


class Registry(Generic[T]):
    """Named things of one kind, each given as ``module:attribute`` and imported when asked for."""

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str] | None = None) -> None:
        self.kind, self.group = kind, group
        self._builtin = dict(builtin or {})
        self._loaded: dict[str, T] = {}

    def names(self) -> list[str]:
        return sorted(self._table())

    def get(self, name: str) -> T:
        """Import and return one entry.

        Raises:
            EdgeError: no such name (the error lists those there are).
            MissingExtraError: the entry needs a library that is not installed.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> T:
        table = self._table()
        if name not in table:
            raise EdgeError(unknown(self.kind, name, table))
        module, _, attribute = table[name].partition(":")
        try:
            found: T = getattr(import_module(module), attribute)
        except ModuleNotFoundError as failure:
            missing = (failure.name or "").partition(".")[0]
            if not missing or missing == module.partition(".")[0]:
                raise
            raise MissingExtraError(missing, name) from None
        return found

    def _table(self) -> dict[str, str]:
        plugins = {entry.name: entry.value for entry in metadata.entry_points(group=self.group)}
        return plugins | self._builtin


def modules(package: str, path: Iterable[str], apart: Iterable[str]) -> dict[str, str]:
    """Entries for a package whose modules hold one ``FAMILY`` each, but for those ``apart`` from them."""
    found = (module.name for module in iter_modules(path))
    return {name: f"{package}.{name}:FAMILY" for name in found if name not in set(apart)}


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that is not known, with the nearest one first."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    nearest = f" (did you mean '{close[0]}'?)" if close else ""
    return f"no {kind} '{name}'{nearest}; there are: {', '.join(names) or 'none'}"
