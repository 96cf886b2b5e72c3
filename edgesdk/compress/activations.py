"""Activations as integers: what rounding them does, and which range a static scale should hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch


def in_int8(x: torch.Tensor) -> torch.Tensor:
    """Activations [rows, in] as int8 with one scale and zero point a row holds them (XNNPACK's qd8), float32."""
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp(min=1e-12)
    zero = (-128 - low / scale).round()
    return ((x / scale).round() + zero).clamp(-128, 127).sub(zero) * scale


Observer = Literal["minmax", "percentile", "mse"]
OBSERVERS: tuple[Observer, ...] = ("minmax", "percentile", "mse")
_BINS = 2048
_KEPT = 0.9999  # of the values, by the percentile observer
_CUTS = 40  # ranges that the squared-error observer tries


class Histogram:
    """Counts of the values that a tensor took, over a range that doubles when it must; for static scales.

    Source of the ranges taken from it: Wu et al., Integer Quantization for Deep Learning Inference, arXiv 2004.09602,
    section 3.3 (percentile); Sung et al., arXiv 1511.06488 (least squared error).
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS)
        self._low, self._width = 0.0, 0.0

    def add(self, values: np.ndarray) -> None:
        """Count values of any shape."""
        flat = values.ravel().astype(np.float64)
        if not flat.size:
            return
        least, most = float(flat.min()), float(flat.max())
        if not self._width:
            self._low, self._width = least, max((most - least) / _BINS, 1e-12)
        while least < self._low or most > self._low + self._width * _BINS:
            self._double(downwards=least < self._low)
        places = np.minimum((flat - self._low) / self._width, _BINS - 1).astype(np.int64)
        self._counts += np.bincount(places, minlength=_BINS)

    def limits(self, observer: Observer, levels: int = 255) -> tuple[float, float]:
        """The range that an observer takes of it, for integers with so many steps: least and greatest value."""
        if observer == "percentile":
            return self._percentile()
        return self._least_error(levels) if observer == "mse" else (-np.inf, np.inf)

    def _double(self, *, downwards: bool) -> None:
        pairs = self._counts.reshape(-1, 2).sum(1)
        empty = np.zeros(_BINS // 2)
        self._low -= self._width * _BINS if downwards else 0.0
        self._counts = np.concatenate((empty, pairs) if downwards else (pairs, empty))
        self._width *= 2

    def _percentile(self) -> tuple[float, float]:
        share = np.cumsum(self._counts) / self._counts.sum()
        left = (1 - _KEPT) / 2
        first, last = np.searchsorted(share, left), np.searchsorted(share, 1 - left)
        return self._low + self._width * float(first), self._low + self._width * float(last + 1)

    def _least_error(self, levels: int) -> tuple[float, float]:
        used = np.flatnonzero(self._counts)
        middles = self._low + self._width * (used + 0.5)
        counts = self._counts[used]
        low, high = self._low + self._width * float(used[0]), self._low + self._width * float(used[-1] + 1)
        best, least = (low, high), np.inf
        for cut in range(_CUTS):
            ratio = 1 - cut / _CUTS
            ends = (low * ratio if low < 0 else low, high * ratio if high > 0 else high)
            step = (max(ends[1], 0.0) - min(ends[0], 0.0)) / levels
            outside = np.maximum(ends[0] - middles, 0) + np.maximum(middles - ends[1], 0)
            error = float((counts * np.where(outside > 0, outside**2, step**2 / 12)).sum())
            if error < least:
                best, least = ends, error
        return best
