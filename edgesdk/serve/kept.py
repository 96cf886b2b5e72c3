"""Answers that later requests refer to by id, kept in memory for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import ApiError

if TYPE_CHECKING:
    from ..model.tokenizer import Message

_MOST = 1000
_MOST_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class _Entry:
    owner: str
    messages: tuple[Message, ...]

    @property
    def size(self) -> int:
        return sum(len(message["content"]) for message in self.messages)


class Kept:
    """Messages by id; the oldest go when there are too many. Only who made one gets it back."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._characters = 0

    def add(self, owner: str, name: str, messages: Sequence[Message]) -> None:
        """Keep messages."""
        entry = _Entry(owner, tuple(messages))
        self._entries[name] = entry
        self._characters += entry.size
        while len(self._entries) > _MOST or self._characters > _MOST_CHARACTERS:
            _, gone = self._entries.popitem(last=False)
            self._characters -= gone.size

    def get(self, owner: str, name: str, param: str) -> tuple[Message, ...]:
        """Messages again.

        Raises:
            ApiError: they are not here, or not any more; ``param`` named them.
        """
        entry = self._entries.get(name)
        if entry is None or entry.owner != owner:
            raise ApiError(
                404,
                f"{param}: there is no '{name[:100]}' here, or not any more: send the whole conversation",
                param=param,
                code="not_found",
            )
        self._entries.move_to_end(name)
        return entry.messages
