"""One interface to a running model, whatever runtime is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


class Session(Protocol):
    """A model with its key-value cache. Logits are float32 numpy arrays; token ids are ints.

    Attributes:
        context: most tokens that the cache holds.
        vocab: length of a row of logits.
    """

    context: int
    vocab: int

    @property
    def position(self) -> int:
        """Tokens in the cache now."""

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Append tokens; return the logits after the last one, [vocab].

        Raises:
            EdgeError: no tokens, or more than the context holds (the cache is left as it was).
        """

    def decode(self, token: int) -> np.ndarray:
        """Append one token; return the logits after it, [vocab]."""

    def score(self, ids: Sequence[int]) -> np.ndarray:
        """Append tokens; return the logits after each of them, [tokens, vocab]."""

    def reset(self) -> None:
        """Empty the cache."""

    def rewind(self, count: int) -> None:
        """Forget the last ``count`` tokens."""
