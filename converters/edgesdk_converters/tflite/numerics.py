"""How a program computes: types of activations and of attention, and the quantization that follows from ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .graph import Grid

#: Arithmetic of products: float32; "dynamic", float activations that the kernel rounds itself; or static integers.
Arithmetic = Literal["float", "dynamic", "int8", "int16"]
KIND = {"float": "FLOAT32", "dynamic": "FLOAT32", "int8": "INT8", "int16": "INT16"}
_HEADROOM = {"INT8": 1, "INT16": 2}
_LOWEST, _STEPS = {"INT8": -128, "INT16": -32768}, {"INT8": 255, "INT16": 65535}

#: What the softmax kernels write, whatever they are given: they check these scales and zero points.
PROBABILITIES = {"INT8": Grid(np.array([1 / 256], np.float32), -128), "INT16": Grid(np.array([1 / 32768], np.float32))}


@dataclass(frozen=True)
class Range:
    """Least and greatest value that a tensor took, for each of its elements."""

    low: np.ndarray
    high: np.ndarray

    def divided(self, scales: np.ndarray) -> Range:
        """The range of ``x / scales`` for positive scales along the last axis."""
        return Range(self.low / scales, self.high / scales)


@dataclass(frozen=True)
class Numerics:
    """Types of a program's arithmetic.

    Attributes:
        linear: of products with weights.
        attention: of the products with keys and values, of the softmax, and of the caches.
        ranges: measured ranges by tensor name; needed where either is static.
    """

    linear: Arithmetic = "float"
    attention: Arithmetic = "float"
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @property
    def static(self) -> bool:
        """Whether products take integers on fixed grids."""
        return self.linear in ("int8", "int16")

    def grid(self, name: str, kind: str, *, symmetric: bool = False) -> Grid:
        """The grid of a measured tensor."""
        return grid_of(self.ranges[name], kind, symmetric=symmetric)


def grid_of(found: Range, kind: str, *, symmetric: bool = False) -> Grid:
    """The finest grid of a type that holds a range and zero.

    int16 kernels take symmetric grids only, and those hold twice the range: a bit of 16 costs nothing that can be
    measured, and text beyond the calibration's is not clipped.
    """
    low, high = min(float(found.low.min()), 0.0), max(float(found.high.max()), 0.0)
    if symmetric or kind == "INT16":
        scale = max(high, -low, 1e-8) * _HEADROOM[kind] / (_STEPS[kind] // 2)
        return Grid(np.array([scale], np.float32))
    scale = max(high - low, 1e-8) / _STEPS[kind]
    return Grid(np.array([scale], np.float32), int(np.clip(round(_LOWEST[kind] - low / scale), -128, 127)))


def lowest(kind: str) -> int:
    """The least integer of a type."""
    return _LOWEST[kind]
