"""Fewer channels: the residual stream is turned to its principal axes, and the smallest of them are cut off.

What it does: the second moments of the states between layers, each state scaled to unit norm, give one orthogonal
matrix for the whole model; norms' weights move into the matrices that follow, all matrices are turned, and the last
channels are dropped. The result is an ordinary smaller model. (SliceGPT turns every layer differently, which needs an
extra matrix in each residual sum; one turn for all needs none.)
When to use it: for untied heads. A tied head becomes a matrix of its own, whose size must be saved elsewhere: for small
models with large vocabularies ``width`` and ``depth`` cost less quality. Follow it with ``recovery``.
What it costs: one forward pass over the calibration text and one pass over the weights; memory of the largest matrix.
Example: ``[[pass]] use = "hidden"``, ``keep = 0.75`` in a recipe file.
Source: Ashkboos et al., SliceGPT, arXiv 2401.15024.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ...errors import RecipeError
from ...model.features import TURNED
from ...progress import track
from ..base import PassReport, PassResult, Setting, Shapes
from ..kept import kept_tensor
from ..layerwise import batches
from ..rotation import refuse_unturnable, turned_ends, turned_layer
from ..spool import Spool
from .sizes import check_keep

if TYPE_CHECKING:
    import torch

    from ...model import DecoderSpec, Model

_UNIT = 32  # channels, so that groups of inputs still divide them


@dataclass(frozen=True)
class Hidden(Shapes):
    """Options of the pass.

    Attributes:
        keep: share of the model's parameters that is left at most, embedding and head counted.
    """

    takes: ClassVar[frozenset[str]] = TURNED

    keep: float = 0.75

    def __post_init__(self) -> None:
        check_keep("hidden", self.keep)

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        refuse_unturnable(model.spec, "take 'width' or 'depth' instead")
        spec = self._smaller(model.spec, setting)
        spool = Spool(setting.scratch / "hidden.bin", model.weights)
        axes = kept_tensor(setting.scratch / "axes.pt", lambda: _axes(model, setting))[:, : spec.hidden].contiguous()
        layers = range(len(spec.layers))
        for index in track(setting.progress, "Cutting channels", layers):
            for name, tensor in turned_layer(model, index, axes, None):
                if spool.entry(name) is None:
                    spool.write(name, tensor)
        for name, tensor in turned_ends(model, axes):
            if spool.entry(name) is None:
                spool.write(name, tensor)
        note = f"{model.spec.hidden} channels became {spec.hidden}"
        if model.spec.tied:
            note += "; the head is a matrix of its own now"
        made = replace(model, spec=spec, weights=spool)
        return PassResult(made, PassReport("hidden", True, notes=(note,)))

    def _smaller(self, spec: DecoderSpec, setting: Setting) -> DecoderSpec:
        """The spec with the most channels that the wanted size has room for."""
        group = max((setting.grid(name) or (0, 0))[1] for name in spec.tensors())
        unit = max(_UNIT, group)
        for channels in range((spec.hidden - 1) // unit * unit, 0, -unit):
            smaller = replace(spec, hidden=channels, tied=False)
            if smaller.parameters <= self.keep * spec.parameters:
                return smaller
        raise RecipeError(
            f"hidden: {self.keep:.0%} of the parameters have no room for {unit} channels",
            hint="keep more, or take 'width' or 'depth'",
        )


def _axes(model: Model, setting: Setting) -> torch.Tensor:
    """Orthonormal columns [hidden, hidden], those first along which states are largest."""
    import torch

    from ...model.reference import ReferenceModel

    reference = ReferenceModel(model, resident=False)
    states = reference.embed(batches(setting.tokens(model)))
    reference.release()
    moments = torch.zeros(model.spec.hidden, model.spec.hidden, dtype=torch.float64)
    for index in track(setting.progress, "Finding principal axes", range(len(model.spec.layers) + 1)):
        for state in states:
            rows = torch.nn.functional.normalize(state.flatten(0, -2).float(), dim=-1)
            moments += (rows.T @ rows).double()
        if index < len(model.spec.layers):
            states = reference.through(reference.layer(index), states)
    if not bool(moments.isfinite().all()):
        raise RecipeError("hidden: the model gives NaN or infinite states on the calibration text")
    axes: torch.Tensor = torch.linalg.eigh(moments).eigenvectors.flip(1).float().contiguous()
    return axes
