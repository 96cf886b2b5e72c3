"""What else a device did meanwhile: processor time of other programs, and what a hypervisor gave to others.

Format: proc(5), ``/proc/stat`` and ``/proc/PID/stat``, in hundredths of a second (USER_HZ, 100 on Linux but for Alpha
and Itanium); ``/proc/uptime`` gives the time between two looks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..devices.local import LocalDevice
from ..devices.shell import ShellDevice
from ..errors import EdgeError
from ..progress import Progress
from .reasons import reason
from .schema import Reason, Section, Validity, Value

_HZ = 100.0
_TIMEOUT = 30.0
_APART = "--"
_START_SECONDS = 1.0  # of the look before a run
_QUIET_LOOKS = 3  # in a row that must be quiet to go on
_LEAST, _MOST, _PART = 0.2, 0.5, 0.05  # processors that others may use: between the first two, that part of all
_WINDOW = 1.0  # seconds of repeats in all: the kernel counts in hundredths, and each look itself costs one
# Both lie above what 20 quiet profiles of SmolLM2 showed on a virtual machine (README.md): 7 % and 32 %.
_STOLEN = 0.1  # of the processor time that was wanted
_WIDE = 0.4  # of the median: a wider interval of the rate is no figure to go by


@dataclass(frozen=True)
class Look:
    """The processors until a moment, in seconds: time, what all programs used, what some did, what was stolen."""

    time: float
    busy: float
    own: float
    stolen: float
    count: int


@dataclass(frozen=True)
class Used:
    """What happened between two looks.

    Attributes:
        seconds: between them.
        foreign: processor seconds of programs that do not belong to the measurement.
        wanted: processor seconds of all programs, with what they had to wait for.
        stolen: of these, what a hypervisor gave to others.
        count: of processors.
    """

    seconds: float
    foreign: float
    wanted: float
    stolen: float
    count: int


def look(device: ShellDevice, pid: int | None) -> Look | None:
    """The processors of a device now; None where it does not show them.

    Args:
        device: where.
        pid: of the runner, whose time is the measurement's own.

    Raises:
        DeviceError: the device is gone.
    """
    files = ["/proc/stat", *([] if pid is None else [f"/proc/{pid}/stat"])]
    return read(device.run(f"cat /proc/uptime {' '.join(files)} 2> /dev/null", timeout=_TIMEOUT).text, beside(device))


def beside(device: ShellDevice) -> float:
    """Processor seconds that this program, which measures, has taken from the device itself."""
    return time.process_time() if isinstance(device, LocalDevice) else 0.0


def read(text: str, mine: float = 0.0) -> Look | None:
    """A look from what the files say; None where one is missing or is not as documented.

    Args:
        text: ``/proc/uptime``, ``/proc/stat``, and ``/proc/PID/stat`` of programs that belong to the measurement: their
            time and that of their children is its own.
        mine: more seconds of its own.
    """
    lines = text.splitlines()
    whole = next((line.split()[1:] for line in lines if line.startswith("cpu ")), [])
    count = sum(line.startswith("cpu") and line[3:4].isdigit() for line in lines)
    own = [line.rpartition(")")[2].split()[11:15] for line in lines[1:] if ") " in line]
    try:
        user, nice, system, _idle, _iowait, irq, softirq, stolen = (float(word) / _HZ for word in whole[:8])
        runner = sum(float(word) for words in own for word in words) / _HZ
        now = float(lines[0].split()[0])
    except (ValueError, IndexError):
        return None
    return Look(now, user + nice + system + irq + softirq, runner + mine, stolen, max(1, count))


def between(before: Look | None, after: Look | None) -> Used | None:
    """What happened between two looks; None where one is missing or time stood still."""
    if before is None or after is None or after.time <= before.time:
        return None
    busy, own, stolen = after.busy - before.busy, after.own - before.own, after.stolen - before.stolen
    return Used(after.time - before.time, max(0.0, busy - own), max(0.0, busy) + max(0.0, stolen), max(0.0, stolen),
                after.count)  # fmt: skip


def at_rest(device: ShellDevice, seconds: float = _START_SECONDS) -> Used | None:
    """What other programs use while nothing is measured; by one command, so that its start is not among them."""
    show, mine = "cat /proc/uptime /proc/stat 2> /dev/null", beside(device)
    done = device.run(f"{show}; sleep {seconds:g}; echo {_APART}; {show}", timeout=_TIMEOUT)
    before, _, after = done.text.partition(f"{_APART}\n")
    return between(read(before, mine), read(after, beside(device)))


def wait_for_quiet(device: ShellDevice, seconds: float, progress: Progress) -> None:
    """Wait until other programs leave a device alone.

    Raises:
        EdgeError: they do not, or the device does not show what they use.
    """
    give_up, quiet = time.monotonic() + seconds, 0
    with progress.stage("Waiting for other programs to leave the processors", seconds) as stage:
        while quiet < _QUIET_LOOKS:
            before = time.monotonic()
            used = at_rest(device)
            if used is None:
                raise EdgeError(
                    f"{device.name}: does not show what other programs use, so that there is no waiting for quiet",
                    hint="measure without --wait-quiet",
                )
            quiet = quiet + 1 if _rate(used) < allowed(used.count) else 0
            if not quiet and time.monotonic() > give_up:
                raise EdgeError(
                    f"{device.name}: after {seconds:.0f} seconds other programs still use {_rate(used):.2f} of "
                    f"{used.count} processors",
                    hint="stop them, wait longer, or measure without --wait-quiet: the profile then says so",
                )
            stage.advance(time.monotonic() - before)


def allowed(count: int) -> float:
    """Processors that other programs may use beside a measurement that counts as undisturbed."""
    return min(_MOST, max(_LEAST, _PART * count))


def judged(start: Used | None, repeats: Sequence[Used | None]) -> tuple[Section, list[Reason]]:
    """What others used, and the reasons why a profile is not (wholly) to be believed for it.

    Args:
        start: before the first start of the runner.
        repeats: in each of the repeats.
    """
    known = [used for used in repeats if used is not None]
    missing = "not-reported" if not known else "short-window"
    if sum(used.seconds for used in known) < _WINDOW:
        known = []
    seconds, wanted = sum(used.seconds for used in known), sum(used.wanted for used in known)
    foreign = sum(used.foreign for used in known) / seconds if seconds else None
    stolen = sum(used.stolen for used in known) / wanted if wanted else None
    reasons = list(_doubts(start, known, foreign, stolen))
    values = {
        "start": _value(None if start is None else _rate(start), "processors", "not-reported"),
        "foreign": _value(foreign, "processors", missing, [_rate(used) for used in known]),
        "stolen": _value(stolen, "", missing),
    }
    validity: Validity = "degraded" if reasons else "valid" if known else "invalid"
    return Section(validity, tuple(reasons) if known else (reason(missing),), values), reasons


def _doubts(start: Used | None, known: Sequence[Used], foreign: float | None, stolen: float | None) -> Iterable[Reason]:
    if start is not None and _rate(start) >= allowed(start.count):
        yield reason("busy-start", f"{_rate(start):.2f} of {start.count} processors were used before it began")
    if foreign is not None and foreign >= allowed(known[0].count):
        yield reason("contended", f"{foreign:.2f} of {known[0].count} processors, on the mean of the repeats")
    if stolen is not None and stolen >= _STOLEN:
        yield reason("stolen", f"{stolen:.1%} of what was wanted")


def wide(rate: Value) -> Reason | None:
    """The reason where the interval of a rate is too wide to go by."""
    if not rate.value or rate.low is None or rate.high is None or rate.high - rate.low <= _WIDE * rate.value:
        return None
    return reason("wide-interval", f"{rate.value:.4g} ({rate.low:.4g} to {rate.high:.4g}) {rate.unit}")


def _rate(used: Used) -> float:
    return used.foreign / used.seconds


def _value(value: float | None, unit: str, missing: str, each: Sequence[float] = ()) -> Value:
    return Value(value, unit, missing if value is None else None, each=tuple(each))
