"""One model behind a server: jobs wait in a bounded queue, and run one after the other in a thread of their own."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import EdgeError
from ..model.template_runner import RUNNER
from .memory import LARGE, give_back
from .stoppable import StoppedError

_LONGEST_ADVICE = 120
_FIRST_ADVICE = 5.0  # seconds of a job, before one was seen
_CUT_SECONDS = 0.5  # for a step of the model to end


class BusyError(EdgeError):
    """There is no place, or none in time; ``retry_after`` says in how many seconds one may be free."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoppingError(EdgeError):
    """The server is stopping and takes nothing new."""


@dataclass(frozen=True)
class Started:
    """A job began after so many seconds in the queue."""

    waited: float


@dataclass(frozen=True)
class Ended:
    """A job is complete."""


@dataclass(frozen=True)
class Failed:
    """A job will not be completed."""

    error: EdgeError


@dataclass(eq=False, kw_only=True)
class Job:
    """One request: whose it is, and where its events go (called from the engine's thread)."""

    user: Hashable
    emit: Callable[[Any], None]
    stopped: threading.Event = field(default_factory=threading.Event)
    asked: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    reason: EdgeError | None = None

    @property
    def size(self) -> int:
        """Characters of what is asked."""
        raise NotImplementedError


class Worker(Protocol):
    """What runs jobs of one kind of model.

    Attributes:
        context: most tokens that the model takes.
    """

    context: int

    def check(self, job: Any) -> None:
        """Refuse, before it waits, what cannot be run.

        Raises:
            PromptError: it is too large, or nothing for this model.
        """

    def run(self, job: Any) -> None:
        """Run a job, and emit what comes of it, ``Started`` first.

        Raises:
            StoppedError: the job's ``stopped`` was set meanwhile.
            EdgeError: it cannot be run.
        """

    def recover(self) -> None:
        """Begin anew after a failure of the runtime."""


class Engine:
    """Runs jobs in the order of their coming, in a thread of its own."""

    def __init__(self, worker: Worker, queue: int, wait_seconds: float) -> None:
        """Start.

        Args:
            worker: runs them.
            queue: how many may wait.
            wait_seconds: how long one may have to wait, as far as the time of those before it is known.
        """
        self._worker, self._queue, self._patience = worker, queue, wait_seconds
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._change = threading.Condition()
        self._stopping = False
        self._seconds: float | None = None  # of a job, on the mean of the last ones
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def context(self) -> int:
        """Most tokens that the model takes."""
        return self._worker.context

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """1 while a job runs."""
        return int(self._running is not None)

    @property
    def stopping(self) -> bool:
        """Whether it takes nothing new."""
        return self._stopping

    def refuse(self) -> None:
        """Refuse, before any work for it, what :meth:`submit` would.

        Raises:
            BusyError: the queue is full, or its wait would be too long.
            StoppingError: it is stopping.
        """
        with self._change:
            self._refuse()

    def submit(self, job: Job) -> None:
        """Take a job.

        Raises:
            PromptError: the worker cannot run it.
            BusyError: the queue is full, or its wait would be too long.
            StoppingError: it is stopping.
        """
        self._worker.check(job)
        with self._change:
            self._refuse()
            self._waiting.append(job)
            self._change.notify_all()

    def _refuse(self) -> None:
        if self._stopping:
            raise StoppingError("the server is stopping")
        ahead = len(self._waiting) + self.running
        if ahead > self._queue:
            raise BusyError(f"{len(self._waiting)} requests wait already, and no more may", self._retry_after())
        wait = (self._seconds or 0.0) * ahead
        if wait > self._patience:
            raise BusyError(
                f"{ahead} requests are before this one, which takes about {wait:.0f} seconds; "
                f"none waits longer than {self._patience:g} here",
                self._retry_after(),
            )

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
        """Refuse what waits, let the running job go on for so long, and end.

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
        """Cut the running job off."""
        with self._change:
            if self._running is not None:
                self._running.reason = StoppingError("the server is stopping: the answer was cut off")
                self._running.stopped.set()
                RUNNER.kill()  # it may be at work on a template that does not end

    def _retry_after(self) -> int:
        ahead = len(self._waiting) + self.running
        seconds = _FIRST_ADVICE if self._seconds is None else self._seconds
        return max(1, min(_LONGEST_ADVICE, math.ceil(seconds * ahead)))

    def _work(self) -> None:
        while (job := self._next()) is not None:
            began = time.monotonic()
            job.waited = began - job.asked
            event = self._run(job)
            took = time.monotonic() - began
            with self._change:
                self._running = None
                self._seconds = took if self._seconds is None else self._seconds + 0.2 * (took - self._seconds)
            job.emit(event)
            if job.size > LARGE:
                give_back()

    def _next(self) -> Job | None:
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._stopping)
            if not self._waiting:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _run(self, job: Job) -> Ended | Failed:
        try:
            self._worker.run(job)
        except StoppedError:
            return Failed(job.reason or EdgeError("nobody waits for the answer any more"))
        except EdgeError as failure:
            return Failed(failure)
        except BaseException as failure:  # of a runtime, a panic too: one job fails, the next begins anew
            with suppress(Exception):
                self._worker.recover()
            return Failed(EdgeError(f"the model failed: {type(failure).__name__}: {failure}"))
        return Ended()
