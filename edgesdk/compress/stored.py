"""Keep a compressed checkpoint's weights exactly as they are.

When to use it: never by hand; a checkpoint that says it is compressed gets it, unless the user names a recipe.
What it costs: one pass over the weights, to see that the target's kernels hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import RecipeError
from ..model.tensors import QuantizedTensor
from ..progress import track
from .base import PassReport, PassResult, Setting

if TYPE_CHECKING:
    from ..model import DecoderSpec, Model


@dataclass(frozen=True)
class AsStored:
    """Options of the pass.

    Attributes:
        grids: bits and group (0: a row) of every tensor that is on a grid.
    """

    grids: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def grid(self, name: str) -> tuple[int, int] | None:
        return self.grids.get(name)

    def spec(self, spec: DecoderSpec) -> DecoderSpec:
        return spec

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        schemes: dict[str, int] = {}
        for name in track(setting.progress, "Checking compressed weights", tuple(self.grids)):
            tensor = model.weights.get(name)
            if not isinstance(tensor, QuantizedTensor):
                continue
            if (obstacle := setting.limits.obstacle(setting.limits.widen(tensor))) is not None:
                raise RecipeError(
                    f"{name} is {tensor.scheme} in this checkpoint, and the target's kernels cannot hold {obstacle}",
                    hint="compress the original for this target (edgesdk compress --target), choose an ONNX Runtime "
                    "target, or name a --recipe to round the weights a second time",
                )
            schemes[tensor.scheme] = schemes.get(tensor.scheme, 0) + 1
        return PassResult(model, PassReport("stored", False, schemes))
