"""HQQ: fit the scale of every group to most of its weights, and let the few large errors be large.

What it does: half-quadratic splitting. Errors are shrunk towards those that a norm with exponent below one would leave,
and the scale is fitted by least squares to what remains, in turns; of the scales seen, the one with the smallest such
norm of the error stays. The paper fits zero points; on a symmetric grid the scale is what there is to fit.
When to use it: without calibration text, as an alternative to the anchored scales of rounding to nearest.
What it costs: some twenty roundings of the weights; memory of one tensor.
Example: ``edgesdk compress MODEL --recipe w4g64-hqq --out DIR``.
Source: Badri and Shaji, Half-Quadratic Quantization of Large Machine Learning Models (Mobius Labs, 2023), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import RecipeError
from ..model.tensors import FLOAT16_TINY, portable_scales
from .rtn import RoundToNearest, group_error, round_groups, search_scales

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Hqq(RoundToNearest):
    """Options of the pass; those of rounding to nearest, and:

    Attributes:
        norm: exponent of the norm that is made small, above 0 and at most 1.
        iterations: of the fit.
    """

    label: ClassVar[str] = "hqq"

    norm: float = 0.7
    iterations: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.norm <= 1:
            raise RecipeError(f"hqq: 'norm' must be above 0 and at most 1, found {self.norm}")
        if self.iterations < 1:
            raise RecipeError(f"hqq: 'iterations' must be at least 1, found {self.iterations}")

    def search(self, groups: torch.Tensor, bits: int, signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        scale, _ = search_scales(groups, bits, signed)
        best, least = scale, self._norm(groups, scale, bits)
        size = groups.abs().mean(1, keepdim=True).clamp(min=1e-12)
        strictness = 10.0
        for _ in range(self.iterations):
            rounded = round_groups(groups, scale, bits)
            error = (groups - rounded * scale) / size
            kept = error.sign() * (error.abs() - error.abs().clamp(min=1e-8) ** (self.norm - 1) / strictness).clamp(
                min=0
            )
            fitted = (rounded * (groups - kept * size)).sum(1, keepdim=True)
            fitted = portable_scales(fitted / rounded.square().sum(1, keepdim=True).clamp(min=1))
            usable = (fitted != 0) if signed else (fitted > 0)
            scale = torch.where(usable & (fitted.abs() >= FLOAT16_TINY), fitted, scale)
            norm = self._norm(groups, scale, bits)
            better = norm < least
            best, least = torch.where(better, scale, best), torch.where(better, norm, least)
            strictness *= 1.05
        return best, group_error(groups, best, bits)

    def _norm(self, groups: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
        error = (round_groups(groups, scale, bits) * scale - groups).abs()
        return (error**self.norm).sum(1, keepdim=True)
