"""Progress as events: the library reports, only ``edgesdk.cli`` draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

T = TypeVar("T")


class Stage(Protocol):
    """One running stage of a long job."""

    def advance(self, steps: float = 1) -> None:
        """Count ``steps`` more as done."""


class Progress(Protocol):
    """Receives the stages of a long job."""

    def stage(self, title: str, total: float | None = None) -> AbstractContextManager[Stage]:
        """Open a stage of ``total`` steps (None: unknown); leaving the context ends it."""

    def note(self, text: str) -> None:
        """Say one thing that the user should know, now."""


class _SilentStage:
    def advance(self, steps: float = 1) -> None:
        pass


class Silent:
    """Drops every event: the default of the Python API."""

    def stage(self, title: str, total: float | None = None) -> AbstractContextManager[Stage]:
        return nullcontext(_SilentStage())

    def note(self, text: str) -> None:
        pass


SILENT: Progress = Silent()


def track(progress: Progress, title: str, items: Iterable[T], total: int | None = None) -> Iterator[T]:
    """Yield ``items`` while reporting each as one step of a stage."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress.stage(title, total) as stage:
        for item in items:
            yield item
            stage.advance()
