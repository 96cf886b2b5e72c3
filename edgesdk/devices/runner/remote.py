"""The runner of boards that have Python: it runs there as ``__main__`` of an archive, with no other part of edgesdk.

    python3 runner.pyz BUNDLE [THREADS]

Commands come in on standard input and events go out on standard output, a line each with its CRC-32
(:mod:`edgesdk.runner_lines`), as with the firmware of microcontrollers:

    hello                                        what is here
    ids MAX TEMPERATURE TOP_P SEED SLIDE 1,2,3   answer tokens (temperature and top_p in thousandths)
    measure MAX 1,2,3                            answer so many tokens, greedily, whatever they are
    operators MAX 1,2,3                          the same with every operator timed
    clock                                        what the clocks say now
    the byte 3 (Ctrl-C)                          stop the answer

Times are of CLOCK_MONOTONIC: ``ticks`` that ``hello`` counts per second, and ``at``, the moment of an event.
"""

from __future__ import annotations

import json
import os
import platform
import select
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.errors import EdgeError
from edgesdk.runner_lines import command_of, event_line
from edgesdk.silence import keep_silent

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.session import Session

    OperatorTimes = Callable[[list[int], int], Iterable[dict[str, Any]]]  # boards with Python 3.8 know no such types
PROTOCOL = 1
_STOP = b"\x03"


class Input:
    """Standard input: whole lines, and whether a Ctrl-C came."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._rest, self._stopped, self.ended = b"", False, False

    def line(self) -> bytes | None:
        """The next line; None at the end."""
        while not self._lines and not self.ended:
            self._read()
        return self._lines.pop(0) if self._lines else None

    def stopped(self) -> bool:
        """Whether a Ctrl-C came since the last call, or nobody listens any more."""
        while not self.ended and select.select([0], [], [], 0)[0]:
            self._read()
        stopped, self._stopped = self._stopped or self.ended, False
        return stopped

    def _read(self) -> None:
        data = os.read(0, 1 << 16)
        self.ended = not data
        self._stopped |= _STOP in data
        *lines, self._rest = (self._rest + data.replace(_STOP, b"")).split(b"\n")
        self._lines += [line for line in lines if line.strip()]


class Choice:
    """The next token from logits: greedy, or by temperature and nucleus with xorshift32, as the firmware does."""

    def __init__(self, temperature: float, top_p: float, seed: int) -> None:
        self._temperature, self._top_p, self._state = temperature, top_p, seed & 0xFFFFFFFF or 1

    def token(self, logits: np.ndarray) -> int:
        """One of them, from logits [vocab]."""
        import numpy as np

        best = int(logits.argmax())
        if self._temperature <= 0:
            return best
        weights = np.exp((logits.astype(np.float64) - float(logits[best])) / self._temperature)
        if self._top_p < 1:
            order = np.argsort(-weights, kind="stable")
            enough = int(np.searchsorted(np.cumsum(weights[order]), self._top_p * weights.sum())) + 1
            weights[order[enough:]] = 0
        return int(
            np.searchsorted(np.cumsum(weights), self._random() * weights.sum(), side="right").clip(0, len(weights) - 1)
        )

    def _random(self) -> float:
        state = self._state
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        self._state = state
        return ((state * 2654435769 & 0xFFFFFFFF) >> 8) / (1 << 24)


class Runner:
    """A loaded bundle that answers commands."""

    def __init__(
        self,
        session: Session,
        facts: dict[str, Any],
        stop: frozenset[int],
        incoming: Input,
        timed: OperatorTimes | None = None,
    ) -> None:
        self._session, self._facts, self._stop, self._input = session, facts, stop, incoming
        self._timed = timed

    def serve(self) -> None:
        """Answer until nobody sends any more."""
        say("hello", **self._facts)
        while (line := self._input.line()) is not None:
            try:
                command = command_of(line)
            except EdgeError:
                say(
                    "error",
                    code="line",
                    message="the checksum does not fit: the line was cut or changed; send it again",
                )
                continue
            try:
                self._do(command)
            except EdgeError as failure:
                say("error", code="command", message=failure.message)

    def _do(self, command: str) -> None:
        verb, _, rest = command.partition(" ")
        if verb == "hello":
            say("hello", **self._facts)
            return
        if verb == "clock":
            say("clock", at=time.monotonic_ns(), boottime=time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            return
        if verb in ("measure", "operators"):
            most, ids = _measured(rest)
            if verb == "measure":
                self._answer(ids, most, Choice(0, 1, 1), frozenset())
            else:
                self._operators(ids, most)
            return
        if verb != "ids":
            raise EdgeError("there are: hello, ids, measure, operators, clock")
        parts = rest.split(" ")
        try:
            most, temperature, top_p, seed, slide = (int(part) for part in parts[:5])
            ids = [int(each) for each in parts[5].split(",")]
        except (ValueError, IndexError):
            raise EdgeError("expected MAX TEMPERATURE TOP_P SEED SLIDE and tokens") from None
        if slide:
            raise EdgeError("this model's context cannot slide")
        self._answer(ids, most, Choice(temperature / 1000, top_p / 1000, seed), self._stop)

    def _operators(self, ids: list[int], most: int) -> None:
        if self._timed is None:
            raise EdgeError("this runtime does not time its operators here")
        try:
            for row in self._timed(ids, most):
                say("operator", **row)
        except (ImportError, OSError, ValueError, LookupError, RuntimeError, MemoryError) as failure:
            raise EdgeError(f"operators cannot be timed here: {failure}") from None
        say("done", prompt_tokens=len(ids), new_tokens=most, stop="length", text="", peak_rss_kb=_peak_rss_kb())

    def _answer(self, ids: list[int], most: int, choice: Choice, stops: frozenset[int]) -> None:
        session, stop, produced = self._session, "length", 0
        session.reset()
        self._input.stopped()
        start = time.monotonic_ns()
        logits = session.prefill(ids)
        now = time.monotonic_ns()
        say("prefill", tokens=len(ids), ticks=now - start, at=now)
        while produced < most:
            crc = zlib.crc32(logits.astype("<f4").tobytes())
            start = time.monotonic_ns()
            token = choice.token(logits)
            sampling = time.monotonic_ns() - start
            if token in stops:
                stop = "eos"
                break
            produced += 1
            full = session.position >= session.context
            start = time.monotonic_ns()
            if produced < most and not full:
                logits = session.decode(token)
            now = time.monotonic_ns()
            say("token", id=token, text="", logits=f"{crc:08x}", sample_ticks=sampling, ticks=now - start, at=now)
            if full or self._input.stopped():
                stop = "context" if full else "user"
                break
        say("done", prompt_tokens=len(ids), new_tokens=produced, stop=stop, text="", peak_rss_kb=_peak_rss_kb())


def say(event: str, **fields: Any) -> None:
    """One event, now."""
    os.write(1, event_line(event, **fields))


def main(arguments: list[str]) -> int:
    """Load a bundle and serve; the archive's own ``runner.json`` says how."""
    keep_silent()
    plan = json.loads(_inside("runner.json"))
    folder, threads = Path(arguments[0]), int(arguments[1]) if len(arguments) > 1 else None
    try:
        manifest = _manifest(folder)
        start = time.monotonic_ns()
        session = _opened(plan, folder, manifest, threads)
        say("load", ticks=time.monotonic_ns() - start, ticks_per_second=10**9)
    except EdgeError as failure:
        say("error", code="bundle", message=failure.message, hint=failure.hint or "")
        return 1
    facts = {
        "runner": f"python {platform.python_version()}",
        "protocol": PROTOCOL,
        "runtime": _runtime(plan["runtimes"]),
        "digest": manifest["digest"],
        "vocab": session.vocab,
        "context": session.context,
        "prompt_tokens": session.context - 1,
        "ticks_per_second": 10**9,
        "clock": "CLOCK_MONOTONIC",
        "pid": os.getpid(),
    }
    timed = _operator_times(plan.get("operators"), folder, manifest, threads)
    Runner(session, facts, frozenset(manifest["tokenizer"]["stop"]), Input(), timed).serve()
    return 0


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest, whose files are there in their sizes; their hashes were checked when they came."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for entry in manifest["files"]:
            size = (folder / entry["path"]).stat().st_size
            if size != entry["size"]:
                raise EdgeError(f"{entry['path']} has {size} bytes instead of {entry['size']}", hint="push it again")
    except (OSError, ValueError, KeyError) as failure:
        raise EdgeError(f"{folder} is no whole bundle ({failure})", hint="push it again") from None
    return manifest


def _opened(plan: dict[str, Any], folder: Path, manifest: dict[str, Any], threads: int | None) -> Session:
    module, _, name = plan["opener"].partition(":")
    _runtime(plan["runtimes"])
    try:
        opener = getattr(import_module(module), name)
    except ImportError as failure:
        raise EdgeError(f"{plan['runtimes'][0]} cannot be loaded ({failure})", hint="install it again there") from None
    session: Session = opener(folder / manifest["program"]["main"], manifest["context"], threads)
    return session


def _operator_times(
    name: str | None, folder: Path, manifest: dict[str, Any], threads: int | None
) -> OperatorTimes | None:
    """What times operators, bound to the bundle; None where the runtime has nothing for that."""
    if name is None:
        return None
    module, _, function = name.partition(":")

    def timed(ids: list[int], most: int) -> Iterable[dict[str, Any]]:
        found: Iterable[dict[str, Any]] = getattr(import_module(module), function)(
            folder / manifest["program"]["main"], manifest["context"], threads, ids, most
        )
        return found

    return timed


def _measured(rest: str) -> tuple[int, list[int]]:
    """How many tokens are asked for, and the prompt."""
    most, _, ids = rest.partition(" ")
    try:
        return int(most), [int(each) for each in ids.split(",")]
    except ValueError:
        raise EdgeError("expected MAX and tokens") from None


def _runtime(names: list[str]) -> str:
    """Name and version of the runtime that is installed."""
    for name in names:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    raise EdgeError(
        f"{sys.executable} has no {' or '.join(names)}",
        hint=f"there: {sys.executable} -m pip install {names[0]}; or another: python = '...' in devices.toml",
    )


def _peak_rss_kb() -> int | None:
    """The most memory that this process held, kB, as the kernel says (VmHWM)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def _inside(name: str) -> bytes:
    import zipfile

    with zipfile.ZipFile(sys.path[0]) as archive:
        return archive.read(name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
