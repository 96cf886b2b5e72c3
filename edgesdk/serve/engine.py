"""The model behind a server: one session, one answer at a time, a bounded queue before it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..chat import Answering
from ..errors import EdgeError, ModelError
from ..generation import Sampling, Statistics
from ..model.template_runner import RUNNER, TemplateStuckError
from .memory import LARGE, give_back
from .stoppable import StoppableSession, StoppedError

if TYPE_CHECKING:
    from ..model.tokenizer import Message, Tokenizer
    from ..session import Session

_FIRST_GUESS = 5.0  # seconds of an answer, before one was seen
_LONGEST_ADVICE = 120
_LONGEST_TOKEN = 16  # characters that a token has at most, on the mean of a prompt
_CUT_SECONDS = 0.5  # for a step of the model to end


class BusyError(EdgeError):
    """Every place is taken; ``retry_after`` says in how many seconds one may be free."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PromptError(EdgeError):
    """The messages make no prompt for this model; ``code`` is OpenAI's word for it, where it has one."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(f"messages: {message}")
        self.code = code


class StoppingError(EdgeError):
    """The server is stopping and takes nothing new."""


@dataclass(frozen=True)
class Started:
    """An answer began after so many seconds in the queue."""

    waited: float


@dataclass(frozen=True)
class Piece:
    """Some text of an answer, of whole characters."""

    text: str


@dataclass(frozen=True)
class Ended:
    """An answer is complete; ``reused`` tokens of its prompt were in the cache."""

    statistics: Statistics
    reused: int


@dataclass(frozen=True)
class Failed:
    """An answer will not be completed."""

    error: EdgeError


Event = Started | Piece | Ended | Failed


@dataclass(eq=False)
class Job:
    """One question: what is asked, by whom, and where its events go (called from the engine's thread).

    What one user's question left in the cache is never reused for another's.
    """

    messages: Sequence[Message]
    user: str
    sampling: Sampling
    max_tokens: int
    stop: Sequence[str]
    emit: Callable[[Event], None]
    stopped: threading.Event = field(default_factory=threading.Event)
    asked: float = field(default_factory=time.monotonic)
    reason: EdgeError | None = None


class Engine:
    """Answers jobs in the order of their coming, in a thread of its own.

    Attributes:
        context: most tokens of a prompt and its answer.
    """

    def __init__(self, session: Session, tokenizer: Tokenizer, queue: int) -> None:
        self.context = session.context
        self._session = StoppableSession(session)
        self._tokenizer, self._queue = tokenizer, queue
        self._answering = Answering(self._session, tokenizer)
        self._user: str | None = None  # whose question the cache holds
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._change = threading.Condition()
        self._stopping, self._seconds = False, _FIRST_GUESS
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """1 while a job is answered."""
        return int(self._running is not None)

    @property
    def stopping(self) -> bool:
        """Whether it takes nothing new."""
        return self._stopping

    def refuse(self) -> None:
        """Refuse, before any work for it, what :meth:`submit` would.

        Raises:
            BusyError: the queue is full.
            StoppingError: it is stopping.
        """
        with self._change:
            self._refuse()

    def submit(self, job: Job) -> None:
        """Take a job.

        Raises:
            PromptError: its messages are far longer than the context.
            BusyError: the queue is full.
            StoppingError: it is stopping.
        """
        characters = sum(len(message["content"]) for message in job.messages)
        if characters > self.context * _LONGEST_TOKEN:
            raise PromptError(
                f"{characters} characters leave no room for an answer in the context of {self.context} tokens",
                "context_length_exceeded",
            )
        with self._change:
            self._refuse()
            self._waiting.append(job)
            self._change.notify_all()

    def _refuse(self) -> None:
        if self._stopping:
            raise StoppingError("the server is stopping")
        if len(self._waiting) + self.running > self._queue:
            raise BusyError(f"{len(self._waiting)} requests wait already, and no more may", self._retry_after())

    def cancel(self, job: Job) -> bool:
        """Give a job up; True where it had not begun, and then nothing of it comes."""
        job.stopped.set()
        with self._change:
            if job not in self._waiting:
                return False
            self._waiting.remove(job)
            return True

    def too_long(self, job: Job) -> BusyError:
        """The error of a job that waited too long."""
        with self._change:
            return BusyError(f"no answer began in {time.monotonic() - job.asked:.0f} seconds", self._retry_after())

    def close(self, seconds: float) -> bool:
        """Refuse what waits, let the running answer go on for so long, and end.

        Returns: whether it ended; a step of the model that does not end is left alone.
        """
        with self._change:
            self._stopping = True
            refused = [*self._waiting]
            self._waiting.clear()
            self._change.notify_all()
        for job in refused:
            job.emit(Failed(StoppingError("the server is stopping")))
        self._thread.join(seconds)
        self.cut()
        self._thread.join(_CUT_SECONDS)
        stuck = self._running
        if self._thread.is_alive() and stuck is not None:
            stuck.emit(Failed(stuck.reason or StoppingError("the server is stopping: the answer was cut off")))
        return not self._thread.is_alive()

    def cut(self) -> None:
        """Cut the running answer off."""
        with self._change:
            if self._running is not None:
                self._running.reason = StoppingError("the server is stopping: the answer was cut off")
                self._running.stopped.set()
                RUNNER.kill()  # it may be at work on a template that does not end

    def _retry_after(self) -> int:
        ahead = len(self._waiting) + self.running
        return max(1, min(_LONGEST_ADVICE, math.ceil(self._seconds * ahead)))

    def _work(self) -> None:
        while (job := self._next()) is not None:
            began = time.monotonic()
            event = self._answer(job)
            with self._change:
                self._running = None
            job.emit(event)
            if sum(len(message["content"]) for message in job.messages) > LARGE:
                give_back()
            self._seconds += 0.2 * (time.monotonic() - began - self._seconds)

    def _next(self) -> Job | None:
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._stopping)
            if not self._waiting:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _answer(self, job: Job) -> Event:
        statistics, waited = Statistics(), time.monotonic() - job.asked
        self._session.stopped = job.stopped
        try:
            ids = self._prompt(job)
            if job.user != self._user:
                self._answering.forget()
                self._user = job.user
            job.emit(Started(waited))
            for text in self._answering.stream(
                ids, sampling=job.sampling, max_tokens=job.max_tokens, stop=job.stop, statistics=statistics
            ):
                job.emit(Piece(text))
        except StoppedError:
            return Failed(job.reason or EdgeError("nobody waits for the answer any more"))
        except EdgeError as failure:
            return Failed(failure)
        except BaseException as failure:  # of a runtime, a panic too: one answer fails, the next has an empty cache
            with suppress(Exception):
                self._session.reset()
            self._answering = Answering(self._session, self._tokenizer)
            return Failed(EdgeError(f"the model failed: {type(failure).__name__}: {failure}"))
        return Ended(statistics, self._answering.reused)

    def _prompt(self, job: Job) -> list[int]:
        try:
            ids = self._tokenizer.chat(job.messages)
        except TemplateStuckError:
            raise
        except ModelError as failure:
            raise PromptError(failure.message) from None
        if not ids:
            raise PromptError("they make no tokens")
        if len(ids) >= self.context:
            raise PromptError(
                f"{len(ids)} tokens leave no room for an answer in the context of {self.context}",
                "context_length_exceeded",
            )
        return ids
