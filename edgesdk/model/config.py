"""A checkpoint's configuration, read with types and with errors that name the file and the key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..bounds.amounts import LAYERS
from ..bounds.regular import read_limited, regular_file
from ..documents import parse_json
from ..errors import ModelError

_LARGEST = 100_000_000  # of any count in a configuration
_HUGE = 1e30
_LAYERS = ("layers", "layer", "block_count")  # how keys end that count layers
SET_RIGHT = "correct it in the file, or download the checkpoint again"


def short(value: object) -> str:
    """A value for an error message, cut to 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


class Config:
    """Typed access to a parsed configuration (``config.json``, or one made from GGUF metadata).

    It remembers which keys were looked at, those of its sections too, so that none is passed over in silence.

    Attributes:
        values: the keys, as they were parsed.
        where: the file (and section), for messages.
        theta: base of the rotary positions where the keys say none; None: the family's.
        whole_heads: the published network turns whole heads, whatever the keys say.
    """

    def __init__(
        self, values: Mapping[str, Any], where: str, *, theta: float | None = None, whole_heads: bool = False
    ) -> None:
        self.values, self.where, self.theta, self.whole_heads = values, where, theta, whole_heads
        self._seen: set[str] = set()
        self._path = ""

    @classmethod
    def read(cls, path: Path) -> Config:
        """Parse a JSON file.

        Raises:
            ModelError: the file is missing or is no JSON object.
        """
        if regular_file(path.parent, path.name, ModelError) is None:
            raise ModelError(f"{path}: not found", hint="a model folder holds config.json and safetensors")
        values = parse_json(read_limited(path, error=ModelError), str(path), ModelError, infinities=True)
        if not isinstance(values, dict):
            raise ModelError(f"{path}: expected a JSON object")
        return cls(values, str(path))

    def get(self, key: str) -> Any:
        """The raw value, or None when the key is missing or null."""
        self._seen.add(self._path + key)
        return self.values.get(key)

    def section(self, key: str) -> Config:
        """The keys inside of one; empty where it is missing. Each of them is looked at by itself."""
        value = self.values.get(key)
        inner = Config(value if isinstance(value, Mapping) else {}, f"{self.where}: {key}")
        inner._seen, inner._path = self._seen, f"{self._path}{key}."
        return inner

    def changed(self, **values: Any) -> Config:
        """The same place of the same file, with other values for some keys."""
        other = Config({**self.values, **values}, self.where, theta=self.theta, whole_heads=self.whole_heads)
        other._seen, other._path = self._seen, self._path
        return other

    def overruled(self, *keys: str) -> None:
        """Keys that change nothing here, since others decide."""
        self._seen.update(self._path + key for key in keys)

    def looked_into(self, path: str) -> bool:
        """Whether a key inside of a section was asked for."""
        return any(seen.startswith(f"{path}.") for seen in self._seen)

    def looked_at(self, path: str) -> bool:
        """Whether a key, or the section that it stands in as a whole, was asked for; a path has dots."""
        parts = path.split(".")
        return any(".".join(parts[:end]) in self._seen for end in range(1, len(parts) + 1))

    def key(self, *names: str) -> str:
        """The first of these keys that the configuration has (the first of all where it has none)."""
        return next((name for name in names if self.get(name) is not None), names[0])

    def integers(self, key: str, count: int) -> list[int]:
        """A list of ``count`` positive whole numbers."""
        values = self._present(key, None)
        if not isinstance(values, list) or len(values) != count:
            raise ModelError(
                f"{self.where}: '{key}' must be a list of {count} whole numbers, found {short(values)}", hint=SET_RIGHT
            )
        return [Config({key: value}, self.where).integer(key) for value in values]

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._present(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST:
            raise ModelError(
                f"{self.where}: '{key}' must be a positive whole number, found {short(value)}", hint=SET_RIGHT
            )
        if key.endswith(_LAYERS) and value > LAYERS:
            raise ModelError(f"{self.where}: '{key}' is {value}, and models of up to {LAYERS} layers are read")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._present(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < _HUGE:
            raise ModelError(f"{self.where}: '{key}' must be a positive number, found {short(value)}", hint=SET_RIGHT)
        return float(value)

    def optional(self, key: str) -> float | None:
        """A positive number, or None where the key is missing or null."""
        return None if self.get(key) is None else self.number(key)

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._present(key, default)
        if not isinstance(value, bool):
            raise ModelError(f"{self.where}: '{key}' must be true or false, found {value!r}", hint=SET_RIGHT)
        return value

    def choice(self, key: str, choices: Mapping[str, Any], default: str | None = None) -> Any:
        """The entry of ``choices`` that the configuration names."""
        value = self._present(key, default)
        if not isinstance(value, str) or value not in choices:
            raise ModelError(f"{self.where}: '{key}' is {value!r}; supported: {', '.join(choices)}", hint=SET_RIGHT)
        return choices[value]

    def _present(self, key: str, default: Any) -> Any:
        value = self.get(key)
        if value is None:
            value = default
        if value is None:
            raise ModelError(f"{self.where}: key '{key}' is missing", hint=SET_RIGHT)
        return value
