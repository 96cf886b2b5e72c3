"""Two profiles side by side: what became better or worse, beyond what their repeats scatter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from ..documents import read_toml
from ..schema import load
from .metrics import DIRECTIONS, MEMORY, PER_START, Figure, figures
from .schema import Plan, Profile, ProfileError
from .statistics import paired_interval, ratio_interval

Verdict = Literal["better", "worse", "same", "unsure", "not comparable"]
Difference = Literal["bundle", "device", "regime", "energy"]
_FEW = 3  # repeats on both sides for a verdict
_ALLOWANCE = 0.02


@dataclass(frozen=True)
class Rule:
    """What a policy says of one metric.

    Attributes:
        allowance: share by which it may become worse.
        direction: which way is better; None takes the metric's own.
        ignore: leave it out.
    """

    allowance: float = _ALLOWANCE
    direction: Literal["higher", "lower"] | None = None
    ignore: bool = False


@dataclass(frozen=True)
class Policy:
    """How two profiles are judged.

    Attributes:
        default: for metrics that have no rule.
        level: of the intervals that must leave out "no change".
        metrics: rules by metric.
    """

    default: Rule = field(default_factory=Rule)
    level: float = 0.95
    metrics: dict[str, Rule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0.5 <= self.level < 1:
            raise ProfileError(f"the level of intervals must be from 0.5 up to below 1, found {self.level:g}")

    def rule(self, metric: str) -> Rule:
        return self.metrics.get(metric, self.default)


@dataclass(frozen=True)
class Change:
    """One figure in both profiles.

    Attributes:
        ratio: of B to A, the geometric mean over starts; None where one is missing.
        low: of the ratio's interval.
        high: likewise.
        verdict: ``worse`` and ``better`` only where the interval leaves out 1 and the ratio exceeds the allowance;
            ``same`` where the whole interval is within the allowance; ``unsure`` between these.
        why: there is no verdict.
    """

    metric: str
    case: str
    a: float | None
    b: float | None
    unit: str
    ratio: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    why: str = ""


def read_policy(path: Path) -> Policy:
    """A policy from TOML, strictly.

    Raises:
        ProfileError: it cannot be read, or names a metric that there is not.
    """
    policy = load(Policy, read_toml(path, ProfileError), str(path), ProfileError)
    for name in policy.metrics:
        refuse_metric(name, path)
    return policy


def refuse_metric(name: str, path: Path) -> None:
    """Stop at a metric that no profile has.

    Raises:
        ProfileError: with those that there are.
    """
    if name not in DIRECTIONS:
        raise ProfileError(f"{path}: no metric '{name}'; there are: {', '.join(DIRECTIONS)}")


def compared(
    a: Profile, b: Profile, policy: Policy | None = None, *, allow: Collection[Difference] = ()
) -> list[Change]:
    """Every figure that both have. An observation is a start of the runner: its repeats share what chance gave it.

    Of profiles measured in turns, a start of A and the start of B beside it are a pair: the observation is the median
    of the ratios of their repeats, each of B to that of A beside it.

    Args:
        a: the profile before.
        b: the profile after.
        policy: how they are judged.
        allow: differences that are meant.

    Raises:
        ProfileError: the two are of different bundles, devices, clock regimes or energy scopes, and that is not
            allowed; or they have no case in common.
    """
    _refuse(a, b, allow)
    policy, paired = policy or Policy(), a.paired is not None and a.paired == b.paired and a.plan == b.plan
    before = {figure.place: figure for figure in figures(a)}
    found = [
        _change(before[figure.place], figure, policy, (a.plan, b.plan), paired)
        for figure in figures(b)
        if figure.place in before and not policy.rule(figure.metric).ignore
    ]
    if not any(change.case for change in found):
        raise ProfileError("the two profiles have no case in common", hint="profile both with the same plan")
    return found


def differences(a: Profile, b: Profile) -> dict[Difference, str]:
    """What keeps two profiles from being compared."""
    found: dict[Difference, str] = {}
    if a.bundle.digest != b.bundle.digest:
        found["bundle"] = f"A is of {_bundle(a)}, B of {_bundle(b)}"
    if (a.device.model, a.device.architecture) != (b.device.model, b.device.architecture):
        found["device"] = f"A ran on {a.device.model or a.device.name}, B on {b.device.model or b.device.name}"
    if dict(a.regime) != dict(b.regime):
        names = sorted(name for name in {*a.regime, *b.regime} if a.regime.get(name) != b.regime.get(name))
        one, other = a.regime.get(names[0]), b.regime.get(names[0])
        found["regime"] = f"the clocks of A and B could do different things: {names[0]} is {one} in A, {other} in B"
    if a.energy_scope and b.energy_scope and a.energy_scope != b.energy_scope:
        found["energy"] = f"A's energy is of {a.energy_scope}, B's of {b.energy_scope}"
    return found


def _refuse(a: Profile, b: Profile, allow: Collection[Difference]) -> None:
    for name, text in differences(a, b).items():
        if name not in allow:
            raise ProfileError(text, hint=f"--allow {name} compares them nevertheless")


def _bundle(profile: Profile) -> str:
    return f"{profile.bundle.model} {profile.bundle.recipe} ({profile.bundle.digest[:12]})"


def _change(a: Figure, b: Figure, policy: Policy, plans: tuple[Plan, Plan], paired: bool) -> Change:
    rule, case = policy.rule(b.metric), "" if b.case is None else b.case.title
    one, other, unit = a.value.value, b.value.value, b.value.unit
    if one is None or other is None:
        side = a if one is None else b
        return Change(b.metric, case, one, other, unit, None, None, None, "not comparable", side.value.reason or "")
    if a.value.unit != unit:
        return Change(b.metric, case, one, other, unit, None, None, None, "not comparable", f"A is in {a.value.unit}")
    if one <= 0 or other <= 0 or min((*a.value.each, *b.value.each, 1.0)) <= 0:
        return Change(b.metric, case, one, other, unit, None, None, None, "not comparable", "not above 0")
    ratio = other / one
    direction = rule.direction or DIRECTIONS[b.metric]
    if b.metric in MEMORY:  # the kernel's count, which hardly scatters and is taken once
        said = _verdict(ratio, ratio, ratio, rule, direction)
        return Change(b.metric, case, one, other, unit, ratio, None, None, said)
    ours, theirs = (_units(each.value.each, each, plan) for each, plan in zip((a, b), plans, strict=True))
    if min(len(ours), len(theirs)) < _FEW:
        same: Verdict = "same" if ratio == 1 else "unsure"
        return Change(b.metric, case, one, other, unit, ratio, None, None, same, "few-repeats")
    if paired and _whole(a, plans[0]) and _whole(b, plans[1]):
        ratios = [after / before for before, after in zip(a.value.each, b.value.each, strict=True)]
        ratio, low, high = paired_interval(_units(ratios, b, plans[1]), policy.level)
    else:
        ratio, low, high = ratio_interval(ours, theirs, policy.level)
    return Change(b.metric, case, one, other, unit, ratio, low, high, _verdict(ratio, low, high, rule, direction))


def _whole(figure: Figure, plan: Plan) -> bool:
    """Whether no value is missing, so that those of two profiles measured in turns belong together one by one."""
    every = plan.repeats
    if figure.metric in PER_START:
        every = min(plan.starts, plan.repeats) * (1 if figure.case is not None else len(plan.threads))
    return len(figure.value.each) == every


def _units(each: Sequence[float], figure: Figure, plan: Plan) -> Sequence[float]:
    """What counts as one observation: the repeats of one start of the runner together, where there were several."""
    if figure.metric in PER_START or plan.starts < 2 or len(each) != plan.repeats:
        return each
    starts = [
        [value for index, value in enumerate(each) if plan.start_of(index) == number] for number in range(plan.starts)
    ]
    return [float(np.median(values)) for values in starts if values]


def _verdict(ratio: float, low: float, high: float, rule: Rule, direction: str) -> Verdict:
    worse = low > 1 if direction == "lower" else high < 1
    better = high < 1 if direction == "lower" else low > 1
    slip = ratio - 1 if direction == "lower" else 1 - ratio
    if worse and slip > rule.allowance:
        return "worse"
    if better and -slip > rule.allowance:
        return "better"
    if low >= 1 - rule.allowance and high <= 1 + rule.allowance:
        return "same"
    return "unsure"
