"""Speculative decoding (arXiv 2211.17192): something cheap drafts tokens, the model checks them in one step.

:class:`SpeculativeSession` is a session like any other: it gives the target's own logits, only sooner. After a token it
runs the drafted ones in the same step, and keeps their logits until the caller comes to them or goes another way. So
every way to choose tokens stays exact: greedy decoding takes a drafted token where it is the target's best one, and
sampling draws from the target's own distribution, which takes a drafted token as often as the rejection rule of the
paper does for a draft that is sure of it.

Kernels may round a token otherwise in a step of its own than in a step with others, and int8 activations make that
visible: logits differ by 1 and more. So steps have a form (:class:`Steps`) in which the kernels of this machine give a
token the same bits whatever is drafted behind it: then the draft cannot change an answer, not in a single bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .session import refuse_rewind, refuse_tokens, scores_apart, sums_over_steps

if TYPE_CHECKING:
    from .session import Session

MOST = 8  # tokens of a step
_WIDTHS = (1, 2, 4)
_CONFIDENCE = 0.4  # a draft model goes on while all that it drafted is likelier than this to be taken
_MOST_MISSES = 3
_BEFORE = MOST  # tokens in the cache when kernels are compared
_SLICE = 32  # tokens of a prompt that are scored together


class Drafter(Protocol):
    """Says which tokens may come next."""

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        """At most ``most`` tokens to come after ``ids``; none where nothing is likely."""


@dataclass(frozen=True)
class Steps:
    """The form of the target's steps.

    Attributes:
        width: they are filled up to a multiple of it. 1: nothing is filled up.
        aligned: every step is one block of ``width`` positions that begins at a multiple of it, tokens of it that ran
            before included: a token then always has the same row of the same block.
        exact: the kernels here give a token the same bits whatever is drafted, so that the answer does not depend on
            the draft; with a width of 1 it is also that of decoding token by token.
    """

    width: int
    aligned: bool
    exact: bool


@dataclass
class DraftStatistics:
    """What drafting did.

    Attributes:
        steps: of the target, after the prompt.
        tokens: that were run after the prompt, drafted ones that were taken included.
        drafted: proposed tokens that were decided on.
        accepted: those of them that were taken.
    """

    steps: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float | None:
        """The share of drafted tokens that were taken."""
        return self.accepted / self.drafted if self.drafted else None

    @property
    def tokens_per_step(self) -> float | None:
        return self.tokens / self.steps if self.steps else None


class SpeculativeSession:
    """A target with a drafter; see :class:`edgesdk.session.Session` for the contract.

    Attributes:
        context: most tokens that the cache holds; a little less than the target's where steps are filled up.
        steps: how wide its steps are.
        statistics: since they were last set.
    """

    def __init__(self, target: Session, drafter: Drafter | None, steps: Steps | None = None) -> None:
        """Take over an empty session.

        Args:
            target: whose logits count.
            drafter: None proposes nothing: the answers are the same, one token a step.
            steps: None finds them out, which takes a few steps of the target.
        """
        self.steps = steps or find_steps(target)
        width = self.steps.width
        self.context, self.vocab = (
            target.context // width * width - (0 if self.steps.aligned else width - 1),
            target.vocab,
        )
        self.statistics = DraftStatistics()
        self._target, self._drafter = target, drafter
        self._ids: list[int] = []
        self._ahead: list[int] = []  # in the target's cache after the position, with the logits after each
        self._rows: list[np.ndarray] = []
        self._misses = self._waiting = 0  # drafts in a row that gave nothing; steps before the next is asked for

    @property
    def position(self) -> int:
        """Tokens in the cache now."""
        return len(self._ids)

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        refuse_tokens(self, ids)
        self._undecided()
        last = self._last_of(ids)
        self._ids += ids
        return last

    def _last_of(self, ids: Sequence[int]) -> np.ndarray:
        if not scores_apart(self._target):
            return self._target.prefill(ids)
        for at in range(0, len(ids) - _SLICE, _SLICE):  # the method that scores runs everything
            self._target.score(ids[at : at + _SLICE])
        last: np.ndarray = self._target.score(ids[(len(ids) - 1) // _SLICE * _SLICE :])[-1]
        return last

    def decode(self, token: int) -> np.ndarray:
        refuse_tokens(self, [token])
        found = self.statistics
        found.tokens += 1
        if self._ahead and self._ahead[0] == token:
            found.drafted, found.accepted = found.drafted + 1, found.accepted + 1
            self._misses = 0
            self._ids.append(self._ahead.pop(0))
            ready: np.ndarray = self._rows.pop(0)
            return ready
        if self._ahead:  # the first of them is rejected; what was drafted behind it never had a chance
            found.drafted += 1
            self._missed()
            self._undecided()
        drafted = self._propose(token)
        wanted = [token, *drafted]
        rows = self._step(wanted)
        found.steps += 1
        self._ids.append(token)
        self._ahead, self._rows = drafted, list(rows[1:])
        first: np.ndarray = rows[0]
        return first

    def score(self, ids: Sequence[int]) -> np.ndarray:
        refuse_tokens(self, ids)
        self._undecided()
        rows = self._target.score(ids)
        self._ids += ids
        return rows

    def reset(self) -> None:
        self._undecided()
        self._target.reset()
        self._ids.clear()

    def rewind(self, count: int) -> None:
        refuse_rewind(self, count)
        self._undecided()
        self._target.rewind(count)
        del self._ids[self.position - count :]

    def summary(self) -> dict[str, Any]:
        """The statistics with their rates, and the form of the steps, as plain data."""
        found = self.statistics
        rates = {"acceptance": found.acceptance, "tokens_per_step": found.tokens_per_step}
        return {**vars(found), **rates, **vars(self.steps)}

    def _undecided(self) -> None:
        """Forget tokens that were drafted and not come to."""
        if self._ahead:
            self._target.rewind(len(self._ahead))
            self._ahead, self._rows = [], []

    def _propose(self, token: int) -> list[int]:
        """Drafted tokens that fit into a step after ``token``."""
        width = self.steps.width
        if self.steps.aligned:
            room = width - self.position % width
        else:
            room = min(MOST, (self._target.context - self.position) // width * width)
        most = room - 1
        if self._waiting:
            self._waiting -= 1
            return []
        if self._drafter is None or most < 1:
            return []
        found = self._drafter.propose([*self._ids, token], most)[:most]
        if not found:
            self._missed()
        end = next((index for index, each in enumerate(found) if not 0 <= each < self.vocab), len(found))
        return found[:end]

    def _missed(self) -> None:
        """A draft gave nothing: ask again after 0, 1, 3, at most 7 steps, so that a poor drafter costs little."""
        self._waiting = 2**self._misses - 1
        self._misses = min(self._misses + 1, _MOST_MISSES)

    def _step(self, ids: list[int]) -> np.ndarray:
        """The logits after each token, of one step in the form that steps have."""
        again = self._ids[self.position // self.steps.width * self.steps.width :] if self.steps.aligned else []
        more = -(len(again) + len(ids)) % self.steps.width
        if len(ids) + more == 1 and not scores_apart(self._target):
            return self._target.decode(ids[0])[None]
        self._target.rewind(len(again))
        rows = self._target.score([*again, *ids, *[ids[-1]] * more])
        self._target.rewind(more)
        return rows[len(again) : len(again) + len(ids)]


class ModelDrafter:
    """A smaller model drafts, greedily, until it is no longer sure that all of it will be taken."""

    def __init__(self, session: Session, confidence: float = _CONFIDENCE) -> None:
        self._session, self._confidence = session, confidence
        self._cached: list[int] = []

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        most = min(most, self._session.context - len(ids))
        if most < 1:
            return []
        logits = self._run(ids)
        found: list[int] = []
        sure = 1.0
        while True:
            token = int(logits.argmax())
            sure /= float(np.exp(logits.astype(np.float64) - float(logits[token])).sum())
            if sure < self._confidence:
                return found
            found.append(token)
            if len(found) == most:
                return found
            logits = self._session.decode(token)
            self._cached.append(token)

    def _run(self, ids: Sequence[int]) -> np.ndarray:
        """The logits after ``ids``, of which the cache may hold a part."""
        common = 0
        for old, new in zip(self._cached, ids[:-1], strict=False):
            if old != new:
                break
            common += 1
        self._session.rewind(len(self._cached) - common)
        del self._cached[common:]
        logits = self._session.prefill(ids[common:])
        self._cached += ids[common:]
        return logits


class PromptLookup:
    """No model: what came last time after the same few tokens may come again (arXiv 2304.04487)."""

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        for length in (3, 2):
            tail = list(ids[-length:])
            for at in range(len(ids) - length - 1, -1, -1):
                if list(ids[at : at + length]) == tail:
                    return list(ids[at + length : at + length + most])
        return []


def find_steps(session: Session) -> Steps:
    """The cheapest form of steps in which this machine's kernels give a token the same bits whatever is drafted.

    Runs the session, which must be empty and is empty afterwards, for a few steps.
    """
    before = [(7919 * index + 1) % session.vocab for index in range(_BEFORE)]
    ids = [(104729 * index + 5) % session.vocab for index in range(MOST)]
    if session.context < _BEFORE + 2 * MOST:
        return Steps(1, aligned=False, exact=False)
    session.score(before)
    wanted = session.score(ids)
    widths = () if sums_over_steps(session) else _WIDTHS
    found = next((width for width in widths if _same(session, ids, wanted, width)), None)
    if found is not None:
        steps = Steps(found, aligned=False, exact=True)
    elif _same_in_block(session, ids, wanted):
        steps = Steps(MOST, aligned=True, exact=True)
    else:
        steps = Steps(1, aligned=False, exact=False)
    session.reset()
    return steps


def _same_in_block(session: Session, ids: list[int], wanted: np.ndarray) -> bool:
    """Whether what stands behind a token in its block is nothing to it."""
    for kept in (1, MOST - 3):
        session.rewind(session.position - _BEFORE)
        rows = session.score([*ids[:kept], *[ids[0]] * (MOST - kept)])
        if not np.array_equal(rows[:kept], wanted[:kept]):
            return False
    return True


def _same(session: Session, ids: list[int], wanted: np.ndarray, width: int) -> bool:
    """Whether steps of every multiple of ``width`` give the same logits as one step of all tokens."""
    session.rewind(session.position - _BEFORE)
    for index in range(MOST // 2):  # one token each, filled up
        rows = session.score([ids[index]] * width)
        if not np.array_equal(rows[0], wanted[index]):
            return False
        session.rewind(width - 1)
    for step in range(max(width, 2), MOST, width):
        session.rewind(session.position - _BEFORE)
        for at in range(0, MOST - step + 1, step):
            if not np.array_equal(session.score(ids[at : at + step]), wanted[at : at + step]):
                return False
    return True
