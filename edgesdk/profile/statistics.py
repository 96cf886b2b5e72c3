"""Statistics of repeats: medians with bootstrap intervals, quantiles, outliers that are shown and not dropped."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from .schema import Value

DRAWS = 4000
_SEED = 20261122
_FEW = 3  # repeats for an interval


def summarised(each: Sequence[float], unit: str, missing: str) -> Value:
    """The median of repeats with its 95 % interval; null with the reason ``missing`` where there is none.

    The interval is the percentile bootstrap of the median (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 13); few repeats make it wide, and it never reaches beyond them.
    """
    if not each:
        return Value(None, unit, missing)
    middle = float(np.median(each))
    if len(each) < _FEW:
        return Value(middle, unit, each=tuple(each), outliers=())
    low, high = interval(each)
    return Value(middle, unit, None, low, high, tuple(each), outliers(each))


def interval(each: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Interval of the median by percentile bootstrap, the same for the same values."""
    values = np.asarray(each, dtype=float)
    medians = np.median(_resampled(values, np.random.default_rng(_SEED)), axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def outliers(each: Sequence[float]) -> tuple[int, ...]:
    """Indexes of values beyond 1.5 interquartile ranges of the quartiles (Tukey, Exploratory Data Analysis, 1977)."""
    low, high = np.quantile(each, [0.25, 0.75])
    reach = 1.5 * (high - low)
    return tuple(i for i, value in enumerate(each) if not low - reach <= value <= high + reach)


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile by linear interpolation."""
    return float(np.quantile(values, share))


def ratio_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """The ratio of B to A and its interval, from observations that have nothing to do with each other.

    Geometric means, and Welch's t interval of the difference of logarithms (Welch, Biometrika 34, 1947).
    """
    first, second = np.log(np.asarray(a, dtype=float)), np.log(np.asarray(b, dtype=float))
    parts = first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)
    spread, freedom = float(np.sqrt(sum(parts))), float(min(len(first), len(second)) - 1)
    if spread:
        freedom = float(sum(parts) ** 2 / (parts[0] ** 2 / (len(first) - 1) + parts[1] ** 2 / (len(second) - 1)))
    return _around(float(second.mean() - first.mean()), spread, freedom, level)


def paired_interval(ratios: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """As :func:`ratio_interval`, of ratios of what was measured in turns: Student's t interval of their logarithms."""
    logs = np.log(np.asarray(ratios, dtype=float))
    spread = float(logs.std(ddof=1) / np.sqrt(len(logs)))
    return _around(float(logs.mean()), spread, float(len(logs) - 1), level)


def _around(middle: float, spread: float, freedom: float, level: float) -> tuple[float, float, float]:
    reach = _student(level, freedom) * spread
    return float(np.exp(middle)), float(np.exp(middle - reach)), float(np.exp(middle + reach))


def _student(level: float, freedom: float) -> float:
    """The quantile of Student's t that bounds ``level``, by Fisher's expansion: 1 % too small at 2 degrees of freedom.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def _resampled(values: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    return values[draws.integers(0, len(values), size=(DRAWS, len(values)))]
