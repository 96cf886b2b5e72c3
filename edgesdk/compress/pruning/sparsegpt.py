"""SparseGPT: prune and round a matrix in one solve, and let the columns still to come make up for both.

What it does: as GPTQ, column by column; in each block of columns the weights that cost least become zero, judged by the
same factor that spreads the errors, and what is left is rounded. With 16 bits nothing is rounded.
When to use it: for zeros at the least cost in quality, alone or with four bits.
What it costs: what GPTQ costs: one forward pass over the calibration text for each layer, a factorization for each
matrix.
Example: ``edgesdk compress MODEL --recipe w4g32-sparsegpt50 --out DIR``.
Source: Frantar and Alistarh, SparseGPT, arXiv 2301.00774.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from ...errors import RecipeError
from ...model.spec import is_linear
from ..gptq import Gptq, Kept, Settle
from .pattern import Pattern, parse_pattern
from .sensitivity import layer_shares
from .zeros import Allocation, pruned_names, zero_share

if TYPE_CHECKING:
    import torch

    from ...model import Model
    from ...model.weights import Stored
    from ..base import PassReport, Setting
    from ..rtn import Tally


@dataclass(frozen=True)
class SparseGpt(Gptq):
    """Options of the pass: those of GPTQ, and how many weights become zero.

    Attributes:
        pattern: ``50%``, or ``2:4`` (at most two of every four neighbours are left).
        allocation: every layer loses the same share, or less where the model's output was measured to change more.
        skip: patterns of matrices that stay dense (``layers.0.*``); they are rounded all the same.
    """

    label: ClassVar[str] = "sparsegpt"
    title: ClassVar[str] = "Pruning (SparseGPT)"

    pattern: str = "50%"
    allocation: Allocation = "uniform"
    skip: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parsed.run and self.allocation != "uniform":
            raise RecipeError(f"sparsegpt: {self.pattern} takes the same share of every layer (allocation 'uniform')")

    def order(self, diagonal: torch.Tensor) -> torch.Tensor:
        import torch

        run = self.parsed.run
        if not (self.act_order and run) or len(diagonal) % run:
            return super().order(diagonal)
        runs = diagonal.view(-1, run).sum(1).argsort(descending=True)  # neighbours stay together
        return (runs.unsqueeze(1) * run + torch.arange(run)).flatten()

    @cached_property
    def parsed(self) -> Pattern:
        return parse_pattern(self.pattern, "sparsegpt")

    def solves(self, name: str) -> bool:
        return is_linear(name)

    def settles(self, model: Model, setting: Setting, tally: Tally) -> Callable[[str, torch.Tensor], Settle | None]:
        names = pruned_names(model, self.parsed, self.skip)
        shares = layer_shares(model, names, self.parsed, self.allocation, setting)
        plain = super().settles(model, setting, tally)

        def settle(name: str, weight: torch.Tensor) -> Settle | None:
            if name not in names:
                return plain(name, weight)
            rounding = self.rounding(name, weight, setting, tally)
            pattern = replace(self.parsed, share=shares[int(name.split(".")[1])])
            return Cheapest(rounding or Values(weight), pattern, weight.shape)

        return settle

    def report(self, made: Model, tally: Tally) -> PassReport:
        names = pruned_names(made, self.parsed, self.skip)
        return replace(tally.report(self.label), zeros=zero_share(made, names))


class Values:
    """Leaves values as they are."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._values = weight.clone()

    def begin(self, columns: torch.Tensor, block: torch.Tensor, diagonal: torch.Tensor) -> None:
        pass

    def settle(self, column: int, values: torch.Tensor) -> torch.Tensor:
        self._values[:, column] = values
        return values.clone()

    def tensor(self) -> Stored:
        return self._values


class Cheapest(Kept):
    """Makes the weights of each block zero that cost least, and settles the rest by another rule."""

    def __init__(self, inner: Settle, pattern: Pattern, shape: torch.Size) -> None:
        import torch

        super().__init__(inner, torch.zeros(shape, dtype=torch.bool))
        self._pattern = pattern

    def begin(self, columns: torch.Tensor, block: torch.Tensor, diagonal: torch.Tensor) -> None:
        """As :meth:`Settle.begin`; the cost of a weight is its square over that of the factor (equation 3)."""
        super().begin(columns, block, diagonal)
        self._gone[:, columns] = self._pattern.lowest((block / diagonal).square(), rows=False)
