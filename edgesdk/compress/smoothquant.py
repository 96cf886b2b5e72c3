"""SmoothQuant: move the outliers of activations into the weights, where eight bits hold them.

What it does: channel j of what a norm gives is divided by ``max|x_j|**a / max|w_j|**(1 - a)`` in the norm, and
multiplied in the matrices that read it. It rounds nothing itself.
When to use it: before 8-bit weights with int8 activations, above all on static scales (microcontrollers).
What it costs: a forward pass over the calibration text; memory of one layer.
Example: ``edgesdk compress MODEL --recipe w8-smooth --out DIR``.
Source: Xiao et al., SmoothQuant, arXiv 2211.10438, equation 4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import RecipeError
from ..model.weights import dense
from .base import PassReport, PassResult, Setting
from .folding import folds
from .layerwise import walk
from .spool import Spool

if TYPE_CHECKING:
    from ..model import DecoderSpec, Model


@dataclass(frozen=True)
class SmoothQuant:
    """Options of the pass.

    Attributes:
        strength: a in the formula: 0 moves nothing of the activations, 1 all.
    """

    strength: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise RecipeError(f"smoothquant: 'strength' must lie between 0 and 1, found {self.strength}")

    def grid(self, name: str) -> tuple[int, int] | None:
        return None

    def spec(self, spec: DecoderSpec) -> DecoderSpec:
        return spec

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        import torch

        spool = Spool(setting.scratch / "smoothquant.bin", model.weights)
        for index, inputs in walk(model, setting, "Smoothing activations"):
            for fold in folds(model.spec, index):
                if not fold.norm or spool.entry(fold.consumers[-1]) is not None:
                    continue
                weights = [dense(model.weights.get(name)).abs().amax(0) for name in fold.consumers]
                widest = torch.stack(weights).amax(0).clamp(min=1e-5)
                peaks = inputs.of(fold.consumers[0]).peaks.clamp(min=1e-5)
                scale = (peaks**self.strength / widest ** (1 - self.strength)).clamp(min=1e-5)
                spool.write_together(dict(fold.apply(model, scale)))
        return PassResult(replace(model, weights=spool), PassReport("smoothquant", True))
