"""What a profile is: the schema of its JSON. A value is a number with a unit, or null with a coded reason; never 0."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..documents import parse_json, read_bytes
from ..errors import EdgeError
from ..files import replacing
from ..schema import dump, load

SCHEMA = 1
Validity = Literal["valid", "degraded", "invalid"]
Verdict = Literal["none", "suspected", "throttled", "shut down", "unknown"]


class ProfileError(EdgeError):
    """A profile cannot be read, or cannot be made."""


@dataclass(frozen=True)
class Reason:
    """Why something is not (wholly) to be believed, or is missing.

    Attributes:
        code: for programs, as in :mod:`.reasons`.
        text: for people.
    """

    code: str
    text: str


@dataclass(frozen=True)
class Value:
    """A figure over the repeats.

    Attributes:
        value: their median; None with ``reason``.
        unit: SI, or ``tokens/s``, ``J/token``, ``B``, or ``ticks`` where the runner's clock is no time.
        reason: code of why there is none.
        low: of the 95 % interval of the median by bootstrap over repeats; None for fewer than three.
        high: likewise.
        each: the value of every repeat or start, in order, outliers included; those not to be had are left out.
        outliers: indexes in ``each`` beyond 1.5 interquartile ranges (Tukey): shown, not dropped.
    """

    value: float | None
    unit: str
    reason: str | None = None
    low: float | None = None
    high: float | None = None
    each: tuple[float, ...] = ()
    outliers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Section:
    """Values that stand or fall together."""

    validity: Validity = "valid"
    reasons: tuple[Reason, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Throttling:
    """Whether the device held back, with what shows it."""

    verdict: Verdict
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        prompt_tokens: lengths of prompts.
        new_tokens: tokens of every answer; the end of a sequence does not end it.
        threads: of the runtime; None leaves the choice to it.
        repeats: of every case, after the warm-ups.
        starts: of the runner, that the repeats are spread over: two processes of one program differ in speed by where
            their memory lies, and repeats within one do not show that.
        warmup: runs in each start that are not counted.
        cooldown_to: °C that the hottest zone must come down to before every repeat; None waits for nothing.
        cooldown_limit: seconds of waiting, at most.
        wait_quiet: seconds to wait, at most, until other programs leave the processors; None waits for nothing.
        idle: seconds of rest whose power is the baseline.
        sustained: seconds that one case is repeated for, without rest, to see what heat does; None does not.
        interval: seconds between two looks at what energy is computed from.
        share: of the time of one core that each kind of look may take; they are further apart where they take long, but
            never more than a second where energy comes from them, and ten seconds else.
        memory: whether memory has a run of its own.
        cost: pairs of runs with and without sampler, to see its cost; 0 does not.
        operators: whether operators are timed, in a run of their own.
        seed: of the prompt's tokens.
    """

    prompt_tokens: tuple[int, ...] = (128,)
    new_tokens: int = 64
    threads: tuple[int | None, ...] = (None,)
    repeats: int = 6
    starts: int = 3
    warmup: int = 1
    cooldown_to: float | None = None
    cooldown_limit: float = 600.0
    idle: float = 3.0
    sustained: float | None = None
    interval: float = 0.1
    share: float | None = 0.01
    memory: bool = True
    cost: int = 3
    operators: bool = True
    seed: int = 1
    wait_quiet: float | None = None

    def start_of(self, index: int) -> int:
        """In which of the runner's starts a repeat is measured."""
        return index * min(self.starts, self.repeats) // self.repeats


@dataclass(frozen=True)
class BundleFacts:
    """What was measured.

    Attributes:
        digest: of the bundle's manifest: two bundles with one digest are the same bytes.
        model: where it came from.
        target: that it was exported for.
        converter: that made the program.
        recipe: name of the compression.
        bytes: of all files.
        compression: bytes of all parameters in 16 bits, by those of the program with its tables.
        perplexity: as measured at export, of the compressed model; None where it was not.
    """

    digest: str
    model: str
    target: str
    converter: str
    recipe: str
    bytes: int
    compression: float | None = None
    perplexity: float | None = None


@dataclass(frozen=True)
class DeviceFacts:
    """What it ran on; see :class:`edgesdk.devices.facts.Facts`."""

    name: str
    identity: str
    model: str | None = None
    os: str | None = None
    release: str | None = None
    architecture: str | None = None
    ram: int | None = None
    cores: int | None = None
    emulated: str | None = None


@dataclass(frozen=True)
class SensorFacts:
    """A sensor that was there; see :class:`.sensors.base.Sensor`."""

    name: str
    quantity: str
    unit: str
    scope: str
    source: str
    evidence: str
    total: bool = False
    limit: float | None = None
    critical: float | None = None


@dataclass(frozen=True)
class Clock:
    """How the sampler's clock was put on the runner's.

    Attributes:
        runner: the runner's clock.
        sampler: the sampler's clock.
        uncertainty: seconds that a sample may be away from where it is shown; None without a sampler.
    """

    runner: str
    sampler: str | None = None
    uncertainty: float | None = None


@dataclass(frozen=True)
class Case:
    """One prompt length with one number of threads.

    Attributes:
        latency: ``time_to_first_token``, ``prefill_rate``, ``decode_rate``, ``token_floor``, ``token_p50``,
            ``token_p90``, ``token_p99``, ``sampling``. The others are what users feel, repeat by repeat;
            ``token_floor``, the lowest tenth of all tokens of a start of the runner, is what the program takes
            undisturbed, as other work only adds to it (after Chen and Revels, Robust benchmarking in noisy
            environments, 2016), in the contexts just after the prompt.
        energy: ``prefill_power``, ``decode_power``, ``prefill_energy``, ``decode_energy`` (per token), both with
            ``_net`` above the idle power, ``efficiency`` (decoded tokens per joule).
        temperature: ``start``, ``end``, ``peak`` of the hottest zone.
    """

    prompt_tokens: int
    new_tokens: int
    threads: int | None
    latency: Section
    energy: Section
    temperature: Section
    throttling: Throttling

    @property
    def title(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.prompt_tokens} + {self.new_tokens} tokens{threads}"


@dataclass(frozen=True)
class Operator:
    """Time in one kind of operator.

    Attributes:
        name: the runtime's.
        phase: ``prefill`` or ``decode``.
        calls: for one prompt, or for one decoded token.
        seconds: likewise; ticks where ``unit`` says so.
    """

    name: str
    phase: str
    calls: float
    seconds: float
    unit: str = "s"


@dataclass(frozen=True)
class Stretch:
    """One repeat on the time axis; seconds from the profile's start on the runner's clock.

    Attributes:
        case: index of the case.
        kind: ``repeat`` or ``sustained``.
        start: the prompt went in.
        prefilled: the first logits were there.
        tokens: moment of every token after that.
        latencies: seconds for every token.
    """

    case: int
    kind: str
    start: float
    prefilled: float
    tokens: tuple[float, ...]
    latencies: tuple[float, ...]


@dataclass(frozen=True)
class Series:
    """What one sensor said, on the same time axis; None where it could not be read."""

    sensor: str
    seconds: tuple[float, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Profile:
    """One measured record.

    Attributes:
        started: moment of the start, ISO 8601, by the host.
        regime: what clocks could do: governor, limits, power mode; profiles of different ones are not compared.
        energy_scope: what the energy is of (``board: VDD_IN``), None where there is none.
        memory: ``peak_rss``, ``pss``, ``anonymous``, ``file``, ``after_load``, or the arena of a microcontroller.
        load: ``seconds``.
        operators_reason: why there are no operators.
        paired: the same in two profiles whose repeats were measured in turns.
        sampler: ``cpu_share`` of one core, ``decode_cost`` (1 means none).
        contention: processors that other programs used: ``start``, ``foreign`` in the repeats; ``stolen`` by others.
    """

    schema: int
    edgesdk: str
    started: str
    bundle: BundleFacts
    device: DeviceFacts
    plan: Plan
    runner: str
    runtime: str
    regime: Mapping[str, str]
    clock: Clock
    validity: Validity
    reasons: tuple[Reason, ...]
    throttling: Throttling
    energy_scope: str | None
    load: Section
    memory: Section
    sampler: Section
    idle: Section
    cases: tuple[Case, ...]
    operators: tuple[Operator, ...] = ()
    operators_reason: str | None = None
    sensors: tuple[SensorFacts, ...] = ()
    stretches: tuple[Stretch, ...] = ()
    series: tuple[Series, ...] = ()
    commit: str | None = None
    paired: str | None = None
    contention: Section = field(default_factory=lambda: Section("invalid"))


def write_profile(profile: Profile, path: Path) -> None:
    """Write a profile as JSON, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(dump(profile), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        ProfileError: it is none, is cut off, or was written by a newer edgesdk.
    """
    if not path.exists():
        raise ProfileError(f"{path}: no such profile", hint="edgesdk profile BUNDLE -o FILE makes one")
    text = read_bytes(path, ProfileError)
    data = parse_json(text, f"{path}: no profile", ProfileError, hint="a run that was cut off: repeat its command")
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
        raise ProfileError(f"{path}: no profile of edgesdk", hint="edgesdk profile BUNDLE -o FILE makes one")
    if data["schema"] != SCHEMA:
        hint = "use the edgesdk that wrote it, or a newer one"
        raise ProfileError(f"{path}: schema {data['schema']}, this edgesdk reads {SCHEMA}", hint=hint)
    return load(Profile, data, str(path), ProfileError)
