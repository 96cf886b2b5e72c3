"""What the checks of artifacts say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from ..stores import Dated, in_force

Level = Literal["error", "warning", "good", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``error`` keeps it from users, ``warning`` may; ``good`` is right, ``note`` was not checked.
        place: file or entry.
        text: what was found.
        hint: the way out, where there is one.
    """

    level: Level
    place: str
    text: str
    hint: str | None = None


def level_of(rule: Dated, today: date) -> Level:
    """Of what a store refuses: an error where its rule holds, a warning where it will."""
    return "error" if in_force([rule], today) else "warning"
