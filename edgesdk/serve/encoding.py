"""An encoder at work for a server: texts become rows of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..model.encoders.model import text_ids
from .engine import Job, Started
from .prompts import Prompt, PromptError, Tokens
from .stoppable import StoppedError

if TYPE_CHECKING:
    from ..encoders import Encoder
    from ..model.tokenizer import Tokenizer

_LONGEST_TOKEN = 16
_AT_A_TIME = 16  # texts that run together
_UNCUT = 10_000_000  # tokens


@dataclass(frozen=True)
class EncodedText:
    """A text as an encoder reads it, with what its tokenizer puts around it."""

    text: str
    param: str = "input"

    @property
    def size(self) -> int:
        return len(self.text)

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        return text_ids(tokenizer, self.text, _UNCUT)


@dataclass(frozen=True)
class EncodedTokens(Tokens):
    """Tokens of a text; what the tokenizer puts around a text is put around them where it is missing."""

    param: str = "input"

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        ids, (before, behind) = super().ids(tokenizer), tokenizer.added
        whole = ids[: len(before)] == [*before] and ids[len(ids) - len(behind) :] == [*behind]
        return ids if whole else [*before, *ids, *behind]


@dataclass(frozen=True)
class Rows:
    """Embeddings, float32 [texts, size], and the tokens of their texts."""

    values: np.ndarray
    tokens: int


@dataclass(eq=False, kw_only=True)
class Embedding(Job):
    """Texts to embed; one that is too long is cut only where ``cut`` says so."""

    prompts: Sequence[Prompt]
    cut: bool = False

    @property
    def size(self) -> int:
        return sum(prompt.size for prompt in self.prompts)


class Embedder:
    """The worker over one encoder."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.context = encoder, encoder.context

    def check(self, job: Embedding) -> None:
        for prompt in job.prompts:
            if not job.cut and prompt.size > self.context * _LONGEST_TOKEN:
                raise _too_long(prompt, f"{prompt.size} characters", self.context)

    def run(self, job: Embedding) -> None:
        texts = [self._ids(prompt, job.cut) for prompt in job.prompts]
        job.emit(Started(job.waited))
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))  # alike long ones run together
        rows: dict[int, np.ndarray] = {}
        for start in range(0, len(order), _AT_A_TIME):
            if job.stopped.is_set():
                raise StoppedError
            part = order[start : start + _AT_A_TIME]
            rows.update(zip(part, self._encoder.session.encode([texts[index] for index in part]), strict=True))
        job.emit(Rows(np.stack([rows[index] for index in range(len(texts))]), sum(map(len, texts))))

    def recover(self) -> None:
        """There is nothing that a failure leaves behind."""

    def _ids(self, prompt: Prompt, cut: bool) -> list[int]:
        ids = prompt.ids(self._encoder.tokenizer)
        if not ids:
            raise PromptError(prompt.param, "makes no tokens")
        if len(ids) > self.context:
            if not cut:
                raise _too_long(prompt, f"{len(ids)} tokens", self.context)
            behind = self._encoder.tokenizer.added[1]
            ids = [*ids[: self.context - len(behind)], *behind]
        return ids


def _too_long(prompt: Prompt, what: str, context: int) -> PromptError:
    message = f"{what} are more than the context of {context} tokens; with truncate = true a text is cut"
    return PromptError(prompt.param, message, "context_length_exceeded")
