"""Block-wise reconstruction: learn rounding and clipping until each layer gives what the float layer gives.

What it does: layer by layer, on the states that the compressed layers before give, the integers and scales of a pass
before are moved by gradient descent so that the layer's output comes near that of the float model. The error of a token
is taken relative to the size of its state, which is what the norm behind it sees.
When to use it: after a rounding pass at four bits and fewer, when minutes of work buy quality.
What it costs: forward and backward passes through each layer in turn, ``steps`` times; memory of one layer with its
gradients, and the text's states twice. Ends at the time limit, and says so.
Example: ``edgesdk compress MODEL --recipe w4g32-gptq-rec --out DIR``.
Source: Nagel et al., AdaRound, arXiv 2004.10568; Shao et al., OmniQuant, arXiv 2308.13137 (clipping, block by block).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ..errors import RecipeError
from ..model.features import ALL, RECURRENT
from ..progress import track
from .base import KeepsGrid, PassReport, PassResult, Setting
from .layerwise import batches
from .spool import Spool

if TYPE_CHECKING:
    import torch

    from ..model import Model
    from ..model.reference import ReferenceModel
    from .training import TrainableLayer


@dataclass(frozen=True)
class Reconstruction(KeepsGrid):
    """Options of the pass.

    Attributes:
        steps: of gradient descent for each layer.
        minutes: time limit of the whole pass.
        rate: of the integers, in steps of the grid.
        scale_rate: of the scales, as a share of them.
        seed: of the choice of batches.
    """

    takes: ClassVar[frozenset[str]] = ALL - RECURRENT

    steps: int = 60
    minutes: float = 20.0
    rate: float = 0.02
    scale_rate: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.minutes > 0:
            raise RecipeError("reconstruction: 'steps' and 'minutes' must be above 0")

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        from ..model.reference import ReferenceModel
        from .training import TrainableLayer

        spool = Spool(setting.scratch / "reconstruction.bin", model.weights)
        made = model.with_weights(spool)
        unrounded, rounded = (ReferenceModel(each, resident=False) for each in (setting.unrounded or model, made))
        ids = batches(setting.tokens(model))
        wanted, states = unrounded.embed(ids), rounded.embed(ids)
        unrounded.release()
        rounded.release()
        layers = len(model.spec.layers)
        for index in track(setting.progress, "Learning rounding, layer by layer", range(layers)):
            wanted = unrounded.through(unrounded.layer(index), wanted)
            layer = TrainableLayer(model, index, integers=True, zeros_stay=setting.sparse)
            if any(spool.entry(f"layers.{index}.{name}.weight") is None for name in layer.matrices):
                cut = self._learn(rounded, layer, index, states, wanted, 60 * self.minutes / layers)
                note = f"the time limit of {self.minutes:g} minutes cut layers short" if cut else None
                spool.write_together(dict(layer.learned(index)), note)
            states = rounded.through(rounded.layer(index), states)
        return PassResult(replace(model, weights=spool), PassReport("reconstruction", True, notes=spool.notes))

    def _learn(
        self,
        reference: ReferenceModel,
        layer: TrainableLayer,
        index: int,
        states: list[torch.Tensor],
        wanted: list[torch.Tensor],
        seconds: float,
    ) -> bool:
        """Learn one layer; whether the time limit cut it short."""
        import torch

        from .training import Descent

        random = torch.Generator().manual_seed(self.seed + index)
        matrices = layer.matrices.values()
        descent = Descent(
            [(self.rate, [each.latent for each in matrices]), (self.scale_rate, [each.factors for each in matrices])],
            self.steps,
            seconds,
        )
        with torch.inference_mode(False), torch.enable_grad():
            for _ in descent:
                at = int(torch.randint(0, len(states), (1,), generator=random))
                x, target = states[at].clone(), wanted[at].clone()
                (found,) = reference.differentiable(layer, [x])
                error = (found - target).square().sum(-1) / target.square().sum(-1).clamp(min=1e-12)
                error.mean().backward()  # type: ignore[no-untyped-call]
        return descent.cut
