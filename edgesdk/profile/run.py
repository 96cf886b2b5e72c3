"""The protocol: what runs on the device, in which order, with which rests; all goes into the record as it comes."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from ..bundle import Bundle
from ..devices.base import Device, DeviceError, DeviceGoneError, DeviceTimeoutError
from ..devices.runner.events import Step
from ..devices.runner.link import RunnerLink
from ..devices.runner.start import running
from ..devices.shell import ShellDevice
from ..errors import EdgeError
from ..progress import Progress, Stage
from ..schema import dump
from .contention import Look, at_rest, beside, between, look, read, wait_for_quiet
from .prompts import prompt
from .record import Line, Record
from .regime import regime_or_none
from .sampler import Sampler, Samples
from .schema import Plan
from .sensors.base import Meter, Sensor

_METERED = 0.3  # seconds in which every meter has given a value
_LOOK = 1.0  # seconds between two looks at the temperature
_FROZEN = 15.0  # seconds of waiting, after which a zone that never moved is not waited for
_PLATEAU, _FALL = 60.0, 0.5  # seconds in which the hottest zone must fall by so many °C, or it will not
_JUMP = 0.05  # seconds that two clocks may drift apart within a repeat


class Measuring:
    """One run of a plan on one device with one bundle."""

    def __init__(
        self,
        device: Device,
        bundle: Bundle,
        plan: Plan,
        record: Record,
        *,
        sensors: Sequence[Sensor] = (),
        meters: Sequence[Meter] = (),
        progress: Progress,
    ) -> None:
        self._device, self._bundle, self._plan, self._record = device, bundle, plan, record
        self._sensors, self._meters, self._progress = tuple(sensors), tuple(meters), progress
        self._sampler: Sampler | None = None
        self._spans: dict[str, tuple[float, float]] = {}  # least and most of every sensor of the device
        self._lost: str | None = None  # why a meter is gone
        self._link: RunnerLink

    def run(self) -> None:
        """Measure what the record lacks.

        Raises:
            EdgeError: the runner failed or the device is gone; the record says so, with what came until then.
        """
        for _ in self.steps():
            pass

    def steps(self) -> Generator[None, None, None]:
        """As :meth:`run`, a repeat at a time, so that two bundles can be measured in turns."""
        self._record.add({"key": f"session/{time.time_ns()}"})
        self._before()
        with self._metering():
            for threads in self._plan.threads:
                if any(key not in self._record for key in self._wanted(threads)):
                    yield from self._with(threads)
        yield
        if self._plan.operators and "operators" not in self._record:
            self._operators(self._plan.prompt_tokens[0])
        if self._plan.memory and "memory" not in self._record:
            self._memory()
        if "end" not in self._record:
            self._record.add({"key": "end"})

    def _before(self) -> None:
        """Whether the device is left alone, before anything of this run is on it."""
        if not isinstance(self._device, ShellDevice):
            return
        if self._plan.wait_quiet is not None:
            wait_for_quiet(self._device, self._plan.wait_quiet, self._progress)
        if "start" not in self._record:
            used = at_rest(self._device)
            self._record.add({"key": "start", "used": None if used is None else dump(used)})

    def _processors(self) -> Look | None:
        pid = self._link.hello.get("pid")
        if not isinstance(self._device, ShellDevice) or not isinstance(pid, int):
            return None
        if self._sampler is None or self._sampler.failure is not None:
            return look(self._device, pid)
        return read(self._sampler.processors(pid), beside(self._device))  # starts no program meanwhile

    def _wanted(self, threads: int | None) -> Iterator[str]:
        """Keys of all that is measured with so many threads."""
        yield from (key for key, _, _ in self._jobs(threads))
        if threads == self._plan.threads[0]:
            yield from ["cost"] if self._plan.cost else []
            yield from ["sustained-done"] if self._plan.sustained else []

    @contextmanager
    def _metering(self) -> Iterator[None]:
        """External meters, from before the first start to after the last."""
        with ExitStack() as stack:
            for meter in self._meters:
                meter.start()
                stack.callback(meter.stop)
            yield

    def _jobs(self, threads: int | None) -> Iterator[tuple[str, int, int]]:
        """Key, prompt length and number of every repeat with so many threads."""
        for length in self._plan.prompt_tokens:
            for index in range(self._plan.repeats):
                yield f"repeat/{length}/{threads or 0}/{index}", length, index

    def _with(self, threads: int | None) -> Generator[None, None, None]:
        """All repeats with so many threads, a share of them in each of the runner's starts."""
        missing = [job for job in self._jobs(threads) if job[0] not in self._record]
        starts = sorted({self._plan.start_of(index) for _, _, index in missing}) or [self._plan.starts - 1]
        for start in starts:
            jobs = [job for job in missing if self._plan.start_of(job[2]) == start]
            with self._guarded(), self._opened(threads, start):
                self._rest(threads)
                with self._progress.stage(f"Measuring{_said(threads)}, start {start + 1}", len(jobs)) as stage:
                    yield from self._repeats(threads, jobs, stage)
                if start == starts[-1]:
                    self._once(threads)

    def _repeats(
        self, threads: int | None, missing: Sequence[tuple[str, int, int]], stage: Stage
    ) -> Generator[None, None, None]:
        warm: set[int] = set()
        for key, length, index in missing:
            for _ in range(self._plan.warmup if length not in warm else 0):
                self._answers(length)
            warm.add(length)
            yield
            cooled = self._cooled()
            self._repeat({"key": key, "length": length, "threads": threads, "index": index, "cooled": cooled})
            stage.advance()

    def _once(self, threads: int | None) -> None:
        """What is measured in the last of the starts, most of it with the first number of threads only."""
        if isinstance(self._device, ShellDevice):
            key = f"regime/{threads or 0}/{time.time_ns()}"
            self._record.add({"key": key, "regime": regime_or_none(self._device)})
        if threads != self._plan.threads[0]:
            return
        length = self._plan.prompt_tokens[0]
        if self._plan.cost and "cost" not in self._record:
            self._cost(length)
        if self._plan.sustained and "sustained-done" not in self._record:
            self._sustained(length, threads, self._plan.sustained)
            self._record.add({"key": "sustained-done"})

    @contextmanager
    def _opened(self, threads: int | None, start: int) -> Iterator[None]:
        """A runner, and a sampler beside it where the device can have one."""
        with running(
            self._device, self._bundle, threads=threads, activate=False, progress=self._progress
        ) as self._link:
            key = f"load/{threads or 0}/{start}"
            if key not in self._record:
                self._record.add({"key": key, "seconds": self._link.load_seconds, "hello": self._link.hello})
            self._sampler = self._sampling()
            try:
                yield
            finally:
                if self._sampler is not None:
                    self._sampler.close()
                    self._sampler = None

    def _sampling(self) -> Sampler | None:
        if not isinstance(self._device, ShellDevice) or not self._sensors:
            return None
        try:
            made = Sampler(self._device, self._sensors, self._plan.interval, self._plan.share)
        except DeviceError as failure:
            self._progress.note(f"no sensors: {failure.message}")
            return None
        made.resume()
        return made

    def _rest(self, threads: int | None) -> None:
        """The idle window, whose power is the baseline."""
        key = f"idle/{threads or 0}"
        if key in self._record or (self._sampler is None and not self._meters):
            return
        with self._progress.stage("Resting, for the idle power"):
            self._taken()
            time.sleep(self._plan.idle)  # a window of time is what is measured here
            self._settle()
            self._record.add({"key": key, "clock": self._clock(), "samples": self._taken()})

    def _repeat(self, line: Line) -> None:
        """Run one prompt between two looks at the clocks, and record it with what the sensors said."""
        sampler = self._sampler
        before, events = self._clock(), list[dict[str, Any]]()
        self._settle()
        used = self._processors()
        started = time.monotonic()
        try:
            for event in self._link.measured(self._prompt(line["length"]), self._plan.new_tokens + 1):
                events.append({**event, "host": time.monotonic() - started})
        except (EdgeError, OSError, KeyboardInterrupt) as failure:
            self._part(line, events, before, failure)
            raise
        spent = between(used, self._processors())
        self._settle()
        after = self._clock()
        self._record.add(
            {
                **line,
                "events": events,
                "started": started,
                "samples": self._taken(),
                "clock": before,
                "jump": _jump(before, after),
                "used": None if spent is None else dump(spent),
                "uncertainty": None if sampler is None else sampler.uncertainty,
                "lost": self._lost or (None if sampler is None or sampler.failure is None else sampler.failure.message),
            }
        )

    def _part(self, line: Line, events: list[dict[str, Any]], clock: Line | None, failure: BaseException) -> None:
        """Keep what came until the failure; the repeat is made again when the run goes on."""
        with suppress(EdgeError):
            part = {**line, "key": f"part/{line['key']}", "events": events, "clock": clock, "samples": self._taken()}
            self._record.add({**part, "failure": str(failure) or type(failure).__name__})

    def _cost(self, length: int) -> None:
        """Decode with and without the sampler, in turns: with it first, then last, and so on."""
        pairs, spent = list[list[float | None]](), [0.0, 0.0]
        if self._sampler is None:
            self._record.add({"key": "cost", "pairs": pairs, "cpu": None})
            return
        self._sampler.pause()
        with self._progress.stage("Measuring what the sampler costs", self._plan.cost) as stage:
            for number in range(self._plan.cost):
                found: dict[bool, float | None] = {}
                for sampling in (True, False) if number % 2 else (False, True):
                    found[sampling] = self._beside(length, spent) if sampling else self._decoding(length)
                pairs.append([found[True], found[False]])
                stage.advance()
        self._taken()
        self._sampler.resume()
        self._record.add({"key": "cost", "pairs": pairs, "cpu": spent if spent[1] else None})

    def _beside(self, length: int, spent: list[float]) -> float | None:
        """Decode while the sampler runs, and add what it spent: CPU seconds, and seconds."""
        assert self._sampler is not None
        before = self._sampler.cost()
        self._sampler.resume()
        ticks = self._decoding(length)
        self._sampler.pause()
        after = self._sampler.cost()
        if before is not None and after is not None:
            spent[0] += after.cpu - before.cpu
            spent[1] += after.elapsed - before.elapsed
        return ticks

    def _decoding(self, length: int) -> float | None:
        """Median ticks of a token."""
        ticks = [event["ticks"] for event in self._answers(length) if event["event"] == "token"][:-1]
        return sorted(ticks)[len(ticks) // 2] if ticks else None

    def _operators(self, length: int) -> None:
        """A runner of its own, which holds the program twice while operators are timed; it may not have the memory."""
        rows: list[Step] = []
        reason = None
        with self._guarded(), self._progress.stage("Timing operators"):
            try:
                with running(self._device, self._bundle, threads=self._plan.threads[0], activate=False) as self._link:
                    said = self._link.measured(self._prompt(length), min(16, self._plan.new_tokens), operators=True)
                    rows = [event for event in said if event["event"] != "done"]
            except DeviceError as failure:
                if self._blame(failure) == "device-gone":
                    raise
                reason = failure.message
        self._record.add({"key": "operators", "rows": rows, "reason": reason})

    def _sustained(self, length: int, threads: int | None, seconds: float) -> None:
        give_up, index = time.monotonic() + seconds, 0
        with self._progress.stage("Running without rest", seconds) as stage:
            while (before := time.monotonic()) < give_up:
                key = f"sustained/{length}/{threads or 0}/{index}"
                self._repeat({"key": key, "length": length, "threads": threads, "index": index, "cooled": None})
                stage.advance(time.monotonic() - before)
                index += 1

    def _memory(self) -> None:
        """A runner of its own, whose memory is looked at between its phases."""
        with (
            self._guarded(),
            self._progress.stage("Measuring memory"),
            running(self._device, self._bundle, threads=self._plan.threads[0], activate=False) as self._link,
        ):
            looks = {"after_load": self._look()}
            events = self._answers(max(self._plan.prompt_tokens))
            looks["after_run"] = self._look()
            self._record.add({"key": "memory", "looks": looks, "done": events[-1], "hello": self._link.hello})

    def _look(self) -> str | None:
        """What the kernel says of the runner's memory."""
        pid = self._link.hello.get("pid")
        if not isinstance(self._device, ShellDevice) or not isinstance(pid, int):
            return None
        return self._device.run(f"cat /proc/{pid}/status /proc/{pid}/smaps_rollup 2> /dev/null", timeout=30).text

    def _answers(self, length: int) -> list[Step]:
        return list(self._link.measured(self._prompt(length), self._plan.new_tokens + 1))

    def _prompt(self, length: int) -> list[int]:
        vocab = self._link.hello.get("vocab")
        if not isinstance(vocab, int):
            raise DeviceError(f"{self._device.name}: its runner does not say how many tokens it knows")
        return prompt(length, vocab, self._plan.seed)

    def _clock(self) -> Line | None:
        """The runner's clocks, the sampler's last moment and the host's, read together."""
        before = time.monotonic()
        try:
            said = self._link.clock()
        except (DeviceGoneError, DeviceTimeoutError):
            raise
        except EdgeError:
            said = None
        if said is None:
            return None
        return {"at": said["at"], "boottime": said.get("boottime"), "host": [before, time.monotonic()]}

    def _settle(self) -> None:
        """Have a sample now, on this side of an event."""
        if self._sampler is not None:
            self._sampler.settle()
        if self._meters:
            time.sleep(_METERED)  # meters sample by themselves

    def _taken(self) -> Line | None:
        """What sensors said since the last call, by the clock that they have."""
        found: Line = {}
        if self._sampler is not None:
            samples = self._sampler.taken()
            for name, values in samples.values.items():
                for value in values:
                    self._widen({} if value is None else {name: value})
            found["device"] = dump(samples)
        for meter in self._meters:
            metered = Samples()
            for moment, given in self._metered(meter):
                for name, each in given.items():
                    metered.add(name, moment, each)
            found["host"] = dump(metered) if "host" not in found else _joined(found["host"], metered)
        return found or None

    def _metered(self, meter: Meter) -> list[tuple[float, dict[str, float]]]:
        """What a meter said; one that is gone is left out from then on, and the record says so."""
        try:
            return meter.taken()
        except EdgeError as failure:
            self._lost = failure.message
            self._meters = tuple(each for each in self._meters if each is not meter)
            meter.stop()
            return []

    def _cooled(self) -> Line | None:
        """Wait until the hottest zone is as cool as the plan wants it."""
        target = self._plan.cooldown_to
        if target is None or self._sampler is None:
            return None
        started, hottest, ignored = time.monotonic(), None, set[str]()
        zones = {s.name for s in self._sensors if s.quantity == "temperature" and s.scope in ("zone", "battery")}
        falling: list[tuple[float, float]] = []
        while (waited := time.monotonic() - started) < self._plan.cooldown_limit:
            said = {name: value for name, value in self._sampler.now(zones).items() if value is not None}
            self._widen(said)
            if waited >= _FROZEN:
                ignored |= {name for name in said if said[name] > target and self._never_moved(name)}
            hottest = max((value for name, value in said.items() if name not in ignored), default=None)
            if hottest is None or hottest <= target:
                break
            falling = [*falling, (waited, hottest)]
            before = [value for at, value in falling if at <= waited - _PLATEAU]
            if before and before[-1] - hottest < _FALL:
                break  # as cool as its surroundings let it become
            time.sleep(_LOOK)
        return {"seconds": time.monotonic() - started, "hottest": hottest, "ignored": sorted(ignored)}

    def _widen(self, said: Mapping[str, float]) -> None:
        for name, value in said.items():
            low, high = self._spans.get(name, (value, value))
            self._spans[name] = min(low, value), max(high, value)

    def _never_moved(self, name: str) -> bool:
        low, high = self._spans[name]
        return low == high

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Note in the record why a run ended early."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except (EdgeError, OSError) as failure:
            message = failure.message if isinstance(failure, EdgeError) else str(failure)
            with suppress(EdgeError):
                line: Line = {"key": f"failed/{time.time_ns()}", "code": self._blame(failure), "text": message}
                self._record.add({**line, "samples": self._taken()})
            raise

    def _blame(self, failure: BaseException) -> str:
        """Whether the runner failed or the device is gone."""
        if not isinstance(self._device, ShellDevice) or not isinstance(failure, EdgeError):
            return "device-gone" if isinstance(failure, DeviceGoneError) else "runner-failed"
        try:
            self._device.run("true", timeout=10)
        except EdgeError:
            return "device-gone"
        return "runner-failed"


def _said(threads: int | None) -> str:
    return "" if threads is None else f", {threads} thread{'s' if threads > 1 else ''}"


def _jump(before: Line | None, after: Line | None) -> float | None:
    """Seconds by which the runner's clocks, or its and the host's, went apart."""
    if before is None or after is None:
        return None
    if before["boottime"] is not None and after["boottime"] is not None:
        apart = (after["boottime"] - after["at"]) - (before["boottime"] - before["at"])
        if abs(apart) / 1e9 > _JUMP:
            return float(apart / 1e9)
    passed = (after["at"] - before["at"]) / 1e9
    least, most = after["host"][0] - before["host"][1], after["host"][1] - before["host"][0]
    if passed < least - _JUMP or passed > most + _JUMP:
        return float(passed - (least + most) / 2)
    return 0.0


def _joined(found: Line, samples: Samples) -> Line:
    first = Samples(found["moments"], found["values"])
    first.extend(samples)
    joined: Line = dump(first)
    return joined
