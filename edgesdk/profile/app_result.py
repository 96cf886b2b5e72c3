"""What the benchmark of an app wrote, read back: the runner protocol's lines, and what they come to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..devices.runner.link import PROTOCOL
from ..errors import EdgeError
from ..runner_lines import opened
from ..schema import load_open
from .app_events import KINDS
from .schema import ProfileError

Event = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One prompt and its answer.

    Attributes:
        kind: ``warmup``, ``repeat`` or ``sustained``.
        events: ``prefill``, each ``token`` (or ``pieces``, where pieces are not tokens), ``done``.
        sensors: what the phone said before and after.
    """

    kind: str
    events: tuple[Event, ...]
    sensors: tuple[Event, ...]

    @property
    def prompt_tokens(self) -> int:
        return int(self.events[-1]["prompt_tokens"])


@dataclass(frozen=True)
class Result:
    """A result file.

    Attributes:
        hello: bundle, phone, clocks.
        load_seconds: for the program; None where it did not come so far.
        memory: looks at the app's memory.
        runs: every run that ended.
        failure: what the app said of its failure; None where all went well.
        complete: whether the plan was carried out to its end.
    """

    hello: Event
    load_seconds: float | None
    memory: tuple[Event, ...]
    runs: tuple[Run, ...]
    failure: str | None
    complete: bool

    def summary(self) -> str:
        """Medians over the repeats, a line for each prompt."""
        ticks = self.hello["ticks_per_second"]
        lines = [f"{self.hello.get('manufacturer', '')} {self.hello.get('model', '')}, {self.hello.get('runtime', '')}"]
        lengths = sorted({run.prompt_tokens for run in self.runs if run.kind == "repeat"})
        for length in lengths:
            runs = [run for run in self.runs if run.kind == "repeat" and run.prompt_tokens == length]
            first = statistics.median(run.events[0]["ticks"] / ticks for run in runs)
            rates = [rate for run in runs if (rate := _decode_rate(run, ticks)) is not None]
            decoded = f"{statistics.median(rates):.1f} tokens/s" if rates else "no decode rate"
            lines.append(f"{length} tokens: first token after {first:.3f} s, {decoded}, {len(runs)} repeats")
        if self.failure is not None:
            lines.append(f"failed: {self.failure}")
        elif not self.complete:
            lines.append("cut off before its end")
        return "\n".join(lines)


def read_result(path: str | Path) -> Result:
    """Read what the benchmark app wrote.

    Raises:
        ProfileError: it cannot be read, a line of it was changed, or it is of another protocol.
    """
    events = [_event(line, number, path) for number, line in enumerate(_lines(Path(path)), 1)]
    hello = next((event for event in events if event["event"] == "hello"), None)
    failure = next((event for event in events if event["event"] == "error"), None)
    said = None if failure is None else str(failure.get("message") or failure.get("code"))
    if hello is None:
        raise ProfileError(f"{path}: the benchmark did not begin{f': {said}' if said else ''}", hint="run it again")
    if hello.get("protocol") != PROTOCOL:
        raise ProfileError(
            f"{path}: protocol {hello.get('protocol')}, this edgesdk reads {PROTOCOL}",
            hint="package the bundle again with this edgesdk",
        )
    load = next((event for event in events if event["event"] == "load"), None)
    return Result(
        hello,
        None if load is None else load["ticks"] / load["ticks_per_second"],
        tuple(event for event in events if event["event"] == "memory"),
        tuple(_runs(events)),
        said,
        any(event["event"] == "end" for event in events),
    )


def _lines(path: Path) -> list[bytes]:
    try:
        data = path.read_bytes()
    except OSError as failure:
        raise ProfileError(f"{path}: {failure.strerror or failure}", hint="scripts/benchmark.sh writes one") from None
    lines = data.split(b"\n")
    return [line for line in lines[:-1] if line]  # a last line without its end was being written


def _event(line: bytes, number: int, path: str | Path) -> Event:
    try:
        event = opened(line)
    except EdgeError:
        raise ProfileError(
            f"{path}: line {number} was changed since the phone wrote it", hint="pull it again"
        ) from None
    kind: Any = KINDS.get(event["event"])
    if kind is not None:
        load_open(kind, event, f"{path}, line {number}", ProfileError)
    return event


def _runs(events: Sequence[Event]) -> list[Run]:
    """Runs that ended; each lies between what the sensors said before and after it."""
    found: list[Run] = []
    begun: Event | None = None
    said: list[Event] = []
    sensors: list[Event] = []
    for event in events:
        if event["event"] == "sensors":
            sensors.append(event)
        elif event["event"] == "run":
            begun, said, sensors = event, [], sensors[-1:]
        elif begun is not None and event["event"] in ("prefill", "token", "pieces", "done"):
            said.append(event)
        ended = bool(said) and said[0]["event"] == "prefill" and said[-1]["event"] == "done"
        if begun is not None and event["event"] == "sensors" and ended:
            found.append(Run(str(begun["kind"]), tuple(said), tuple(sensors[-2:])))
            begun = None
    return found


def _decode_rate(run: Run, ticks: float) -> float | None:
    done = run.events[-1]
    if done.get("decode_ticks") is None or done["new_tokens"] < 2:
        return None
    return float((done["new_tokens"] - 1) * ticks / done["decode_ticks"])
