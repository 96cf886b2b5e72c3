"""GPTQ: round a matrix column by column, and let the columns still to come make up for each error.

When to use it: four bits and fewer, where plain rounding costs too much; it needs text (by default the model's own).
What it costs: one forward pass over the calibration text for each layer and a factorization for each matrix; memory of
one layer and of the text's hidden states.
Example: ``edgesdk export MODEL --target android-arm64 --recipe w4g32-gptq``.
Source: Frantar et al., GPTQ, arXiv 2210.17323; column order and static groups as in its reference implementation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import ModelError, RecipeError
from ..model.spec import is_linear
from ..model.tensors import QuantizedTensor
from ..model.weights import dense
from ..progress import track
from .base import WHOLE, PassResult, Setting
from .layerwise import Inputs, batches, observe
from .rtn import RoundToNearest, Tally, search_scales
from .spool import Spool

if TYPE_CHECKING:
    import torch

    from ..model import Model

_MOST_DAMPING = 1e30
_BLOCK = 128  # columns between two updates of all that follow


@dataclass(frozen=True)
class Gptq(RoundToNearest):
    """Options of the pass; those of rounding to nearest, which still rounds the embedding and the head.

    Attributes:
        damping: share of the mean diagonal that is added to the Hessian; raised tenfold until it can be factorized.
        act_order: take columns in order of falling activation.
    """

    damping: float = 0.01
    act_order: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group == WHOLE:
            raise RecipeError("gptq: one scale for a whole matrix (group -1) is for rounding to nearest (rtn) only")
        if not 0 < self.damping < 1:
            raise RecipeError(f"gptq: 'damping' must lie between 0 and 1, found {self.damping}")

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        spec = self.spec(model.spec)
        tally = Tally(Spool(setting.scratch / "gptq.bin", model.weights))
        others = [name for name in spec.tensors() if self.grid(name) and not is_linear(name)]
        self.round(model, others, setting, tally)
        if any(self.grid(name) for name in spec.tensors() if is_linear(name)):
            self._solve_layers(model, setting, tally)
        return PassResult(replace(model, spec=spec, weights=tally.spool), tally.report("gptq"))

    def _solve_layers(self, model: Model, setting: Setting, tally: Tally) -> None:
        """Layer by layer; each sees the states that the rounded layers before it give."""
        from ..model.reference import ReferenceModel

        original = ReferenceModel(model, resident=False)
        rounded = ReferenceModel(model.with_weights(tally.spool), resident=False)
        states = original.embed(batches(setting.tokens(model)))
        original.release()
        for index in track(setting.progress, "Rounding layers (GPTQ)", range(len(model.spec.layers))):
            names = [name for name in model.spec.layer_tensors(index) if is_linear(name) and self.grid(name)]
            left = []
            for name in names:
                if tally.resumed(name, (self.grid(name) or (0, 0))[0]):
                    self.fitted(name, model.spec.tensors()[name][1], setting.limits, tally)  # for its notes
                else:
                    left.append(name)
            if left:
                inputs = Inputs()
                observe(original, original.layer(index), index, states, inputs)
                for name in left:
                    self._solve(model, name, inputs.of(name).products, setting, tally)
            states = rounded.through(rounded.layer(index), states)

    def _solve(self, model: Model, name: str, hessian: torch.Tensor, setting: Setting, tally: Tally) -> None:
        weight = dense(model.weights.get(name))
        fitted = self.fitted(name, weight.shape[1], setting.limits, tally)
        if fitted is None:
            return
        tensor = solve(weight, hessian, *fitted, self, signed_scales=setting.limits.signed_scales)
        error = (tensor.dequantize() - weight).square().sum() / weight.square().sum().clamp(min=1e-30)
        tally.write(name, tensor, float(error))


def solve(
    weight: torch.Tensor, hessian: torch.Tensor, bits: int, group: int, options: Gptq, *, signed_scales: bool
) -> QuantizedTensor:
    """Round a matrix [out, in] so that its product with the calibrated inputs changes little.

    Scales are those of rounding to nearest and stay as they are (static groups); ``hessian`` is the sum of x x^T.
    """
    import torch

    rows, columns = weight.shape
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    scales = search_scales(weight.reshape(-1, group), bits, signed_scales)[0].view(rows, -1)
    diagonal = hessian.diagonal()
    order = torch.argsort(diagonal, descending=True) if options.act_order else torch.arange(columns)
    upper = _inverse_factor(hessian[order][:, order], options.damping)
    left, each = weight[:, order].clone(), scales.repeat_interleave(group, dim=1)[:, order]
    values = torch.empty_like(left)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        block, factor = left[:, start:stop], upper[start:stop, start:stop]
        errors = torch.empty_like(block)
        for column in range(stop - start):
            scale = each[:, start + column]
            rounded = (block[:, column] / scale).round_().clamp_(low, high)
            values[:, start + column] = rounded
            errors[:, column] = (block[:, column] - rounded * scale) / factor[column, column]
            block[:, column + 1 :].addr_(errors[:, column], factor[column, column + 1 :], alpha=-1)
        left[:, stop:] -= errors @ upper[start:stop, stop:]
    found = torch.empty((rows, columns), dtype=torch.int8)
    found[:, order] = values.to(torch.int8)
    return QuantizedTensor(found, scales, bits, group)


def _inverse_factor(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """The upper Cholesky factor of the inverse; damping grows until the Hessian is positive definite."""
    import torch

    matrix = hessian.double()
    mean = float(matrix.diagonal().mean()) or 1.0
    identity = torch.eye(matrix.shape[0], dtype=matrix.dtype)
    while True:
        lower, failed = torch.linalg.cholesky_ex(matrix + damping * mean * identity)
        if not failed:
            factor: torch.Tensor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
            return factor.float()
        damping *= 10
        if not damping * mean < _MOST_DAMPING:
            raise ModelError(
                "the inputs of a matrix are NaN or too large on the calibration text, so GPTQ cannot weigh its columns",
                hint="give other text with --calibration, or round to nearest (leave out -gptq)",
            )
