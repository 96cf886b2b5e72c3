"""The figures of a profile by name: which way is better, and where each of them stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .schema import Case, Profile, Section, Value

Direction = Literal["higher", "lower"]
#: Figures that can be better or worse, with the direction that is.
DIRECTIONS: dict[str, Direction] = {
    "time_to_first_token": "lower",
    "prefill_rate": "higher",
    "decode_rate": "higher",
    "token_floor": "lower",
    "token_p50": "lower",
    "token_p90": "lower",
    "token_p99": "lower",
    "prefill_power": "lower",
    "decode_power": "lower",
    "prefill_energy": "lower",
    "decode_energy": "lower",
    "prefill_energy_net": "lower",
    "decode_energy_net": "lower",
    "efficiency": "higher",
    "peak": "lower",
    "load_time": "lower",
    "peak_rss": "lower",
    "pss": "lower",
    "anonymous": "lower",
    "arena": "lower",
    "stack": "lower",
}

#: Figures that have a value of every start of the runner, where others have one of every repeat.
PER_START = ("token_floor", "load_time")
MEMORY = ("peak_rss", "pss", "anonymous", "arena", "stack")


@dataclass(frozen=True)
class Figure:
    """One value of a profile.

    Attributes:
        metric: its name, one of :data:`DIRECTIONS`.
        case: that it is of; None where it is of the whole profile.
        value: the figure.
        section: that it stands in.
    """

    metric: str
    case: Case | None
    value: Value
    section: Section

    @property
    def place(self) -> tuple[str, int, int, int | None]:
        """The same for the same figure of another profile."""
        case = self.case
        return (
            (self.metric, 0, 0, None)
            if case is None
            else (self.metric, case.prompt_tokens, case.new_tokens, case.threads)
        )


def figures(profile: Profile) -> Iterator[Figure]:
    """Every figure that can be better or worse, null ones included."""
    for case in profile.cases:
        for section in (case.latency, case.energy, case.temperature):
            for name, value in section.values.items():
                if name in DIRECTIONS:
                    yield Figure(name, case, value, section)
    if "seconds" in profile.load.values:
        yield Figure("load_time", None, profile.load.values["seconds"], profile.load)
    for name, value in profile.memory.values.items():
        if name in DIRECTIONS:
            yield Figure(name, None, value, profile.memory)
