"""Sample profiles, made by a small thermal model: nothing in them was measured."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from collections.abc import Sequence

from edgesdk.profile.reasons import REASONS
from edgesdk.profile.schema import (
    SCHEMA,
    BundleFacts,
    Case,
    Clock,
    DeviceFacts,
    Operator,
    Plan,
    Profile,
    Reason,
    Section,
    SensorFacts,
    Series,
    Stretch,
    Throttling,
    Value,
)

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }} | `x` \u202e"
_CAPPED_AT = 68.0  # °C
_FAST, _SLOW = 1.728e9, 0.972e9  # Hz
_ENERGY = ("prefill_power", "decode_power", "prefill_energy", "decode_energy", "prefill_energy_net",
           "decode_energy_net", "efficiency")  # fmt: skip
_UNITS = dict(zip(_ENERGY, ("W", "W", "J", "J/token", "J", "J/token", "tokens/J"), strict=True))
_OPERATORS = (
    ("MatMulNBits", 0.71), ("GroupQueryAttention", 0.14), ("SkipSimplifiedLayerNormalization", 0.04), ("Mul", 0.03),
    ("Sigmoid", 0.02), ("RotaryEmbedding", 0.02), ("Gather", 0.012), ("Cast", 0.01), ("Softmax", 0.008),
    ("Reshape", 0.004), ("Slice", 0.003), ("Concat", 0.003), ("Add", 0.002), ("Unsqueeze", 0.001),
)  # fmt: skip


def reason(code: str) -> Reason:
    return Reason(code, REASONS[code])


def figure(each: Sequence[float], unit: str) -> Value:
    """Median and interval; a bootstrap of five medians spans about all of them."""
    ordered = sorted(each)
    interval = (ordered[0], ordered[-1]) if len(each) >= 3 else (None, None)
    outliers = ()
    if len(each) >= 4:
        low, _, high = statistics.quantiles(each, n=4)
        span = 1.5 * (high - low)
        outliers = tuple(i for i, value in enumerate(each) if not low - span <= value <= high + span)
    return Value(statistics.median(each), unit, None, *interval, each=tuple(each), outliers=outliers)


def absent(names: Sequence[str], code: str, validity: str = "invalid", units: dict[str, str] | None = None) -> Section:
    values = {name: Value(None, (units or _UNITS).get(name, ""), code) for name in names}
    return Section(validity, (reason(code),), values)  # type: ignore[arg-type]


class _Board:
    """A board that heats up, holds its clock back when hot, and is sampled ten times a second."""

    def __init__(self, seed: int, zones: int, ambient: float) -> None:
        self.random, self.ambient, self.heat, self.now = random.Random(seed), ambient, ambient + 4.6 * 3.9, 0.0
        self.clock, self.zones, self._sampled = _FAST, zones, 0.0
        self.seconds: list[float] = []
        self.rows: list[list[float | None]] = []

    def spend(self, seconds: float, watts: float) -> None:
        """Let time pass at that power."""
        end = self.now + seconds
        while self._sampled <= end:
            self._sample(watts)
            self._sampled += 0.1
        share = 1 - math.exp(-seconds / 25)
        self.heat += (self.ambient + 4.6 * watts - self.heat) * share
        self.now = end
        if self.heat > _CAPPED_AT:
            self.clock = _SLOW
        elif self.heat < _CAPPED_AT - 2:
            self.clock = _FAST

    def _sample(self, watts: float) -> None:
        noise = self.random.gauss
        zones: list[float | None] = [round(self.heat - 1.3 * i + noise(0, 0.15), 1) for i in range(self.zones)]
        power = watts + noise(0, 0.12)
        self.seconds.append(round(self._sampled, 3))
        self.rows.append(
            [*zones, self.clock, 0.624e9 if watts < 5 else 0.918e9, round(power, 3), round(power * 0.6, 3)]
        )

    def sensors(self) -> tuple[SensorFacts, ...]:
        trip = "a passive trip point of the zone gives the limit; m°C by the kernel's documentation"
        zones = ["cpu-thermal", "gpu-thermal", "soc0-thermal", *(f"zone{i}-thermal" for i in range(3, self.zones))]
        rate = "kHz by the kernel's documentation of cpufreq; its largest value is the limit"
        return (
            *(SensorFacts(name, "temperature", "°C", "zone", "thermal", trip, limit=68.0, critical=104.5)
              for name in zones[: self.zones]),
            SensorFacts("policy0", "frequency", "Hz", "core", "cpufreq", rate, limit=_FAST),
            SensorFacts("gpu", "frequency", "Hz", "package", "devfreq", "Hz by the kernel's documentation of devfreq"),
            SensorFacts("VDD_IN", "power", "W", "board", "ina3221", "µV x µA of one chip, channel named by the board's "
                        "device tree", total=True),
            SensorFacts("VDD_CPU_GPU_CV", "power", "W", "rail", "ina3221", "as VDD_IN; a part of it"),
        )  # fmt: skip

    def series(self) -> tuple[Series, ...]:
        columns = zip(*self.rows, strict=True)
        return tuple(
            Series(sensor.name, tuple(self.seconds), tuple(column))
            for sensor, column in zip(self.sensors(), columns, strict=True)
        )


def _stretch(board: _Board, case: int, kind: str, prompt: int, new: int, speed: float) -> Stretch:
    start = board.now
    for _ in range(8):
        board.spend(prompt / 8 / 900 / speed * _FAST / board.clock, 11.5)
    prefilled, tokens, latencies = board.now, [], []
    for index in range(new):
        slow = 2.2 if board.random.random() < 0.01 else 1.0
        noise = abs(board.random.gauss(0, 0.03))
        seconds = (0.030 + 5e-6 * (prompt + index)) / speed * (_FAST / board.clock) * (1 + noise) * slow
        board.spend(seconds, 9.2)
        tokens.append(round(board.now, 6))
        latencies.append(round(seconds, 6))
    return Stretch(case, kind, round(start, 6), round(prefilled, 6), tuple(tokens), tuple(latencies))


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _case(runs: list[Stretch], prompt: int, new: int, heats: list[tuple[float, float]], held_back: bool) -> Case:
    first = [run.prefilled - run.start for run in runs]
    decode = [new / sum(run.latencies) for run in runs]
    latency = {
        "time_to_first_token": figure(first, "s"),
        "prefill_rate": figure([prompt / seconds for seconds in first], "tokens/s"),
        "decode_rate": figure(decode, "tokens/s"),
        **{f"token_p{p}": figure([_quantile(run.latencies, p / 100) for run in runs], "s") for p in (50, 90, 99)},
        "sampling": figure([41e-6 + 1e-7 * i for i in range(len(runs))], "s"),
    }
    each = {
        "prefill_power": [11.5 + 0.03 * i for i in range(len(runs))],
        "decode_power": [9.2 + 0.02 * i for i in range(len(runs))],
        "prefill_energy": [11.5 * seconds for seconds in first],
        "decode_energy": [9.2 / rate for rate in decode],
        "prefill_energy_net": [7.6 * seconds for seconds in first],
        "decode_energy_net": [5.3 / rate for rate in decode],
        "efficiency": [rate / 9.2 for rate in decode],
    }
    energy = {name: figure(values, _UNITS[name]) for name, values in each.items()}
    heat = {
        "start": figure([start for start, _ in heats], "°C"),
        "end": figure([end for _, end in heats], "°C"),
        "peak": figure([end + 0.4 for _, end in heats], "°C"),
    }
    throttling = Throttling("none")
    if held_back:
        evidence = ("policy0 at 972 MHz of 1728 MHz while cpu-thermal was at 68.3 °C", "decoding slowed by 44 %")
        throttling = Throttling("throttled", evidence)
    held = (reason("throttled"),) if held_back else ()
    return Case(
        prompt, new, 4, Section("degraded" if held_back else "valid", held, latency), Section(values=energy),
        Section(values=heat), throttling,
    )  # fmt: skip


def profile(
    *,
    seed: int = 1,
    speed: float = 1.0,
    sustained: float | None = None,
    zones: int = 3,
    new_tokens: int = 64,
    rest: float = 6.0,
    ambient: float = 42.0,
) -> Profile:
    """A board with sensors: two cases of five repeats; its clock caps in the second case."""
    board = _Board(seed, zones, ambient)
    board.spend(3.0, 3.9)
    prompts, cases, stretches = (128, 512), [], []
    for number, prompt in enumerate(prompts):
        runs, heats, held_back = [], [], False
        for _ in range(5):
            before = board.heat
            runs.append(_stretch(board, number, "repeat", prompt, new_tokens, speed))
            heats.append((before, board.heat))
            held_back = held_back or board.clock < _FAST
            board.spend(rest, 3.9)
        cases.append(_case(runs, prompt, new_tokens, heats, held_back))
        stretches += runs
    end = board.now + (sustained or 0)
    while board.now < end:
        stretches.append(_stretch(board, 0, "sustained", 128, new_tokens, speed))
    board.spend(2.0, 3.9)
    held = any(case.throttling.verdict == "throttled" for case in cases)
    mib = 2**20
    memory = {name: Value(value * mib, "B", each=(value * mib,)) for name, value in (
        ("peak_rss", 812.4), ("pss", 801.0), ("anonymous", 211.3), ("file", 589.7), ("after_load", 611.9))}  # fmt: skip
    return Profile(
        schema=SCHEMA,
        edgesdk="0.5.0",
        started="2026-11-20T09:41:07+00:00",
        bundle=BundleFacts(
            "sha256:" + f"{seed:02x}9f4c21ab77d0e3" * 4, "Qwen/Qwen2.5-0.5B-Instruct", "jetson-orin-nano", "onnx",
            "w4g32", 412_316_860, 3.72, 14.81,
        ),
        device=DeviceFacts(
            "orin", "ssh-ed25519 SHA256:7Yt0pXk", "NVIDIA Jetson Orin Nano Developer Kit", "linux", "Ubuntu 22.04.5",
            "aarch64", 8 * 2**30, 6, None,
        ),
        plan=Plan(prompt_tokens=prompts, new_tokens=new_tokens, threads=(4,), sustained=sustained, cooldown_to=55.0),
        runner="onnx 1", runtime="onnxruntime 1.31.0",
        regime={"governor": "schedutil", "policy0 max": "1728000 kHz", "nvpmodel": "15W"},
        clock=Clock("time.perf_counter_ns (CLOCK_MONOTONIC)", "CLOCK_MONOTONIC", 0.0004),
        validity="degraded" if held else "valid",
        reasons=(reason("throttled"),) if held else (),
        throttling=cases[-1].throttling if held else Throttling("none"),
        energy_scope="board: VDD_IN",
        load=Section(values={"seconds": figure([1.91, 1.62, 1.63], "s")}),
        memory=Section(values=memory),
        sampler=Section(values={"cpu_share": figure([0.011, 0.012, 0.010], "1"),
                                "decode_cost": figure([1.002, 0.999, 1.004], "1")}),
        idle=Section(values={"power": figure([3.9], "W")}),
        cases=tuple(cases),
        operators=(
            *(Operator(name, "prefill", 24, 0.140 * share * (0.92 if name == "MatMulNBits" else 1.5)) for name, share
              in _OPERATORS),
            *(Operator(name, "decode", 24, 0.031 * share) for name, share in _OPERATORS),
        ),
        sensors=board.sensors(), stretches=tuple(stretches), series=board.series(),
        commit="4be3d0c4f2a1",
    )  # fmt: skip


def cool(**options: float) -> Profile:
    """The same board in a cool room: nothing holds it back."""
    return profile(ambient=20.0, **options)  # type: ignore[arg-type]


def degraded() -> Profile:
    """Two repeats, a sensor lost in the middle, energy and temperature in doubt, the regime changed."""
    base = cool(seed=7)
    cut = tuple(
        dataclasses.replace(series, values=tuple(v if i < 200 else None for i, v in enumerate(series.values)))
        if series.sensor in ("VDD_IN", "cpu-thermal")
        else series
        for series in base.series
    )
    cases = tuple(
        dataclasses.replace(
            case,
            latency=Section(
                "degraded",
                (reason("few-repeats"),),
                {name: figure(value.each[:2], value.unit) for name, value in case.latency.values.items()},
            ),
            energy=absent(_ENERGY, "sensor-lost"),
            temperature=absent(("start", "end", "peak"), "sensor-lost", "degraded", dict.fromkeys(
                ("start", "end", "peak"), "°C")),
            throttling=Throttling("unknown"),
        )
        for case in base.cases
    )  # fmt: skip
    return dataclasses.replace(
        base,
        started="2026-11-21T17:03:55+01:00",
        validity="degraded",
        reasons=(reason("sensor-lost"), reason("regime-changed")),
        throttling=Throttling("unknown"),
        regime={**base.regime, "nvpmodel": "7W"},
        energy_scope=None,
        cases=cases,
        series=cut,
        operators=(),
        commit=None,
    )


def no_sensors() -> Profile:
    """A board with no sensor and no sampler: latency only, all else null with its reason."""
    base = cool(seed=3, speed=0.6)
    cases = tuple(
        dataclasses.replace(
            case,
            energy=absent(_ENERGY, "no-sensor"),
            temperature=absent(("start", "end", "peak"), "no-sensor", units=dict.fromkeys(("start", "end", "peak"),
                                                                                         "°C")),
            throttling=Throttling("unknown"),
        )
        for case in base.cases
    )  # fmt: skip
    return dataclasses.replace(
        base,
        started="2026-11-21T12:00:00+00:00",
        device=DeviceFacts("plain", "usb:1d6b:0104:plain"),
        regime={},
        clock=Clock("std::chrono::steady_clock"),
        throttling=Throttling("unknown"),
        energy_scope=None,
        memory=absent(("peak_rss", "pss", "anonymous", "file"), "not-reported", units=dict.fromkeys(
            ("peak_rss", "pss", "anonymous", "file"), "B")),
        sampler=absent(("cpu_share", "decode_cost"), "no-sampler", units={"cpu_share": "1", "decode_cost": "1"}),
        idle=absent(("power",), "no-sensor", units={"power": "W"}),
        cases=cases, sensors=(), series=(), operators=(), commit=None,
    )  # fmt: skip


def microcontroller() -> Profile:
    """An emulated microcontroller: its clock gives ticks, which are no time."""
    base, maker = no_sensors(), random.Random(5)
    stretches, now = [], 0.0
    for _ in range(5):
        start, now = now, now + 5_200_000 + maker.randrange(2000)
        prefilled, latencies = now, [164_000.0 + 220 * i + maker.randrange(900) for i in range(16)]
        tokens = [prefilled + sum(latencies[: i + 1]) for i in range(16)]
        now = tokens[-1] + 1000
        stretches.append(Stretch(0, "repeat", start, prefilled, tuple(tokens), tuple(latencies)))
    first = [run.prefilled - run.start for run in stretches]
    latency = {
        "time_to_first_token": figure(first, "ticks"),
        "prefill_rate": Value(None, "tokens/s", "emulated"),
        "decode_rate": Value(None, "tokens/s", "emulated"),
        **{f"token_p{p}": figure([_quantile(run.latencies, p / 100) for run in stretches], "ticks")
           for p in (50, 90, 99)},
        "sampling": Value(None, "s", "not-reported"),
    }  # fmt: skip
    case = dataclasses.replace(
        base.cases[0], prompt_tokens=32, new_tokens=16, threads=None,
        latency=Section("degraded", (reason("emulated"),), latency),
    )  # fmt: skip
    return dataclasses.replace(
        base,
        bundle=BundleFacts("sha256:" + "c3" * 32, "stories260K", "cortex-m4f", "cortex_m", "w8", 301_056, 3.9, None),
        device=DeviceFacts("mps2", "uart:mps2-an386", "Arm MPS2+ AN386", "none", "edgesdk firmware 0.5.0", "armv7e-m",
                           4 * 2**20, 1, "QEMU 8.2 mps2-an386"),
        plan=Plan(prompt_tokens=(32,), new_tokens=16, cost=0),
        runner="cortex_m 1", runtime="edgesdk cortex_m 1",
        clock=Clock("CMSDK timer of the emulator, 25 MHz nominal"),
        validity="degraded", reasons=(reason("emulated"),),
        load=absent(("seconds",), "not-reported", units={"seconds": "s"}),
        memory=Section(values={"arena": Value(181_232.0, "B"), "arena_size": Value(262_144.0, "B")}),
        cases=(case,), stretches=tuple(stretches),
        operators=(Operator("matmul", "prefill", 224, 4_300_000, "ticks"),
                   Operator("attention", "prefill", 32, 610_000, "ticks"),
                   Operator("rmsnorm", "prefill", 352, 120_000, "ticks"),
                   Operator("matmul", "decode", 36, 139_000, "ticks"),
                   Operator("attention", "decode", 5, 21_000, "ticks"),
                   Operator("rmsnorm", "decode", 11, 3_900, "ticks")),
    )  # fmt: skip


def long_run() -> Profile:
    """Ten minutes without rest, 20 sensors: what the page must still carry."""
    return profile(sustained=600.0, zones=16, seed=11)


def hostile() -> Profile:
    """Names as an attacker would choose them."""
    base = profile()
    sensor = dataclasses.replace(base.sensors[0], name=HOSTILE, evidence=HOSTILE)
    return dataclasses.replace(
        base,
        bundle=dataclasses.replace(base.bundle, model=HOSTILE, recipe=HOSTILE),
        device=dataclasses.replace(base.device, name="=HYPERLINK(\"http://evil.example\")", model=HOSTILE,
                                   identity=HOSTILE + "\x00"),
        regime={HOSTILE: HOSTILE},
        energy_scope=HOSTILE,
        runtime=HOSTILE,
        commit=HOSTILE,
        reasons=(Reason(HOSTILE, HOSTILE),),
        operators=(Operator(HOSTILE, "decode", 1, 0.02), Operator("</svg><svg onload=alert(3)>", "prefill", 1, 0.1)),
        sensors=(sensor, *base.sensors[1:]),
        series=(dataclasses.replace(base.series[0], sensor=HOSTILE), *base.series[1:]),
    )  # fmt: skip
