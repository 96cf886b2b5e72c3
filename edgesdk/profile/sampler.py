"""The host's side of the sampler: it sets the pace, and turns lines into samples of sensors."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..devices.base import DeviceError, DeviceTimeoutError
from ..devices.shell import ShellDevice, ShellLine
from ..errors import EdgeError
from . import sensors as sources
from .sensors.base import Asked, Files, Remark, Sensor, Sum
from .sensors.listed import warm

_SCRIPT = Path(__file__).with_name("sampler.sh").read_text(encoding="utf-8")
_SLOW = 1.0  # seconds between two looks at what changes slowly
_ANSWER = 10.0  # seconds for one
_KNOWN = 10  # looks until their length is known
_RARE, _RAREST = 1.0, 10.0  # seconds between looks at most: of what energy is computed from, and of the rest
_PILED = 3  # looks of one kind that were asked for and have not come
_HALF = 0.005  # /proc/uptime is cut to hundredths: on the average it is this much behind


@dataclass
class Samples:
    """What came of sensors: moments in seconds of the sampler's clock, and values, None where unreadable."""

    moments: dict[str, list[float]] = field(default_factory=dict)
    values: dict[str, list[float | None]] = field(default_factory=dict)

    def add(self, name: str, moment: float, value: float | None) -> None:
        self.moments.setdefault(name, []).append(moment)
        self.values.setdefault(name, []).append(value)

    def extend(self, other: Samples) -> None:
        for name, moments in other.moments.items():
            self.moments.setdefault(name, []).extend(moments)
            self.values.setdefault(name, []).extend(other.values[name])


@dataclass(frozen=True)
class Cost:
    """CPU seconds of the sampler and of what it started, and the seconds that it ran for."""

    cpu: float
    elapsed: float


class Sampler:
    """A sampler that runs on a device until it is closed, beside a runner.

    Attributes:
        failure: why nothing comes any more; None while all is well.
        uncertainty: seconds that a moment may be off: the clock's resolution and the longest tick seen.
    """

    def __init__(
        self, device: ShellDevice, found: Sequence[Sensor], interval: float, share: float | None = None
    ) -> None:
        """Start it, and wait until it answers.

        Args:
            device: where it runs.
            found: what it reads.
            interval: seconds between two looks at what energy is computed from; the rest is looked at once a second.
            share: of the time of one core that it may take: looks are further apart where they take longer.

        Raises:
            DeviceError: the device cannot run it.
        """
        self._sensors, self._interval, self._share = tuple(found), interval, share
        often = _often(self._sensors)
        self._read = {"f": often, "s": [sensor for sensor in self._sensors if sensor not in often]}
        self._paths = {kind: _paths(each) for kind, each in self._read.items()}
        commands = _commands(self._sensors)
        self._commands = list(commands)
        self._every = {"f": 0.0, **({"s": _SLOW} if self._paths["s"] else {})}
        for number, (command, every) in enumerate(commands.items(), 1):
            self._every[f"c {number}"] = every
            self._read[f"c {number}"] = [sensor for sensor in self._sensors if _asks(sensor, command)]
        self._line = _started(device, self._paths, self._commands)
        self._took, self._lock = Samples(), threading.Lock()
        self._running, self._closed = threading.Event(), threading.Event()
        self._ticked = threading.Condition()
        self._times, self._text = list[str](), list[str]()
        self._processors: str | None = None
        self._last: dict[str, float | None] = {}
        self.failure: EdgeError | None = None
        self.uncertainty, self._since = _HALF, time.monotonic()
        self._asked, self._looked, self._sending = dict[str, int](), dict[str, tuple[int, float]](), threading.Lock()
        for work in (self._pace, self._listen):
            threading.Thread(target=self._guarded, args=(work,), daemon=True).start()

    def resume(self) -> None:
        """Begin to sample, or go on."""
        self._running.set()

    def pause(self) -> None:
        """Sample nothing until :meth:`resume`."""
        self._running.clear()

    def taken(self) -> Samples:
        """What came since the last call."""
        with self._lock:
            took, self._took = self._took, Samples()
        return took

    def settle(self) -> None:
        """Look at all files now: what begins or ends next is then between two samples."""
        self._look(["f", "s"] if self._paths["s"] else ["f"])

    def now(self, names: Collection[str]) -> dict[str, float | None]:
        """What sensors say now, commands included; those that say nothing are left out."""
        self._look([look for look, sensors in self._read.items() if any(sensor.name in names for sensor in sensors)])
        return {name: self._last[name] for name in names if name in self._last}

    def _look(self, looks: Sequence[str]) -> None:
        """Have the device do so now, and wait for its answer; one that does not come is a failure."""
        with self._ticked:
            before = {look: self._looked.get(look, (0, 0.0))[0] for look in looks}
        try:
            self._send("".join(f"{look}\n" for look in looks).encode())
        except DeviceError:
            return  # the other threads see it too, and say so
        with self._ticked:
            came = self._ticked.wait_for(
                lambda: (
                    self.failure is not None
                    or all(self._looked.get(look, (0, 0.0))[0] > count for look, count in before.items())
                ),
                _ANSWER,
            )
            if not came:
                self.failure = DeviceTimeoutError(f"the sampler did not answer for {_ANSWER:g} s: a sensor hangs")

    def processors(self, pid: int) -> str:
        """What the processors did until now, and of it a process and the sampler itself, as :func:`contention.read`
        takes it; "" where it does not answer."""
        with self._ticked:
            self._processors = None
        try:
            self._send(f"p {pid}\n".encode())
        except DeviceError:
            return ""
        with self._ticked:
            self._ticked.wait_for(lambda: self._processors is not None or self.failure is not None, _ANSWER)
            return self._processors or ""

    def cost(self) -> Cost | None:
        """What it has cost so far; None where the shell does not say."""
        try:
            self._send(b"t\n")
        except DeviceError:
            return None
        with self._ticked:
            self._ticked.wait_for(lambda: len(self._times) >= 2 or self.failure is not None, _ANSWER)
            lines, self._times = self._times[:2], []
        seconds = [_cpu(part) for line in lines for part in line.split()]
        if len(seconds) != 4:
            return None
        return Cost(sum(seconds), time.monotonic() - self._since)

    def close(self) -> None:
        """End it; never raises."""
        self._closed.set()
        self._running.set()
        self._line.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (EdgeError, OSError, ValueError, LookupError) as failure:
            if not self._closed.is_set():
                with self._ticked:
                    self.failure = failure if isinstance(failure, EdgeError) else EdgeError(f"the sampler: {failure}")
                    self._ticked.notify_all()

    def _pace(self) -> None:
        """A line for every look; one that the device is late for is left out, and not made up for."""
        looks = {look: max(every, self._interval) for look, every in self._every.items()}
        due = dict.fromkeys(looks, time.monotonic())
        while not self._closed.is_set():
            self._running.wait()
            look = min(due, key=lambda each: due[each])
            time.sleep(max(0.0, due[look] - time.monotonic()))
            if self._running.is_set() and not self._behind(look):
                self._send(look.encode() + b"\n")
            due[look] = max(due[look], time.monotonic() - looks[look]) + self._spaced(look, looks[look])

    def _behind(self, name: str) -> bool:
        """Whether what was asked for has not come: more of it would only pile up."""
        asked, came = self._asked.get(name, 0), self._looked.get(name, (0, 0.0))[0]
        self._asked[name] = max(asked, came) + (asked - came < _PILED)
        return asked - came >= _PILED

    def _spaced(self, look: str, every: float) -> float:
        """Seconds until the next look of a kind: more where they take long, but energy always has its samples."""
        count, seconds = self._looked.get(look, (0, 0.0))
        if self._share is None or count < _KNOWN:
            return every
        most = _RARE if look == "f" else _RAREST if not any(s.total for s in self._read[look]) else every
        return max(every, min(seconds / count / self._share, most))

    def _send(self, data: bytes) -> None:
        with self._sending:
            self._line.send(data)

    def _noted(self, name: str, seconds: float) -> None:
        """How long a look took; /proc/uptime is coarse, but right on the average."""
        with self._ticked:
            count, before = self._looked.get(name, (0, 0.0))
            self._looked[name] = count + 1, before + seconds
            self.uncertainty = max(self.uncertainty, seconds / 2 + _HALF)
            self._ticked.notify_all()

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                line = self._line.line(1.0).decode("utf-8", "replace")
            except DeviceTimeoutError:
                continue
            self._understand(line)

    def _understand(self, line: str) -> None:
        kind, _, rest = line.partition(" ")
        if kind in self._paths:
            self._files(kind, rest.split())
        elif kind == "c":
            self._text = [rest.split(" ")[1]]
        elif kind == "p":
            self._text = [rest]
        elif kind == "|":
            self._text.append(rest)
        elif kind == "e":
            number, after = rest.split(" ")
            self._command(int(number), float(self._text[0]), float(after))
        elif kind == "q":
            with self._ticked:
                self._processors = "\n".join(self._text)
                self._ticked.notify_all()
        elif "m" in kind and "s" in kind:
            with self._ticked:
                self._times.append(line)
                self._ticked.notify_all()

    def _files(self, kind: str, words: list[str]) -> None:
        before, after, numbers = float(words[0]), float(words[-1]), words[1:-1]
        read = {path: _number(word) for path, word in zip(self._paths[kind], numbers, strict=True)}
        moment = (before + after) / 2 + _HALF
        with self._lock:
            for sensor in self._read[kind]:
                if isinstance(sensor.reading, Files):
                    self._heard(sensor, moment, _product(sensor.reading, read))
        self._noted(kind, after - before)

    def _command(self, number: int, before: float, after: float) -> None:
        moment, text, look = (before + after) / 2 + _HALF, "\n".join(self._text[1:]), f"c {number}"
        values = {name: sources.values(name, text) for name in {sensor.source for sensor in self._read[look]}}
        with self._lock:
            for sensor in self._read[look]:
                if isinstance(sensor.reading, Asked):
                    value = values[sensor.source].get(sensor.reading.key)
                    self._heard(sensor, moment, None if value is None else value * sensor.reading.scale)
        self._noted(look, after - before)

    def _heard(self, sensor: Sensor, moment: float, value: float | None) -> None:
        if sensor.quantity == "temperature" and not warm(value):  # a part without power, at this moment
            value = None
        self._took.add(sensor.name, moment, value)
        self._last[sensor.name] = value


@dataclass(frozen=True)
class Survey:
    """What a device can measure of itself, and what keeps it from more."""

    sensors: list[Sensor]
    remarks: list[Remark]


def discover(device: ShellDevice) -> Survey:
    """The sensors of a device, in one round trip.

    Raises:
        DeviceError: the device does not answer.
    """
    done = device.run("exec sh -s", stdin=sources.listing().encode(), timeout=60)
    return Survey(sources.discovered(done.text), sources.remarked(done.text))


def _often(found: Sequence[Sensor]) -> list[Sensor]:
    """What energy is computed from; the rest changes slowly, and reading costs the device's time."""
    parts = {name for s in found if s.total and isinstance(s.reading, Sum) for name in s.reading.names}
    return [sensor for sensor in found if sensor.total or sensor.name in parts]


def _asks(sensor: Sensor, command: str) -> bool:
    return isinstance(sensor.reading, Asked) and sensor.reading.command == command


def _commands(found: Sequence[Sensor]) -> dict[str, float]:
    """Commands and the seconds between two runs of each."""
    every: dict[str, float] = {}
    for sensor in found:
        if isinstance(sensor.reading, Asked):
            command = sensor.reading.command
            every[command] = min(every.get(command, sensor.reading.every), sensor.reading.every)
    return every


def _started(device: ShellDevice, paths: Mapping[str, Sequence[str]], commands: Sequence[str]) -> ShellLine:
    words = ["sh", "-c", _SCRIPT, "sampler", *paths["f"], "--", *paths["s"], "--", *commands]
    line = device.stream(f"exec {shlex.join(words)}")
    try:
        while not line.line(_ANSWER).startswith(b"ready "):
            pass
    except DeviceError:
        line.close()
        raise
    return line


def _paths(found: Sequence[Sensor]) -> list[str]:
    return list(dict.fromkeys(path for each in found if isinstance(each.reading, Files) for path in each.reading.paths))


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _product(reading: Files, read: dict[str, float | None]) -> float | None:
    product = reading.scale
    for path in reading.paths:
        factor = read[path]
        if factor is None:
            return None
        product *= factor
    return product


def _cpu(text: str) -> float:
    minutes, _, seconds = text.rstrip("s").partition("m")
    return 60 * float(minutes) + float(seconds)


def once(device: ShellDevice, found: Sequence[Sensor]) -> dict[str, float | None]:
    """What sensors say now.

    Raises:
        DeviceError: the device cannot run the sampler.
    """
    if not found:
        return {}
    sampler = Sampler(device, found, 0.2)
    try:
        now = sampler.now([sensor.name for sensor in found])
    finally:
        sampler.close()
    for sensor in found:
        if isinstance(sensor.reading, Sum):
            parts = [now.get(name) for name in sensor.reading.names]
            known = [part for part in parts if part is not None]
            now[sensor.name] = sum(known) if len(known) == len(parts) else None
    return now
