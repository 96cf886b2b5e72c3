"""Names, units and reasons as people read them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..reasons import REASONS
from ..schema import Case, Profile, Section, Value

#: Name of a value in a profile to its name on paper.
METRICS = {
    "time_to_first_token": "Time to first token",
    "prefill_rate": "Prefill rate",
    "decode_rate": "Decode rate",
    "token_floor": "Token latency, undisturbed",
    "token_p50": "Token latency p50",
    "token_p90": "Token latency p90",
    "token_p99": "Token latency p99",
    "sampling": "Sampling",
    "prefill_power": "Prefill power",
    "decode_power": "Decode power",
    "prefill_energy": "Prefill energy",
    "decode_energy": "Decode energy",
    "prefill_energy_net": "Prefill energy above idle",
    "decode_energy_net": "Decode energy above idle",
    "efficiency": "Decode efficiency",
    "start": "Start, hottest zone",
    "end": "End, hottest zone",
    "peak": "Peak, hottest zone",
    "seconds": "Load time",
    "peak_rss": "Peak RSS",
    "pss": "PSS",
    "anonymous": "Anonymous",
    "file": "File-backed",
    "after_load": "RSS after load",
    "arena": "Arena used",
    "cpu_share": "CPU of one core",
    "decode_cost": "Decode time with / without",
    "power": "Idle power",
}
CASE_SECTIONS = ("latency", "energy", "temperature")
RUN_SECTIONS = ("load", "memory", "idle", "sampler")
DASH = "—"
_THIN = "\u202f"
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_BINARY = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_TIMES = ("s", "tokens/s", "ticks", "tokens/tick")


@dataclass(frozen=True)
class Scale:
    """What figures are divided by before they are shown, and the unit they are then in."""

    by: float
    unit: str

    def __call__(self, value: float) -> str:
        return number(value / self.by)


def metric(name: str) -> str:
    """The name of a value on paper."""
    return METRICS.get(name) or name.replace("_", " ")


def tick(value: float) -> str:
    """A figure of an axis: no zeros at its end."""
    text = number(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def number(value: float) -> str:
    """Four significant digits, and thousands apart."""
    if not math.isfinite(value):
        return DASH
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", _THIN)
    if 0 < abs(value) < 1e-4:
        return f"{value:.3e}".replace("-", "\u2212")
    digits = max(0, min(9, 3 - math.floor(math.log10(abs(value))))) if value else 0
    return f"{value:.{digits}f}".replace("-", "\u2212") if value else "0"


def scale(values: Iterable[float | None], unit: str) -> Scale:
    """The prefix that suits the largest of some figures in one unit."""
    largest = max((abs(value) for value in finite(values)), default=0.0)
    if unit == "B":
        return next((Scale(by, name) for by, name in _BINARY if largest >= by), Scale(1.0, "B"))
    head, slash, tail = unit.partition("/")
    if head not in ("s", "W", "J", "A", "V", "Hz") or largest == 0:
        return Scale(1.0, "" if unit == "1" else unit)
    prefixes = _PREFIXES if head == "Hz" else _PREFIXES[3:]  # no kiloseconds
    by, prefix = next(((by, name) for by, name in prefixes if largest >= by), prefixes[-1])
    return Scale(by, f"{prefix}{head}{slash}{tail}")


def finite(values: Iterable[float | None]) -> Iterator[float]:
    """Those that are numbers."""
    return (value for value in values if value is not None and math.isfinite(value))


def known(values: Iterable[float | None]) -> bool:
    """Whether any of them is a number."""
    return next(finite(values), None) is not None


def clean(text: str) -> str:
    """Text without what would act on its surroundings: control characters, half characters, overrides of direction."""
    text = text.replace("\n", " ").replace("\t", " ")
    return "".join("\ufffd" if unicodedata.category(each) in ("Cc", "Cs", "Cf") else each for each in text)


def short(text: str, length: int) -> str:
    """Text that is cut to a length."""
    text = clean(text)
    return text if len(text) <= length else text[: max(length - 1, 1)] + "…"


def digest(text: str) -> str:
    """The beginning of a digest, enough to tell bundles apart."""
    kind, _, rest = text.rpartition(":")
    return short(f"{kind}:{rest[:12]}" if kind else rest[:12], 24)


def said(code: str) -> str:
    """What a code says to people."""
    return REASONS.get(code, code)


def emulated(profile: Profile) -> str | None:
    """What shows that time was an emulator's; None where nothing does."""
    if profile.device.emulated:
        return profile.device.emulated
    sections = (case.latency for case in profile.cases)
    codes = {reason.code for reason in profile.reasons} | {each.code for it in sections for each in it.reasons}
    return said("emulated") if "emulated" in codes or time_unit(profile) == "ticks" else None


def time_unit(profile: Profile) -> str:
    """``s``, or ``ticks`` where the runner's clock is no time."""
    return "ticks" if any(v.unit == "ticks" for case in profile.cases for v in case.latency.values.values()) else "s"


def of_time(unit: str) -> bool:
    """Whether a figure in this unit is a time, or one over it."""
    return unit in _TIMES


def section(where: Case | Profile, name: str) -> Section:
    """A section by its name."""
    found: Section = getattr(where, name)
    return found


def why(sections: Sequence[Section], default: str) -> str:
    """The code of why something of these sections is missing."""
    for it in sections:
        for value in it.values.values():
            if value.value is None and value.reason:
                return value.reason
    return next((reason.code for it in sections for reason in it.reasons), default)


def interval(value: Value, by: Scale) -> str:
    """The 95 % interval, or of how few repeats there is none."""
    if value.low is None or value.high is None:
        return f"n = {len(value.each)}" if value.value is not None and value.each else ""
    return f"{by(value.low)} \u2013 {by(value.high)}"
