"""What a recipe takes away, in the terms in which targets say what they gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

_SMALLER = {"depth": "layers", "width": "heads and neurons", "hidden": "channels", "vocabulary": "tokens"}


@dataclass(frozen=True)
class Taken:
    """One thing that was taken away.

    Attributes:
        kind: of :class:`~edgesdk.targets.Gains`.
        words: what people call it.
    """

    kind: Literal["zeros", "runs", "smaller"]
    words: str


def taken_away(passes: Sequence[Mapping[str, Any]]) -> list[Taken]:
    """What passes, described as plain data, take away: each kind once."""
    found: list[Taken] = []
    smaller = [_SMALLER[entry["use"]] for entry in passes if entry["use"] in _SMALLER]
    if smaller:
        found.append(Taken("smaller", f"fewer {', '.join(smaller)}"))
    for entry in passes:
        if entry["use"] in ("zeros", "sparsegpt"):
            runs = ":" in entry["pattern"]
            found.append(Taken("runs" if runs else "zeros", f"zeros ({entry['pattern']})"))
    return found
