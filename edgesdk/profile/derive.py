"""From the raw record to a profile: a pure function, so that a better formula can be applied to old records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import __version__
from ..schema import load
from . import contention
from .batteries import plugged, spent
from .energy import Track, chosen, energy_of_counter, energy_of_power
from .lines import checked
from .memory import memory_section
from .reasons import reason
from .record import Line
from .regime import CAP
from .schema import (
    SCHEMA,
    BundleFacts,
    Case,
    Clock,
    DeviceFacts,
    Operator,
    Plan,
    Profile,
    ProfileError,
    Reason,
    Section,
    SensorFacts,
    Series,
    Stretch,
    Throttling,
    Validity,
    Value,
)
from .statistics import quantile, summarised
from .throttling import judged, worst
from .timeline import Run, timeline
from .zones import without_sensor

_NEAR = 11.0  # seconds: slow sensors are looked at every ten
_FLOOR = 0.1  # share of tokens that nothing disturbed, where something disturbs most
_LATE = 1.0  # °C above the wished start that is still cool


def derived(lines: Sequence[Line]) -> Profile:
    """The profile of a record.

    Args:
        lines: of the record, the header first.

    Raises:
        ProfileError: a line is not what a run writes.
    """
    return _Deriving([checked(line, f"the record, line {number}") for number, line in enumerate(lines, 1)]).profile()


class _Deriving:
    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines, self._header = lines, lines[0]
        self._plan: Plan = load(Plan, self._header["plan"], "record", ProfileError)
        self._device: DeviceFacts = load(DeviceFacts, self._header["device"], "record", ProfileError)
        self._sensors = tuple(load(SensorFacts, each, "record", ProfileError) for each in self._header["sensors"])
        self._by_key = {line["key"]: line for line in lines}
        self._hello: Line = next((line["hello"] for line in lines if "hello" in line), {})
        second = self._hello.get("ticks_per_second")
        self._ticks = None if self._hello.get("emulated") or not second else float(second)
        self._line = timeline(lines, self._ticks, self._header["raw"])
        if any(
            r.length not in self._plan.prompt_tokens or r.threads not in self._plan.threads for r in self._line.runs
        ):
            raise ProfileError("the record has a repeat that its plan does not have")
        self._dummies = without_sensor(self._sensors, self._line.tracks)
        self._sensors = tuple(
            replace(s, evidence=f"{s.evidence}; no sensor: it {self._dummies[s.name]}")
            if s.name in self._dummies
            else s
            for s in self._sensors
        )
        self._source = chosen([s for s in self._sensors if s.name in self._line.tracks])
        self._stuck = False  # a power sensor that said nothing above 0
        self._power, self._unsure = self._powered()
        self._idle = self._idle_section()
        self._contention, self._disturbed = self._contended()

    def profile(self) -> Profile:
        cases = tuple(
            self._case(length, threads) for threads in self._plan.threads for length in self._plan.prompt_tokens
        )
        reasons = self._overall(cases)
        sampler = self._sampler_section()
        measured = any(case.latency.validity != "invalid" for case in cases)
        validity: Validity = "invalid" if not measured else "degraded" if reasons else "valid"
        return Profile(
            schema=SCHEMA,
            edgesdk=__version__,
            started=self._header["started"],
            bundle=load(BundleFacts, self._header["bundle"], "record", ProfileError),
            device=self._device,
            plan=self._plan,
            runner=str(self._hello.get("runner", "")),
            runtime=str(self._hello.get("runtime") or self._hello.get("kernels") or ""),
            regime=self._header["regime"] or {},
            clock=self._clock(),
            validity=validity,
            reasons=reasons,
            throttling=worst([case.throttling for case in cases]),
            energy_scope=None if self._source is None else f"{self._source.scope}: {self._source.name}",
            load=self._load(),
            memory=memory_section(self._by_key.get("memory"), self._hello, asked=self._plan.memory),
            sampler=sampler,
            idle=self._idle,
            cases=cases,
            operators=self._operators(),
            operators_reason=(self._by_key.get("operators") or {}).get("reason"),
            sensors=self._sensors,
            stretches=tuple(self._stretch(run) for run in self._line.runs if run.kind != "part"),
            series=tuple(_series(name, track) for name, track in self._line.tracks.items()),
            commit=self._header.get("commit"),
            paired=self._header.get("paired"),
            contention=self._contention,
        )

    def _contended(self) -> tuple[Section, list[Reason]]:
        """What other programs used, and what of it is a doubt."""
        start = self._by_key.get("start", {}).get("used")
        repeats = [run.line.get("used") for run in self._line.runs if run.kind == "repeat"]
        return contention.judged(_used(start), [_used(each) for each in repeats])

    def _case(self, length: int, threads: int | None) -> Case:
        runs = [r for r in self._line.runs if r.length == length and r.threads == threads and r.kind != "part"]
        parts = [r for r in self._line.runs if r.length == length and r.threads == threads]
        repeats = sorted((run for run in runs if run.kind == "repeat"), key=lambda run: run.line["index"])
        new = self._plan.new_tokens
        latency, energy = self._latency(repeats), self._energy(repeats)
        return Case(length, new, threads, latency, energy, self._temperature(runs), self._verdict(parts))

    def _latency(self, runs: Sequence[Run]) -> Section:
        timed = self._ticks is not None
        unit, rate = ("s", "tokens/s") if timed else ("ticks", "tokens/tick")
        values = {
            "time_to_first_token": _each(runs, lambda run: run.first, unit),
            "prefill_rate": _each(runs, lambda run: _by(run.length, run.prefill), rate),
            "decode_rate": _each(runs, lambda run: _by(len(run.latencies), sum(run.latencies)), rate),
            "token_floor": summarised(self._floors(runs), unit, "not-reported" if runs else "cut-short"),
            "token_p50": _each(runs, lambda run: _quantile(run, 0.5), unit),
            "token_p90": _each(runs, lambda run: _quantile(run, 0.9), unit),
            "token_p99": _each(runs, lambda run: _quantile(run, 0.99), unit),
            "sampling": _each(runs, lambda run: run.sampling, unit),
        }
        found = list(self._doubts(runs))
        if not timed or self._device.emulated:
            found.append(reason("emulated", str(self._device.emulated or "the runner counts instructions")))
        validity: Validity = "invalid" if not runs else "degraded" if found else "valid"
        return Section(validity, tuple(found), values)

    def _floors(self, runs: Sequence[Run]) -> list[float]:
        """What tokens take undisturbed, start by start: the lowest tenth of the tokens of all its repeats."""
        starts: dict[int, list[float]] = {}
        for run in runs:
            starts.setdefault(self._plan.start_of(run.line["index"]), []).extend(run.latencies)
        return [quantile(starts[number], _FLOOR) for number in sorted(starts) if starts[number]]

    def _doubts(self, runs: Sequence[Run]) -> Iterable[Reason]:
        if len(runs) < self._plan.repeats:
            yield reason("cut-short", f"{len(runs)} of {self._plan.repeats} repeats")
        elif len(runs) < 3:
            yield reason("few-repeats")
        if jumps := [run.line["jump"] for run in runs if run.line.get("jump")]:
            yield reason("clock-jump", f"by {max(jumps, key=abs):.2f} s")
        wanted = self._plan.cooldown_to
        if wanted is not None:
            warm = [run.line["cooled"] for run in runs if not _cool(run.line.get("cooled"), wanted)]
            if warm:
                yield reason("not-cooled", f"{len(warm)} of {len(runs)} repeats did not start at {wanted:g} °C")
        regimes = [_steady(line["regime"]) for line in self._lines if line.get("regime") is not None]
        if any(each != regimes[0] for each in regimes):
            yield reason("regime-changed")

    def _energy(self, runs: Sequence[Run]) -> Section:
        units = {
            "prefill_power": "W",
            "decode_power": "W",
            "prefill_energy": "J/token",
            "decode_energy": "J/token",
            "prefill_energy_net": "J/token",
            "decode_energy_net": "J/token",
            "efficiency": "tokens/J",
        }
        missing = self._no_energy(runs)
        if missing is not None:
            return Section("invalid", (missing,), {n: Value(None, u, missing.code) for n, u in units.items()})
        idle = self._idle.values["power"].value
        found: dict[str, list[float]] = {name: [] for name in units}
        steady = [run for run in runs if not run.line.get("jump")]
        for run in steady:
            self._run_energy(run, idle, found)
        code = "sensor-stuck" if self._stuck else "short-window" if steady else "clock-jump"
        values = {name: summarised(each, units[name], code) for name, each in found.items()}
        if idle is None:
            lacking = Value(None, "J/token", self._idle.values["power"].reason)
            values |= {"prefill_energy_net": lacking, "decode_energy_net": lacking}
        notes = [reason("emulated", "its power is what a test set")] if self._device.emulated else []
        if any(value.value is None for value in values.values()):
            notes.append(reason(code))
        if len(steady) < len(runs):
            notes.append(reason("clock-jump", f"{len(runs) - len(steady)} repeats have no energy"))
        if self._source is not None and self._source.name in self._line.lost:
            notes.append(reason("sensor-lost", self._source.name))
        validity: Validity = "invalid" if values["decode_energy"].value is None else "degraded" if notes else "valid"
        return Section(validity, tuple(notes), values)

    def _run_energy(self, run: Run, idle: float | None, found: dict[str, list[float]]) -> None:
        prefill = self._joules(run.start, run.prefilled)
        if prefill is not None:
            found["prefill_power"].append(prefill / (run.prefilled - run.start))
            found["prefill_energy"].append(prefill / run.length)
            if idle is not None:
                found["prefill_energy_net"].append((prefill - idle * (run.prefilled - run.start)) / run.length)
        decode = self._joules(run.prefilled, run.end)
        if decode is None or not run.tokens:
            return
        seconds, tokens = run.end - run.prefilled, len(run.tokens)
        found["decode_power"].append(decode / seconds)
        found["decode_energy"].append(decode / tokens)
        found["efficiency"].append(tokens / decode)
        if idle is not None:
            found["decode_energy_net"].append((decode - idle * seconds) / tokens)

    def _no_energy(self, runs: Sequence[Run]) -> Reason | None:
        """Why there can be no energy at all."""
        if not runs:
            return reason("cut-short")
        if self._source is None:
            return self._no_source()
        if self._unsure is not None:
            return self._unsure
        at = self._line.tracks[self._source.name].seconds
        if not at.size or not any(at[0] < run.end and at[-1] > run.start for run in runs):
            return reason("clocks-apart" if at.size else "sensor-lost", self._source.name)
        if all(run.line.get("lost") for run in runs):
            return reason("sensor-lost", str(runs[0].line["lost"]))
        return None

    def _no_source(self) -> Reason:
        if remark := next(iter(self._header.get("remarks", ())), None):
            return reason(remark["code"], remark["text"])
        measured = any(sensor.quantity in ("power", "energy") for sensor in self._sensors)
        return reason("no-total" if measured else "no-sensor")

    def _joules(self, start: float, end: float) -> float | None:
        if self._source is None or self._power is None:
            return None
        whole = energy_of_counter if self._source.quantity == "energy" else energy_of_power
        joules = whole(self._power, start, end)
        self._stuck |= joules is not None and joules <= 0
        return joules if joules is not None and joules > 0 else None

    def _powered(self) -> tuple[Track | None, Reason | None]:
        """What energy is computed from; None with the reason where it is not to be believed."""
        if self._source is None:
            return None, None
        if self._source.scope != "battery":
            return self._line.tracks[self._source.name], None
        if name := plugged(self._sensors, self._line.tracks):
            return None, reason("charging", name)
        parts = next(raw["parts"] for raw in self._header["raw"] if raw["name"] == self._source.name)
        power, doubt, evidence = spent(self._source, self._line.tracks, parts)
        if evidence:
            self._sensors = tuple(replace(s, evidence=evidence) if s == self._source else s for s in self._sensors)
        return power, doubt

    def _idle_section(self) -> Section:
        if self._source is None:
            missing = self._no_source()
            return Section("invalid", (missing,), {"power": Value(None, "W", missing.code)})
        if self._unsure is not None:
            return Section("invalid", (self._unsure,), {"power": Value(None, "W", self._unsure.code)})
        powers = []
        for spans in self._line.idle:
            start, end = spans.get(self._source.name, (0.0, 0.0))
            joules = self._joules(start, end)
            if joules is not None:
                powers.append(joules / (end - start))
        value = summarised(powers, "W", "short-window")
        return Section("valid" if powers else "invalid", () if powers else (reason("short-window"),), {"power": value})

    def _temperature(self, runs: Sequence[Run]) -> Section:
        zones = [
            s.name
            for s in self._sensors
            if s.quantity == "temperature" and s.scope != "battery" and s.name not in self._dummies
        ]
        tracks = [t for name in zones if (t := self._line.tracks.get(name)) is not None and t.values.size]
        if not tracks:
            missing = reason("no-sensor")
            names = ("start", "end", "peak")
            return Section("invalid", (missing,), {name: Value(None, "°C", "no-sensor") for name in names})
        values: dict[str, list[float]] = {"start": [], "end": [], "peak": []}
        for run in runs:
            starts, ends = _hottest(tracks, run.start), _hottest(tracks, run.end)
            inside = [float(part.values.max()) for t in tracks if (part := _within(t, run.start, run.end)).values.size]
            values["start"] += starts
            values["end"] += ends
            values["peak"] += [max(*inside, *starts, *ends)] if inside or starts or ends else []
        lost = sorted(name for name in zones if name in self._line.lost)
        silent = len(values["peak"]) < len(runs)
        notes = (reason("sensor-lost", ", ".join(lost or zones)),) if lost or silent else ()
        found = {name: summarised(each, "°C", "sensor-lost" if runs else "cut-short") for name, each in values.items()}
        return Section("invalid" if not values["peak"] else "degraded" if notes else "valid", notes, found)

    def _verdict(self, runs: Sequence[Run]) -> Throttling:
        """Over runs, and until the end of the record where the last of them failed."""
        if not runs:
            return Throttling("unknown")
        start, end = min(run.start for run in runs), max(run.end for run in runs)
        failed = bool(self._failures()) and end == max(run.end for run in self._line.runs)
        tracks = {
            name: _within(track, start - _NEAR, float("inf") if failed else end)  # what slow sensors said last holds on
            for name, track in self._line.tracks.items()
            if name not in self._dummies
        }
        rates = [pair for run in runs for pair in zip(run.tokens, run.latencies, strict=True)]
        gone = failed and any(line.get("code") == "device-gone" for line in self._failures())
        return judged(self._sensors, tracks, sorted(rates), gone=gone)

    def _failures(self) -> list[Line]:
        """Failures that no later session made up for."""
        if "end" in self._by_key:
            return []
        return [line for line in self._lines if line["key"].startswith("failed/")][-1:]

    def _overall(self, cases: Sequence[Case]) -> tuple[Reason, ...]:
        found = [reason(line["code"], line["text"]) for line in self._failures()]
        if not found and "end" not in self._by_key:
            found.append(reason("cut-short", "it goes on when the same command runs again"))
        lost = next((line["lost"] for line in self._lines if line.get("lost")), None)
        if lost:
            found.append(reason("sensor-lost", lost))
        if self._line.lost:
            found.append(reason("sensor-lost", ", ".join(sorted(self._line.lost))))
        for case in (self._latency([run for run in self._line.runs if run.kind == "repeat"]),):
            found += [
                each for each in case.reasons if each.code in ("emulated", "clock-jump", "regime-changed", "not-cooled")
            ]
        found += self._disturbed
        wide = (
            contention.wide(case.latency.values["decode_rate"])
            for case in cases
            if "decode_rate" in case.latency.values
        )
        found += [each for each in wide if each is not None]
        return tuple(dict.fromkeys(found))

    def _load(self) -> Section:
        loads = [line for line in self._lines if line["key"].startswith("load/")]
        each = [line["seconds"] for line in loads if line["seconds"] is not None]
        value = summarised(each, "s", "not-reported")
        return Section("valid" if each else "invalid", () if each else (reason("not-reported"),), {"seconds": value})

    def _sampler_section(self) -> Section:
        line = self._by_key.get("cost")
        units = {"cpu_share": "", "decode_cost": ""}
        if line is None:
            code = "no-sensor" if not self._sensors else "not-asked" if not self._plan.cost else "no-sampler"
            return Section("invalid", (reason(code),), {name: Value(None, unit, code) for name, unit in units.items()})
        ratios = [with_it / without for with_it, without in line["pairs"] if with_it and without]
        share = [line["cpu"][0] / line["cpu"][1]] if line["cpu"] else []
        values = {
            "cpu_share": summarised(share, "", "not-reported"),
            "decode_cost": summarised(ratios, "", "not-reported"),
        }
        return Section("valid", (), values)

    def _operators(self) -> tuple[Operator, ...]:
        line = self._by_key.get("operators")
        rows = (line or {}).get("rows", [])
        return tuple(Operator(row["operator"], row["phase"], row["calls"], row["seconds"]) for row in rows)

    def _clock(self) -> Clock:
        runner = str(self._hello.get("clock") or ("ticks" if self._ticks is None else "the board's ticks"))
        spreads = [line["uncertainty"] for line in self._lines if line.get("uncertainty") is not None]
        if not spreads:
            return Clock(runner)
        return Clock(runner, "/proc/uptime (CLOCK_BOOTTIME)", max(spreads))

    def _stretch(self, run: Run) -> Stretch:
        lengths, threads = self._plan.prompt_tokens, self._plan.threads
        case = threads.index(run.threads) * len(lengths) + lengths.index(run.length)
        return Stretch(case, run.kind, run.start, run.prefilled, run.tokens, run.latencies)


def _each(runs: Sequence[Run], measure: Callable[[Run], float | None], unit: str) -> Value:
    found = [value for run in runs if (value := measure(run)) is not None]
    return summarised(found, unit, "cut-short" if not runs else "not-reported")


def _used(found: dict[str, Any] | None) -> contention.Used | None:
    return None if found is None else contention.Used(**found)


def _steady(found: dict[str, str]) -> dict[str, str]:
    """A regime without what heat lowers: that is throttling, and judged as such."""
    return {name: value for name, value in found.items() if not name.endswith(CAP)}


def _by(count: int, time: float | None) -> float | None:
    return count / time if time else None


def _quantile(run: Run, share: float) -> float | None:
    return quantile(run.latencies, share) if run.latencies else None


def _hottest(tracks: Sequence[Track], moment: float) -> list[float]:
    """The highest of what sensors say at a moment, if any does."""
    known = [value for track in tracks if (value := _near(track, moment)) is not None]
    return [max(known)] if known else []


def _near(track: Track, moment: float) -> float | None:
    """What a sensor said nearest to a moment; None where that is far from it."""
    nearest = int(np.argmin(np.abs(track.seconds - moment)))
    return float(track.values[nearest]) if abs(track.seconds[nearest] - moment) <= _NEAR else None


def _within(track: Track, start: float, end: float) -> Track:
    inside = (track.seconds >= start) & (track.seconds <= end)
    return Track(track.seconds[inside], track.values[inside])


def _series(name: str, track: Track) -> Series:
    return Series(name, tuple(map(float, track.seconds)), tuple(map(float, track.values)))


def _cool(cooled: dict[str, Any] | None, wanted: float) -> bool:
    return cooled is not None and cooled["hottest"] is not None and cooled["hottest"] <= wanted + _LATE
