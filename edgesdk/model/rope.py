"""Rotary position tables (arXiv 2104.09864) and their scalings, computed once for every runtime."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .spec import Llama3RopeScaling, Rope

if TYPE_CHECKING:
    import torch


def inverse_frequencies(rope: Rope, head_dim: int) -> torch.Tensor:
    """Radians per position of each half-split pair: float32, [head_dim / 2]."""
    import torch

    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / (rope.theta**exponents)
    if rope.scaling is None:
        return frequencies
    if isinstance(rope.scaling, Llama3RopeScaling):
        return _llama3(frequencies, rope.scaling)
    return frequencies / rope.scaling.factor


def rotary_tables(rope: Rope, head_dim: int, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines for positions 0 to ``positions - 1``: two float32 tensors [positions, head_dim / 2]."""
    import torch

    angles = torch.outer(torch.arange(positions).float(), inverse_frequencies(rope, head_dim))
    return angles.cos(), angles.sin()


def _llama3(frequencies: torch.Tensor, scaling: Llama3RopeScaling) -> torch.Tensor:
    """Long wavelengths are stretched by ``factor``, short ones kept, those between blended."""
    import torch

    wavelengths = 2 * math.pi / frequencies
    blend = (scaling.original_context / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    stretched = frequencies / scaling.factor
    mixed = (1 - blend) * stretched + blend * frequencies
    low = scaling.original_context / scaling.low_freq_factor
    high = scaling.original_context / scaling.high_freq_factor
    return torch.where(wavelengths > low, stretched, torch.where(wavelengths < high, frequencies, mixed))
