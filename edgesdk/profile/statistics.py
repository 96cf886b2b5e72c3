"""Statistics of repeats: medians with bootstrap intervals, quantiles, outliers that are shown and not dropped."""

from __future__ import annotations

from collections.abc import Sequence

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
    """The ratio of the medians, B to A, and its interval by bootstrap over the repeats of both.

    The interval is widened by Student's t over the normal quantile at the repeats' degrees of freedom: percentile
    intervals of few values are too narrow (Efron and Tibshirani, section 12.5; Hesterberg 2015, section 3.2).
    """
    draws = np.random.default_rng(_SEED)
    first, second = np.log(np.asarray(a, dtype=float)), np.log(np.asarray(b, dtype=float))
    middle = float(np.median(second) - np.median(first))
    found = np.median(_resampled(second, draws), axis=1) - np.median(_resampled(first, draws), axis=1)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    widen = _widening(min(len(a), len(b)) - 1)
    return (
        float(np.exp(middle)),
        float(np.exp(middle + widen * (low - middle))),
        float(np.exp(middle + widen * (high - middle))),
    )


def paired_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """As :func:`ratio_interval`, of values that were measured in turns: of the median of the ratios of each pair."""
    ratios = np.log(np.asarray(b, dtype=float)) - np.log(np.asarray(a, dtype=float))
    middle = float(np.median(ratios))
    found = np.median(_resampled(ratios, np.random.default_rng(_SEED)), axis=1)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    widen = _widening(len(ratios) - 1)
    return (
        float(np.exp(middle)),
        float(np.exp(middle + widen * (low - middle))),
        float(np.exp(middle + widen * (high - middle))),
    )


def _resampled(values: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    return values[draws.integers(0, len(values), size=(DRAWS, len(values)))]


def _widening(freedom: int) -> float:
    """Student's 97.5 % quantile by the normal one, times the correction of the variance of few values."""
    quantiles = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
    if freedom < 1:
        return float("inf")
    return quantiles.get(freedom, 2.262 if freedom < 20 else 1.96) / 1.96 * float(np.sqrt((freedom + 1) / freedom))
