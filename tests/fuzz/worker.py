"""Takes inputs one after another, in a process with limits, and says on standard output what became of them."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

from .case import Case, Files

HANG = 5  # seconds of work; what waits forever is noticed by the supervisor
_GROWTH = 1 << 20  # kB
_ROOM = 3 << 30  # bytes of address space beyond what is there at the start
_SETTLED = 20  # inputs, after which libraries are loaded
_SAID = 1.0  # seconds between two counts


class HangError(BaseException):
    """An input took longer than :data:`HANG`; no ``except Exception`` takes it for its own."""


def input_of(case: Case, seed: int, number: int) -> Files:
    """The n-th input of a seed."""
    return case.make(Random(f"{seed}/{number}"))


def verdict(case: Case, files: Files) -> tuple[str, str, str] | None:
    """Kind, place and traceback of what must not happen; None where an input was taken, or refused in words."""
    import click

    from edgesdk.errors import EdgeError

    signal.setitimer(signal.ITIMER_PROF, HANG)
    try:
        case.run(files)
    except (EdgeError, click.ClickException, OSError):
        return None
    except MemoryError as failure:
        return "memory", *_place(failure)
    except HangError as failure:
        return "hang", *_place(failure)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as failure:
        return "uncaught", *_place(failure)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return None


def work(case: Case, seed: int, first: int, seconds: float, counter: Path) -> None:
    """Take inputs until the time is over."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    _limit()
    end, number, base, said = time.monotonic() + seconds, first, 0, 0.0
    at = os.open(counter, os.O_WRONLY | os.O_CREAT)
    while time.monotonic() < end:
        os.pwrite(at, number.to_bytes(8, "little"), 0)
        found = verdict(case, input_of(case, seed, number))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        base = peak if number < first + _SETTLED else base
        if found is None and peak - base > _GROWTH:
            base, found = peak, ("growth", f"{peak >> 10} MB", "")
        number += 1
        if found is not None:
            print(json.dumps({"kind": found[0], "place": found[1], "text": found[2], "number": number - 1}), file=out)
        if found is not None or time.monotonic() - said > _SAID:
            said = time.monotonic()
            print(json.dumps({"next": number, "peak": peak, "growth": peak - base}), file=out)
    print(json.dumps({"next": number, "peak": peak, "growth": peak - base, "end": True}), file=out)


def alarmed() -> None:
    """Have the alarm end what an input does."""

    def hang(number: int, frame: object) -> None:
        raise HangError(f"more than {HANG} s")

    signal.signal(signal.SIGPROF, hang)


def _limit() -> None:
    """Memory, so that an input that asks for more than there is fails in this process, and no core files."""
    alarmed()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _place(failure: BaseException) -> tuple[str, str]:
    """The innermost line of edgesdk's, and the traceback."""
    here = Path(__file__).parents[2]
    frames = traceback.extract_tb(failure.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).parts[-1:] and _is_product(Path(frame.filename), here)]
    frame = (own or frames)[-1]
    name = Path(frame.filename)
    shown = name.relative_to(here) if name.is_relative_to(here) else name
    text = "".join(traceback.format_exception(failure, limit=-12))[-4000:]
    return f"{type(failure).__name__} {shown}:{frame.lineno} {frame.name}", text


def _is_product(file: Path, here: Path) -> bool:
    return any(file.is_relative_to(here / part) for part in ("edgesdk", "converters"))


def main(arguments: list[str]) -> None:
    """``TARGET SEED FIRST SECONDS COUNTER`` takes inputs; ``TARGET SEED NUMBER FOLDER`` writes one down."""
    from .targets import TARGETS
    from .targets.itself import opened

    target, seed, number, *rest = arguments
    with tempfile.TemporaryDirectory(prefix="edgesdk-fuzz-") as scratch:
        case = (TARGETS | {"self-test": opened})[target](Path(scratch))
        if len(rest) == 1:
            write(input_of(case, int(seed), int(number)), Path(rest[0]))
        else:
            work(case, int(seed), int(number), float(rest[0]), Path(rest[1]))


def write(files: Files, folder: Path) -> None:
    """Put an input into a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read(folder: Path) -> dict[str, bytes]:
    """An input from a folder."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
