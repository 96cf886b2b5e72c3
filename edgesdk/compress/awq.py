"""AWQ: scale up the channels that matter before rounding, and clip what is rounded worst.

What it does: channels with large activations are multiplied by ``mean(|x|)**a`` in the matrices that read them and
divided in the norm or matrix before, so that rounding hurts them less; for each set of channels the exponent with the
smallest error of the product is searched. Then every group of weights is clipped where that makes the error smaller.
It rounds nothing itself: a rounding pass follows.
When to use it: before rounding to nearest, at four bits and fewer; also before GPTQ (without clipping).
What it costs: a forward pass over the calibration text, and some twenty roundings of every matrix; memory of one layer.
Example: ``edgesdk compress MODEL --recipe w4g32-awq --out DIR``.
Source: Lin et al., AWQ, arXiv 2306.00978, with the error of the product taken from the sum of x x^T.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ..model.features import FOLDED
from ..model.weights import dense
from .base import KeepsGrid, PassReport, PassResult, Setting, dividing
from .folding import Fold, folds
from .layerwise import InputSums, walk
from .spool import Spool

if TYPE_CHECKING:
    import torch

    from ..model import Model

_EXPONENTS = 10
_CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
_UNCLIPPED = (
    "q",
    "k",
)  # their products go through a softmax, which clipping disturbs (section 3.2 of the paper's code)


@dataclass(frozen=True)
class Awq(KeepsGrid):
    """Options of the pass; bits and groups are those of the rounding that follows in the recipe.

    Attributes:
        clip: whether to clip.
    """

    takes: ClassVar[frozenset[str]] = FOLDED

    clip: bool = True

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        spool = Spool(setting.scratch / "awq.bin", model.weights)
        made = replace(model, weights=spool)
        for index, inputs in walk(model, setting, "Scaling channels (AWQ)"):
            for fold in folds(model.spec, index):
                sums = inputs.of(fold.consumers[0])
                if spool.entry(fold.consumers[-1]) is None:
                    self._scale(made, fold, sums, setting, spool)
        return PassResult(made, PassReport("awq", True))

    def _scale(self, model: Model, fold: Fold, sums: InputSums, setting: Setting, spool: Spool) -> None:
        """Search the scale of one set of channels, and write what it changes."""
        import torch

        matrices = {name: dense(model.weights.get(name)) for name in fold.consumers}
        mean = fold.per_source(sums.magnitudes / sums.rows).clamp(min=1e-4)
        best, least = torch.ones_like(mean), float("inf")
        for step in range(_EXPONENTS):
            scale = mean ** (step / _EXPONENTS)
            scale = scale / (scale.max() * scale.min()).sqrt()
            each = fold.per_consumer(scale)
            lost = sum(
                _loss(setting.rounded(name, matrix * each) / each - matrix, sums.products)
                for name, matrix in matrices.items()
            )
            if lost < least:
                best, least = scale, lost
        each = fold.per_consumer(best)
        products = sums.products / each.unsqueeze(1) / each
        found = dict(fold.apply(model, best))
        for name in fold.consumers:
            if self.clip and name.split(".")[2] not in _UNCLIPPED:
                found[name] = self._clipped(name, found[name], products, setting)
        spool.write_together(found)

    def _clipped(self, name: str, weight: torch.Tensor, products: torch.Tensor, setting: Setting) -> torch.Tensor:
        """The matrix with each group clipped where that lowers the error of the group's own product."""
        import torch

        rows, columns = weight.shape
        group = dividing(columns, (setting.grid(name) or (16, 0))[1])
        blocks = torch.stack([products[at : at + group, at : at + group] for at in range(0, columns, group)])
        best, least = weight, torch.full((rows, columns // group), float("inf"))
        peak = weight.view(rows, -1, group).abs().amax(-1, keepdim=True)
        for ratio in _CLIPS:
            cut = weight.view(rows, -1, group).clamp(-peak * ratio, peak * ratio).view(rows, columns)
            error = (setting.rounded(name, cut) - weight).view(rows, -1, group)
            lost = torch.einsum("rgi,gij,rgj->rg", error, blocks, error)
            better = (lost < least).repeat_interleave(group, dim=1)
            best, least = torch.where(better, cut, best), torch.minimum(lost, least)
        return best


def _loss(error: torch.Tensor, products: torch.Tensor) -> float:
    """Squared error of the product, summed over the calibration text."""
    return float(((error @ products) * error).sum())
