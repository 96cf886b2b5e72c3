"""Runs workers, starts another after a crash, and keeps what was found."""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_SILENT = 45.0  # seconds without a word from a worker; its own alarm comes long before, unless native code hangs
_START = 240.0  # seconds for samples to be made and libraries to be loaded


@dataclass
class Outcome:
    """What a run of one target came to.

    Attributes:
        target: its name.
        seed: of the inputs.
        inputs: that were taken.
        seconds: that it ran.
        growth: kB that a worker grew by, at most.
        findings: places by kind (``uncaught``, ``crash``, ``hang``, ``memory``, ``growth``), each once.
    """

    target: str
    seed: int
    inputs: int = 0
    seconds: float = 0.0
    growth: int = 0
    findings: dict[str, list[str]] = field(default_factory=dict)


def fuzz(target: str, seconds: float, seed: int, out: Path) -> Outcome:
    """Run one target for a while, and keep its findings and its counts in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    outcome, first, left = Outcome(target, seed), 0, seconds
    while left > 0:
        worker = _Worker(target, seed, first, left, out)
        worker.run(outcome)
        ran = max(worker.ran, 0.5)
        left, outcome.seconds = left - ran, outcome.seconds + worker.ran
        outcome.inputs += worker.next - first
        first = worker.next
        if worker.failed_to_start:
            raise RuntimeError(f"the worker for {target} does not start: {worker.said[-2000:]}")
    return outcome


def note(outcome: Outcome, out: Path) -> None:
    """Add what a run came to to those of all runs."""
    with (out / "results.jsonl").open("a") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


class _Worker:
    """One worker process, from its start to its end.

    Attributes:
        next: the first input that it did not take.
        ran: seconds from its first word on.
    """

    def __init__(self, target: str, seed: int, first: int, seconds: float, out: Path) -> None:
        self._target, self._seed, self._seconds, self._out = target, seed, seconds, out
        self._counter = out / f".{target}-{os.getpid()}"
        self._first = self.next = first
        self.ran, self.failed_to_start, self.said = 0.0, False, ""

    def run(self, outcome: Outcome) -> None:
        started: float | None = None
        ended = False
        self._counter.unlink(missing_ok=True)
        process = self._started(str(self._seconds), str(self._counter))
        assert process.stdout is not None
        with selectors.DefaultSelector() as waiting, process:
            waiting.register(process.stdout, selectors.EVENT_READ)
            while True:
                if not waiting.select(_SILENT if started else _START):
                    process.send_signal(signal.SIGKILL)
                    self._found(outcome, "hang", "native code", self._number(), "")
                    break
                line = process.stdout.readline()
                if not line:
                    break
                if not line.startswith("{"):
                    self.said += line
                    continue
                started = started or time.monotonic()
                ended = self._heard(outcome, json.loads(line)) or ended
            process.wait()
        self.ran = time.monotonic() - started if started else 0.0
        if not ended and started is None and not self._counter.exists():
            self.failed_to_start = True
        elif not ended:
            status = process.returncode
            name = signal.Signals(-status).name if status < 0 else f"status {status}"
            if status != -signal.SIGKILL:
                self._found(outcome, "crash", name, self._number(), self.said[-3000:])
            self.next = self._number() + 1
        self._counter.unlink(missing_ok=True)

    def _started(self, *more: str, number: int | None = None) -> subprocess.Popen[str]:
        first = self._first if number is None else number
        command = [sys.executable, "-m", "tests.fuzz.worker", self._target, str(self._seed), str(first), *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")

    def _heard(self, outcome: Outcome, said: dict[str, Any]) -> bool:
        if "kind" in said:
            self._found(outcome, said["kind"], said["place"], said["number"], said["text"])
            return False
        self.next = said["next"]
        outcome.growth = max(outcome.growth, said["growth"])
        return bool(said.get("end"))

    def _number(self) -> int:
        """The input that was being taken."""
        data = self._counter.read_bytes() if self._counter.exists() else b""
        return int.from_bytes(data, "little") if data else self._first

    def _found(self, outcome: Outcome, kind: str, place: str, number: int, text: str) -> None:
        places = outcome.findings.setdefault(kind, [])
        if place in places:
            return
        places.append(place)
        digest = hashlib.sha256(f"{kind} {place}".encode()).hexdigest()[:8]
        folder = self._out / "findings" / self._target / f"{kind}-{digest}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / f"{folder.name}.txt").write_text(f"{place}\nseed {self._seed}, input {number}\n\n{text}")
        self._started(str(folder), number=number).communicate(timeout=_START)
