"""Text generation over any session: sampling, stop strings, and streaming that never splits a character."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import EdgeError

if TYPE_CHECKING:
    from .model.tokenizer import Tokenizer
    from .session import Session


_LARGEST_CHANGE = 1e4  # of a logit


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 is greedy; otherwise logits are divided by it.
        top_k: keep the k most likely tokens (0: all).
        top_p: keep the smallest set of tokens whose probabilities sum to this (nucleus sampling, arXiv 1904.09751).
        min_p: keep tokens with at least this fraction of the best one's probability (arXiv 2407.01082).
        repetition_penalty: divide positive and multiply negative logits of all tokens of the prompt and the answer so
            far (CTRL, arXiv 1909.05858; as transformers does).
        seed: of the random numbers; None takes one from the system.
        frequency_penalty: taken from the logit of a token for each time that the answer has it (OpenAI's API).
        presence_penalty: taken from the logit of every token that the answer has (OpenAI's API).
        bias: added to the logits of tokens, by id.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks = {
            "temperature": self.temperature == 0 or 1e-4 <= self.temperature <= 1e4,
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p < 1,
            "repetition_penalty": 1e-3 <= self.repetition_penalty <= 1e3,
            "frequency_penalty": abs(self.frequency_penalty) <= _LARGEST_CHANGE,
            "presence_penalty": abs(self.presence_penalty) <= _LARGEST_CHANGE,
            "bias": all(abs(value) <= _LARGEST_CHANGE for value in self.bias.values()),
            "seed": self.seed is None or self.seed >= 0,
        }
        for key, fine in checks.items():
            if not fine:
                raise EdgeError(f"sampling: {key} = {getattr(self, key)} is out of range")


class Sampler:
    """Chooses tokens; holds the random state of one generation."""

    def __init__(self, options: Sampling) -> None:
        self._options = options
        self._random = np.random.default_rng(options.seed)

    def choose(self, logits: np.ndarray, seen: Sequence[int] = (), said: Sequence[int] = ()) -> int:
        """The next token from logits [vocab], given all tokens so far and those of the answer."""
        options = self._options
        logits = self._changed(logits, seen, said)
        if options.temperature == 0:
            return int(logits.argmax())
        order = np.argsort(-logits, kind="stable")
        if options.top_k:
            order = order[: options.top_k]
        scaled = logits[order].astype(np.float64) / options.temperature
        weights = np.exp(scaled - scaled[0])
        weights /= weights.sum()
        keep = len(order)
        if options.top_p < 1:
            keep = int(np.searchsorted(np.cumsum(weights), options.top_p)) + 1
        if options.min_p > 0:
            keep = min(keep, int((weights >= options.min_p * weights[0]).sum()))
        kept = weights[:keep] / weights[:keep].sum()
        return int(order[self._random.choice(len(kept), p=kept)])

    def _changed(self, logits: np.ndarray, seen: Sequence[int], said: Sequence[int]) -> np.ndarray:
        """The logits with penalties and bias; they themselves where there are none."""
        options = self._options
        if options.repetition_penalty != 1.0 and seen:
            logits = _penalized(logits, seen, options.repetition_penalty)
        taken = {token: -value for token, value in options.bias.items()}
        if options.frequency_penalty or options.presence_penalty:
            for token, count in Counter(said).items():
                more = options.frequency_penalty * count + options.presence_penalty
                taken[token] = taken.get(token, 0.0) + more
        if taken:
            logits = logits.copy()
            index = np.fromiter(taken, dtype=np.int64)
            logits[index] -= np.fromiter(taken.values(), dtype=np.float64)
        return logits


def _penalized(logits: np.ndarray, seen: Sequence[int], penalty: float) -> np.ndarray:
    changed = logits.copy()
    index = np.unique(np.asarray(seen))
    values = changed[index]
    changed[index] = np.where(values > 0, values / penalty, values * penalty)
    return changed


@dataclass
class Statistics:
    """What one generation took, on the machine that ran it.

    ``prompt_tokens`` counts those that were run: a prompt less what the cache held of it. ``reason`` is ``stop``
    (a stop token or string), ``length`` (the limit asked for) or ``context`` (a full cache); ``draft`` is what drafting
    did (:meth:`~edgesdk.speculative.SpeculativeSession.summary`), where anything drafts.
    """

    prompt_tokens: int = 0
    prefill_seconds: float = 0.0
    tokens: list[int] = field(default_factory=list)
    decode_seconds: float = 0.0
    reason: str = "length"
    draft: dict[str, Any] | None = None


def generate(
    session: Session,
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    *,
    sampling: Sampling | None = None,
    max_tokens: int = 256,
    stop: Sequence[str] = (),
    statistics: Statistics | None = None,
    held: int = 0,
    observe: Callable[[int, np.ndarray], object] | None = None,
) -> Iterator[str]:
    """Run ``prompt`` in the session and yield the answer's text piece by piece.

    The answer follows from the whole prompt, however much of it the session holds already. A piece never ends inside a
    character, and never shows the beginning of a stop string that then completes. The session is left holding the
    prompt and the tokens of the answer.

    Args:
        session: where to run; its context bounds the answer.
        tokenizer: turns tokens to text and names the stop tokens.
        prompt: token ids of all that the answer follows.
        sampling: greedy when None.
        max_tokens: most tokens to generate.
        stop: strings that end the answer; they are not part of it.
        statistics: filled in while running.
        held: how many tokens of the prompt, from its beginning, the session holds already; the others are run.
        observe: told each token of the answer, with the logits [vocab] that it was chosen from, before its text.

    Raises:
        EdgeError: the prompt is empty, longer than the context, or held whole; or the session holds another number of
            tokens than ``held``.
    """
    if session.position != held:
        raise EdgeError(
            f"the session holds {session.position} tokens, and {held} of them are the prompt's",
            hint="give the whole conversation, and how much of it the session holds; or reset the session",
        )
    statistics = statistics if statistics is not None else Statistics()
    sampler, text = Sampler(sampling or Sampling()), TextStream(tokenizer, stop)
    seen, new = list(prompt), prompt[held:]
    started = time.perf_counter()
    logits = session.prefill(new)
    statistics.prompt_tokens, statistics.prefill_seconds = len(new), time.perf_counter() - started
    started = time.perf_counter()
    for count in range(max_tokens):
        token = sampler.choose(logits, seen, statistics.tokens)
        if token in tokenizer.special.stop:
            statistics.reason = "stop"
            break
        if observe is not None:
            observe(token, logits)
        statistics.tokens.append(token)
        seen.append(token)
        if piece := text.push(token):
            yield piece
        if text.stopped:
            statistics.reason = "stop"
            break
        if session.position >= session.context:
            statistics.reason = "context"
            break
        if count + 1 < max_tokens:
            logits = session.decode(token)
            statistics.decode_seconds = time.perf_counter() - started
    if rest := text.flush():
        yield rest


class TextStream:
    """Turns tokens to text, holding back what may still change: half a character, or the start of a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        from tokenizers.decoders import DecodeStream

        self._backend, self._stream = tokenizer.backend, DecodeStream(skip_special_tokens=True)
        self._stop = [string for string in stop if string]
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        self._held += self._stream.step(self._backend, token) or ""
        ends = [found for string in self._stop if (found := self._held.find(string)) >= 0]
        if ends:
            self.stopped = True
            ready, self._held = self._held[: min(ends)], ""
            return ready
        keep = max((_overlap(self._held, string) for string in self._stop), default=0)
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return ready

    def flush(self) -> str:
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, string: str) -> int:
    """Length of the longest end of ``text`` that begins ``string``."""
    for length in range(min(len(text), len(string) - 1), 0, -1):
        if text.endswith(string[:length]):
            return length
    return 0
