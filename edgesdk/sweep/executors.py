"""What exports run on: this process, a pool of processes, or Ray (:mod:`.on_ray`)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .. import estimate
from ..children import importing_safely
from ..partials import sweep
from .jobs import ExportJob, Outcome, perform

if TYPE_CHECKING:
    from .plan import SweepFile

_ROOM = 8_000_000_000  # bytes of free memory for one worker
_MOST = 2
_DIED = "the worker process died; most often this machine had not enough memory for the export"
_TIDY = 20.0  # seconds that a worker has for its files when it is told to end
_busy = threading.Event()  # in a worker: it has files to tidy up before it ends


class Executor(Protocol):
    """Runs exports somewhere and brings their bundles here."""

    def run(self, jobs: Sequence[ExportJob], bundles: Path) -> Iterator[tuple[ExportJob, Outcome]]:
        """Do every job, and give each as it ends.

        A bundle without an error is whole at ``bundles / job.key``. Closing the iterator, or an interrupt, ends what
        still runs and leaves nothing half-written.
        """


def executor_of(file: SweepFile, workers: int | None) -> Executor:
    """What a sweep asks for.

    Raises:
        MissingExtraError: Ray is asked for and not installed.
    """
    workers = workers or file.workers
    if file.executor == "ray":
        from .on_ray import RayCluster

        return RayCluster(file.address, workers)
    return Serial() if file.executor == "serial" else ProcessPool(workers or default_workers())


def default_workers() -> int:
    """One for every 8 GB that are free, two at most, and one at least."""
    return max(1, min(_MOST, (estimate.available_memory() or 0) // _ROOM))


class Serial:
    """One export after another, in this process."""

    def run(self, jobs: Sequence[ExportJob], bundles: Path) -> Iterator[tuple[ExportJob, Outcome]]:
        for job in jobs:
            yield job, perform(job, bundles / job.key)


class ProcessPool:
    """Fresh (spawned) processes on this machine, which share its cores."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, jobs: Sequence[ExportJob], bundles: Path) -> Iterator[tuple[ExportJob, Outcome]]:
        lost = []
        with importing_safely():
            for job, outcome in _pooled(jobs, bundles, min(self.workers, len(jobs))):
                if outcome is None:
                    lost.append(job)
                else:
                    yield job, outcome
            for job in lost:  # one of them took the pool down: alone, the others go well
                for _, outcome in _pooled([job], bundles, 1):
                    yield job, outcome or Outcome(_DIED)


def _pooled(jobs: Sequence[ExportJob], bundles: Path, workers: int) -> Iterator[tuple[ExportJob, Outcome | None]]:
    """Jobs with their outcomes; None for those that went down with a worker."""
    if not jobs:
        return
    threads = max(1, (os.cpu_count() or 1) // workers)
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(threads,))
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # workers, born here, inherit it until they are ready
        try:
            futures = {pool.submit(_in_worker, job, bundles / job.key): job for job in jobs}
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for future in as_completed(futures):
            try:
                outcome = future.result()
            except BrokenProcessPool:
                outcome = None
            yield futures[future], outcome
    except BaseException:  # interrupted, or nobody wants the rest
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        pool.shutdown(wait=True)
        for job in jobs:  # of a worker that did not come to it
            sweep(bundles / job.key)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(threads: int) -> None:
    """A worker ends when it is told to, or when its parent is gone, and not at Ctrl-C, which the parent hears too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_outlive_nobody, daemon=True).start()
    import torch

    torch.set_num_threads(threads)


def _end(number: int, frame: object) -> None:
    if not _busy.is_set():
        os._exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: files are being tidied up
    patience = threading.Timer(_TIDY, os._exit, (1,))  # a library may swallow what is raised in its midst
    patience.daemon = True
    patience.start()
    raise SystemExit(128 + number)


def _outlive_nobody() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _in_worker(job: ExportJob, out: Path) -> Outcome:
    try:
        _busy.set()
        outcome = perform(job, out)
        _busy.clear()
    except SystemExit:
        os._exit(1)  # the pool would hand this worker its next job
    return outcome
