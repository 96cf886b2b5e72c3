"""SmoothQuant: move the outliers of activations into the weights, where eight bits hold them.

What it does: channel j is divided by ``max|x_j|**a / max|w_j|**(1 - a)`` where it comes from (a norm, or the matrix
before) and multiplied in the matrices that read it. It rounds nothing itself. The paper smooths what norms give, all
with the same a. Here the inputs of ``o`` and ``down`` are smoothed too, since the largest outliers of gated MLPs lie
there, but only channels whose rounding to int8 costs the product more than the rounding of the weights does; for them a
is searched, with weights rounded as the recipe will and activations to int8 with a scale a token.
When to use it: before rounding for kernels with one activation scale a token or a tensor (ExecuTorch, LiteRT, TFLM).
What it costs: a forward pass over the calibration text; memory of one layer.
Example: ``edgesdk compress MODEL --recipe w4g32-smooth-gptq --out DIR``.
Source: Xiao et al., SmoothQuant, arXiv 2211.10438, equation 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ..errors import RecipeError
from ..model.features import FOLDED
from ..model.weights import dense
from .activations import in_int8
from .base import KeepsGrid, PassReport, PassResult, Setting
from .folding import Fold, folds
from .layerwise import InputSums, walk
from .spool import Spool

if TYPE_CHECKING:
    import torch

    from ..model import Model


_STRENGTHS = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)


@dataclass(frozen=True)
class SmoothQuant(KeepsGrid):
    """Options of the pass.

    Attributes:
        strength: a in the formula: 0 moves nothing of the activations, 1 all; None to search it.
    """

    takes: ClassVar[frozenset[str]] = FOLDED

    strength: float | None = None

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise RecipeError(f"smoothquant: 'strength' must lie between 0 and 1, found {self.strength}")

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        spool = Spool(setting.scratch / "smoothquant.bin", model.weights)
        made = replace(model, weights=spool)
        for index, inputs in walk(model, setting, "Smoothing activations"):
            for fold in folds(model.spec, index):
                if spool.entry(fold.consumers[-1]) is not None:
                    continue
                spool.write_together(self._smoothed(made, fold, inputs.of(fold.consumers[0]), setting))
        return PassResult(made, PassReport("smoothquant", True))

    def _smoothed(self, model: Model, fold: Fold, sums: InputSums, setting: Setting) -> dict[str, torch.Tensor]:
        """What smoothing one set of channels changes."""
        import torch

        matrices = {name: dense(model.weights.get(name)) for name in fold.consumers}
        widest = fold.per_source(torch.stack([matrix.abs().amax(0) for matrix in matrices.values()]).amax(0))
        peaks = fold.per_source(sums.peaks).clamp(min=1e-5)

        def scale(strength: float) -> torch.Tensor:
            found = peaks**strength / widest.clamp(min=1e-5) ** (1 - strength)
            return found / found.log().mean().exp()

        if self.strength is not None:
            return dict(fold.apply(model, scale(self.strength)))
        x = torch.cat(sums.sample)

        def error(each: torch.Tensor, rounded: torch.Tensor, *, float_weights: bool = False) -> float:
            return sum(
                _relative_error(
                    x @ matrix.T,
                    rounded @ (matrix if float_weights else setting.rounded(name, matrix * each)).T,
                )
                for name, matrix in matrices.items()
            )

        plain = torch.ones_like(fold.per_consumer(peaks))
        if error(plain, in_int8(x), float_weights=True) < error(plain, x):
            return dict(fold.apply(model, torch.ones_like(peaks)))
        candidates = [torch.ones_like(peaks), *(scale(strength) for strength in _STRENGTHS)]
        found = [error(fold.per_consumer(each), in_int8(x / fold.per_consumer(each))) for each in candidates]
        return dict(fold.apply(model, candidates[found.index(min(found))]))


def _relative_error(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Squared error of rows, each relative to its own size, on average."""
    return float(((found - wanted).square().sum(-1) / wanted.square().sum(-1).clamp(min=1e-12)).mean())
