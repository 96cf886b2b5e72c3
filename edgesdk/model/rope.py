"""Rotary position tables (arXiv 2104.09864) and their scalings, computed once for every runtime."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .spec import LinearRopeScaling, Llama3RopeScaling, Rope

if TYPE_CHECKING:
    import torch


def inverse_frequencies(rope: Rope, head_dim: int, positions: int) -> torch.Tensor:
    """Radians per position of each half-split pair: float32, [head_dim / 2]; pairs that do not turn have 0.

    ``positions`` is the length of the table that they are for.
    """
    import torch

    rotated = rope.rotated or head_dim
    exponents = torch.arange(0, rotated, 2, dtype=torch.int64).float() / rotated
    frequencies = 1.0 / (rope.theta**exponents)
    if isinstance(rope.scaling, Llama3RopeScaling):
        frequencies = _llama3(frequencies, rope.scaling)
    elif isinstance(rope.scaling, LinearRopeScaling):
        frequencies = frequencies / rope.scaling.factor
    elif rope.scaling is not None:
        longer = positions > rope.scaling.original_context
        frequencies = frequencies / torch.tensor(rope.scaling.long_factors if longer else rope.scaling.factors)
    return torch.nn.functional.pad(frequencies, (0, (head_dim - rotated) // 2))


def rotary_tables(rope: Rope, head_dim: int, positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines for positions 0 to ``positions - 1``: two float32 tensors [positions, head_dim / 2]."""
    import torch

    angles = torch.outer(torch.arange(positions).float(), inverse_frequencies(rope, head_dim, positions))
    cos, sin = angles.cos(), angles.sin()
    if rope.scaling is not None and rope.scaling.kind == "pairs":
        scaling, turning = rope.scaling, (rope.rotated or head_dim) // 2
        magnitude = scaling.long_magnitude if positions > scaling.original_context else scaling.magnitude
        cos[:, :turning] *= magnitude
        sin[:, :turning] *= magnitude
    return cos, sin


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
