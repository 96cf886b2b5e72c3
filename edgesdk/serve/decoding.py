"""A decoder at work for a server: prompts become answers, piece by piece."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ..chat import Answering
from ..generation import Sampling, Statistics
from .engine import Job, Started
from .prompts import Prompt, PromptError
from .stoppable import StoppableSession

if TYPE_CHECKING:
    from ..model.tokenizer import Tokenizer
    from ..session import Session

_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
_LONGEST_TOKEN = 16  # characters that a token has at most, on the mean of a prompt


@dataclass(frozen=True)
class Written:
    """A token within a text: its text, in which a part of a character is U+FFFD, and its bytes in UTF-8."""

    text: str
    data: bytes


@dataclass(frozen=True)
class Likelihood:
    """A token of an answer, the natural logarithm of its probability, and the likeliest.

    They are of the model's own distribution, before temperature and penalties.
    """

    token: Written
    logprob: float
    top: tuple[tuple[Written, float], ...]


@dataclass(frozen=True)
class Piece:
    """Some text of one answer, of whole characters, and the likelihoods of the tokens since the last piece."""

    index: int
    text: str
    likelihoods: tuple[Likelihood, ...] = ()


@dataclass(frozen=True)
class Answered:
    """One answer is complete; ``reused`` tokens of its prompt were in the cache."""

    index: int
    statistics: Statistics
    reused: int


@dataclass(eq=False, kw_only=True)
class Generation(Job):
    """Answers to prompts: ``choices`` of each, numbered prompt by prompt.

    What one user's question left in the cache is never reused for another's.

    Attributes:
        logprobs: how many of the likeliest tokens are told with each token; None: no likelihoods.
        echo: whether answers begin with their prompt.
    """

    prompts: Sequence[Prompt]
    sampling: Sampling
    max_tokens: int
    stop: Sequence[str] = ()
    choices: int = 1
    logprobs: int | None = None
    echo: bool = False

    @property
    def size(self) -> int:
        return sum(prompt.size for prompt in self.prompts)


class Decoder:
    """The worker over one session; it keeps the cache for the next question of the same user."""

    def __init__(self, session: Session, tokenizer: Tokenizer) -> None:
        self.context, self._vocab = session.context, session.vocab
        self._session = StoppableSession(session)
        self._tokenizer = tokenizer
        self._answering = Answering(self._session, tokenizer)
        self._user: Hashable = None  # whose question the cache holds
        self._written = lru_cache(4096)(self._written_of)

    def check(self, job: Generation) -> None:
        for prompt in job.prompts:
            if prompt.size > self.context * _LONGEST_TOKEN:
                raise _no_room(prompt, f"{prompt.size} characters leave", self.context)
        if wrong := [token for token in job.sampling.bias if token >= self._vocab]:
            raise PromptError("logit_bias", f"there is no token {wrong[0]}: ids are 0 to {self._vocab - 1}")

    def run(self, job: Generation) -> None:
        self._session.stopped = job.stopped
        prompts = [self._ids(prompt) for prompt in job.prompts]
        if job.user != self._user:
            self._answering.forget()
            self._user = job.user
        job.emit(Started(job.waited))
        for number, ids in enumerate(prompts):
            for choice in range(job.choices):
                self._answer(job, number * job.choices + choice, ids, _sampling(job.sampling, choice))

    def recover(self) -> None:
        self._session.reset()
        self._answering = Answering(self._session, self._tokenizer)

    def _answer(self, job: Generation, index: int, ids: list[int], sampling: Sampling) -> None:
        statistics, likely = Statistics(), list[Likelihood]()
        wanted = job.logprobs
        if job.echo:
            job.emit(Piece(index, self._tokenizer.decode(ids)))

        def observe(token: int, logits: np.ndarray) -> None:
            if wanted is not None:
                likely.append(self._likelihood(token, logits, wanted))

        for text in self._answering.stream(
            ids,
            sampling=sampling,
            max_tokens=job.max_tokens,
            stop=job.stop,
            statistics=statistics,
            observe=None if wanted is None else observe,
        ):
            job.emit(Piece(index, text, tuple(likely)))
            likely.clear()
        if likely:
            job.emit(Piece(index, "", tuple(likely)))
        job.emit(Answered(index, statistics, self._answering.reused))

    def _ids(self, prompt: Prompt) -> list[int]:
        ids = prompt.ids(self._tokenizer)
        if not ids:
            raise PromptError(prompt.param, "makes no tokens")
        if len(ids) >= self.context:
            raise _no_room(prompt, f"{len(ids)} tokens leave", self.context)
        return ids

    def _likelihood(self, token: int, logits: np.ndarray, count: int) -> Likelihood:
        logits = logits.astype(np.float64)
        logprobs = logits - logits.max()
        logprobs -= np.log(np.exp(logprobs).sum())
        best = np.argpartition(-logprobs, min(count, len(logprobs) - 1))[:count]
        best = best[np.argsort(-logprobs[best], kind="stable")]
        top = tuple((self._written(int(index)), float(logprobs[index])) for index in best)
        return Likelihood(self._written(token), float(logprobs[token]), top)

    def _written_of(self, token: int) -> Written:
        """One token as it is behind others, where its leading blank counts."""
        backend, name = self._tokenizer.backend, self._tokenizer.token(token)
        if token in backend.get_added_tokens_decoder():
            return Written(name, name.encode())
        before = self._tokenizer.encode("a")
        start, whole = (backend.decode(ids, skip_special_tokens=False) for ids in (before, [*before, token]))
        text = whole.removeprefix(start)
        return Written(text, text.encode() if "\ufffd" not in text else _bytes(name))


def _bytes(name: str) -> bytes:
    """The bytes of a token that is a part of a character, from its name in the vocabulary."""
    if found := _FALLBACK.fullmatch(name):
        return bytes([int(found[1], 16)])
    return bytes(letters[letter] for letter in name if letter in (letters := _byte_letters()))


@cache
def _byte_letters() -> dict[str, int]:
    """The letters that byte-level vocabularies write bytes with (GPT-2): printable ones are themselves."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + index): byte for index, byte in enumerate(others)}


def _sampling(sampling: Sampling, choice: int) -> Sampling:
    """The sampling of one of several answers, which shall differ."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + choice)


def _no_room(prompt: Prompt, what: str, context: int) -> PromptError:
    return PromptError(
        prompt.param, f"{what} no room for an answer in the context of {context} tokens", "context_length_exceeded"
    )
