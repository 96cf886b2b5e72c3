"""Budgets: limits that a profile must meet. A figure that is missing meets none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..documents import read_toml
from ..schema import load
from .compare import refuse_metric
from .metrics import Figure, figures
from .schema import Profile, ProfileError


@dataclass(frozen=True)
class Limit:
    """Limits of one metric, in its unit.

    Attributes:
        min: the least that is enough.
        max: the most that is allowed.
        prompt_tokens: only for cases with so many; None for all.
        threads: likewise.
        interval: whether the whole 95 % interval must be within, and not only the median.
    """

    min: float | None = None
    max: float | None = None
    prompt_tokens: int | None = None
    threads: int | None = None
    interval: bool = False


@dataclass(frozen=True)
class Check:
    """One figure against its limit."""

    metric: str
    case: str
    value: float | None
    unit: str
    limit: str
    met: bool
    why: str = ""


def read_budget(path: Path) -> dict[str, Limit]:
    """A budget from TOML: a table for every metric.

    Raises:
        ProfileError: it cannot be read, names a metric that there is not, or limits nothing.
    """
    data = read_toml(path, ProfileError)
    if not data:
        raise ProfileError(f"{path}: limits nothing", hint="[decode_rate]\nmin = 10")
    found = {}
    for name, table in data.items():
        refuse_metric(name, path)
        found[name] = load(Limit, table, f"{path}: {name}", ProfileError)
        if found[name].min is None and found[name].max is None:
            raise ProfileError(f"{path}: {name} has neither min nor max")
    return found


def checked(profile: Profile, budget: dict[str, Limit]) -> list[Check]:
    """Every figure that the budget limits; a limit that fits no case is not met."""
    rows = []
    for name, limit in budget.items():
        able = [f for f in figures(profile) if f.metric == name and _concerned(f, limit)]
        rows += [_check(figure, limit, profile) for figure in able]
        if not able:
            rows.append(Check(name, "", None, "", _said(limit), False, "no such case in the profile"))
    return rows


def _concerned(figure: Figure, limit: Limit) -> bool:
    case = figure.case
    if case is None:
        return True
    return limit.prompt_tokens in (None, case.prompt_tokens) and limit.threads in (None, case.threads)


def _check(figure: Figure, limit: Limit, profile: Profile) -> Check:
    value, case = figure.value, "" if figure.case is None else figure.case.title
    if value.value is None:
        return Check(figure.metric, case, None, value.unit, _said(limit), False, value.reason or "")
    low, high = value.value, value.value
    if limit.interval:
        if value.low is None or value.high is None:
            return Check(figure.metric, case, value.value, value.unit, _said(limit), False, "few-repeats")
        low, high = value.low, value.high
    met = (limit.min is None or low >= limit.min) and (limit.max is None or high <= limit.max)
    invalid = profile.validity == "invalid" or figure.section.validity == "invalid"
    why = "invalid" if invalid else ""
    return Check(figure.metric, case, value.value, value.unit, _said(limit), met and not invalid, why)


def _said(limit: Limit) -> str:
    parts = [f">= {limit.min:g}"] if limit.min is not None else []
    parts += [f"<= {limit.max:g}"] if limit.max is not None else []
    return " and ".join(parts) + (" (whole interval)" if limit.interval else "")
