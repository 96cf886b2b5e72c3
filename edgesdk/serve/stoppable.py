"""A session that can be stopped from another thread, within a step of the model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..session import Session, refuse_tokens

if TYPE_CHECKING:
    import numpy as np

_STEP = 256  # tokens of a prompt that run at once


class StoppedError(Exception):
    """Whoever asked does not want the answer any more."""


class StoppableSession:
    """Another session that looks, before each step, whether it shall go on.

    Attributes:
        stopped: set from any thread; the next step then raises StoppedError, and the cache holds what had run.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.context, self.vocab = session.context, session.vocab
        self.stopped = threading.Event()

    @property
    def position(self) -> int:
        return self._session.position

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        refuse_tokens(self, ids)
        for start in range(0, len(ids), _STEP):
            self._look()
            logits = self._session.prefill(ids[start : start + _STEP])
        return logits

    def decode(self, token: int) -> np.ndarray:
        self._look()
        return self._session.decode(token)

    def score(self, ids: Sequence[int]) -> np.ndarray:
        self._look()
        return self._session.score(ids)

    def reset(self) -> None:
        self._session.reset()

    def rewind(self, count: int) -> None:
        self._session.rewind(count)

    def _look(self) -> None:
        if self.stopped.is_set():
            raise StoppedError
