"""GPTQ: round a matrix column by column, and let the columns still to come make up for each error.

When to use it: four bits and fewer, where plain rounding costs too much; it needs text (by default the model's own).
What it costs: one forward pass over the calibration text for each layer and a factorization for each matrix; memory of
one layer and of the text's hidden states.
Example: ``edgesdk export MODEL --target android-arm64 --recipe w4g32-gptq``.
Source: Frantar et al., GPTQ, arXiv 2210.17323; column order and static groups as in its reference implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from ..errors import ModelError, RecipeError
from ..model.spec import is_linear
from ..model.tensors import QuantizedTensor
from ..model.weights import dense
from .base import WHOLE, PassReport, PassResult, Setting
from .layerwise import walk_changing
from .rtn import RoundToNearest, Tally, search_scales
from .spool import Spool

if TYPE_CHECKING:
    import torch

    from ..model import Model
    from ..model.weights import Stored

_MOST_DAMPING = 1e30
_BLOCK = 128  # columns between two updates of all that follow


@dataclass(frozen=True)
class Gptq(RoundToNearest):
    """Options of the pass; those of rounding to nearest, which still rounds the embedding and the head.

    Attributes:
        damping: share of the mean diagonal that is added to the Hessian; raised tenfold until it can be factorized.
        act_order: take columns in order of falling activation.
    """

    label: ClassVar[str] = "gptq"
    title: ClassVar[str] = "Rounding layers (GPTQ)"

    damping: float = 0.01
    act_order: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group == WHOLE:
            raise RecipeError(
                f"{self.label}: one scale for a whole matrix (group -1) is for rounding to nearest (rtn) only"
            )
        if not 0 < self.damping < 1:
            raise RecipeError(f"{self.label}: 'damping' must lie between 0 and 1, found {self.damping}")

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        spec = self.spec(model.spec)
        tally = Tally(Spool(setting.scratch / f"{self.label}.bin", model.weights))
        others = [name for name in spec.tensors() if self.grid(name) and not is_linear(name)]
        self.round(model, others, setting, tally)
        if any(self.solves(name) for name in spec.tensors()):
            self._solve_layers(model, setting, tally)
        made = replace(model, spec=spec, weights=tally.spool)
        return PassResult(made, self.report(made, tally))

    def order(self, diagonal: torch.Tensor) -> torch.Tensor:
        """The order in which columns are taken, int64 [in], given the squares of their inputs [in]."""
        import torch

        return torch.argsort(diagonal, descending=True) if self.act_order else torch.arange(len(diagonal))

    def solves(self, name: str) -> bool:
        """Whether a canonical tensor is a matrix that the pass solves for."""
        return is_linear(name) and self.grid(name) is not None

    def report(self, made: Model, tally: Tally) -> PassReport:
        """What the pass did."""
        return tally.report(self.label)

    def _solve_layers(self, model: Model, setting: Setting, tally: Tally) -> None:
        """Layer by layer; each sees the states that the rounded layers before it give."""

        def left(index: int) -> list[str]:
            names = filter(self.solves, model.spec.layer_tensors(index))
            return [name for name in names if tally.spool.entry(name) is None]

        for name in filter(self.solves, model.spec.tensors()):  # what an interrupted run wrote
            if tally.spool.entry(name) is not None:
                if self.grid(name):
                    self.fitted(name, model.spec.tensors()[name][1], setting.limits, tally)  # for its notes
                tally.resumed(name, (self.grid(name) or (0, 0))[0])
        settles, changed = self.settles(model, setting, tally), model.with_weights(tally.spool)
        for index, inputs in walk_changing(model, changed, setting, self.title, lambda index: not left(index)):
            for name in left(index):
                weight = dense(model.weights.get(name))
                if (settle := settles(name, weight)) is None:
                    continue
                sweep(weight, inputs.of(name).products, settle, self)
                tensor = settle.tensor()
                error = (dense(tensor) - weight).square().sum() / weight.square().sum().clamp(min=1e-30)
                tally.write(name, tensor, float(error))

    def settles(self, model: Model, setting: Setting, tally: Tally) -> Callable[[str, torch.Tensor], Settle | None]:
        """A function that says what becomes of the columns of a matrix; None: the matrix stays as it is."""

        def settle(name: str, weight: torch.Tensor) -> Settle | None:
            found = self.rounding(name, weight, setting, tally)
            gone = weight == 0
            return Kept(found, gone) if found is not None and bool(gone.any()) else found

        return settle

    def rounding(self, name: str, weight: torch.Tensor, setting: Setting, tally: Tally) -> Settle | None:
        """Rounding of a matrix on its grid, or None where it stays in float."""
        fitted = self.fitted(name, weight.shape[1], setting.limits, tally) if self.grid(name) else None
        return Grid(weight, *fitted, signed_scales=setting.limits.signed_scales) if fitted else None


class Settle(Protocol):
    """Decides what a column of a matrix becomes."""

    def begin(self, columns: torch.Tensor, block: torch.Tensor, diagonal: torch.Tensor) -> None:
        """Some columns come next.

        Args:
            columns: which they are, int64 [n].
            block: their values as the columns before have left them, float32 [out, n].
            diagonal: of the factor of the inverse, float32 [n]: small where an error is expensive.
        """

    def settle(self, column: int, values: torch.Tensor) -> torch.Tensor:
        """What a column of values [out] becomes, in float32 [out]."""

    def tensor(self) -> Stored:
        """All that was settled."""


class Grid:
    """Rounds to nearest on scales that stay as they are (static groups)."""

    def __init__(self, weight: torch.Tensor, bits: int, group: int, *, signed_scales: bool) -> None:
        import torch

        rows = weight.shape[0]
        self._bits, self._group = bits, group
        self._scales = search_scales(weight.reshape(-1, group), bits, signed_scales)[0].view(rows, -1)
        self._each = self._scales.repeat_interleave(group, dim=1)
        self._values = torch.empty(weight.shape, dtype=torch.int8)

    def begin(self, columns: torch.Tensor, block: torch.Tensor, diagonal: torch.Tensor) -> None:
        pass

    def settle(self, column: int, values: torch.Tensor) -> torch.Tensor:
        limit = 1 << (self._bits - 1)
        scale = self._each[:, column]
        rounded = (values / scale).round_().clamp_(-limit, limit - 1)
        self._values[:, column] = rounded.to(self._values.dtype)
        return rounded * scale

    def tensor(self) -> QuantizedTensor:
        return QuantizedTensor(self._values, self._scales, self._bits, self._group)


class Kept:
    """Leaves zeros where they are (``gone``, bool [out, in]), and settles the rest by another rule."""

    def __init__(self, inner: Settle, gone: torch.Tensor) -> None:
        self._inner, self._gone = inner, gone

    def begin(self, columns: torch.Tensor, block: torch.Tensor, diagonal: torch.Tensor) -> None:
        self._inner.begin(columns, block, diagonal)

    def settle(self, column: int, values: torch.Tensor) -> torch.Tensor:
        return self._inner.settle(column, values.masked_fill(self._gone[:, column], 0))

    def tensor(self) -> Stored:
        return self._inner.tensor()


def sweep(weight: torch.Tensor, hessian: torch.Tensor, settle: Settle, options: Gptq) -> None:
    """Settle a matrix [out, in] column by column; those that follow make up for each error.

    ``hessian`` is the sum of x x^T over the calibrated inputs.
    """
    import torch

    columns = weight.shape[1]
    order = options.order(hessian.diagonal())
    upper = _inverse_factor(hessian[order][:, order], options.damping)
    places, left = order.tolist(), weight[:, order].clone()
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        block, factor = left[:, start:stop], upper[start:stop, start:stop]
        settle.begin(order[start:stop], block, factor.diagonal())
        errors = torch.empty_like(block)
        for column in range(stop - start):
            found = settle.settle(places[start + column], block[:, column])
            errors[:, column] = (block[:, column] - found) / factor[column, column]
            block[:, column + 1 :].addr_(errors[:, column], factor[column, column + 1 :], alpha=-1)
        left[:, stop:] -= errors @ upper[start:stop, stop:]


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
