"""Weights of least worth become zero: by magnitude, or weighed by their inputs, with or without an update of the rest.

What it does: in every linear matrix a share of the weights becomes zero. ``magnitude`` takes the smallest of the
matrix; ``wanda`` takes, in each row, those whose product with the norm of their input is smallest. With ``admm_steps``
the weights that are left are then solved for, so that the product with the calibrated inputs changes least. Rounding
after it leaves the zeros.
When to use it: for a smaller download; dense kernels gain neither speed nor memory from zeros (``edgesdk compress``
says what a target gains). SparseGPT costs less quality, ``magnitude`` needs no text.
What it costs: magnitude takes seconds; the others one forward pass over the calibration text for each layer, and ADMM a
factorization and ``admm_steps`` products for each matrix.
Example: ``edgesdk compress MODEL --recipe w4g32-wanda50 --out DIR``.
Source: Han et al., arXiv 1506.02626 (magnitude); Sun et al., Wanda, arXiv 2306.11695; Boza, ADMM, arXiv 2401.02938.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ...errors import RecipeError
from ...model.spec import is_linear
from ...model.weights import dense
from ...progress import track
from ..base import KeepsGrid, PassReport, PassResult, Setting
from ..layerwise import walk_changing
from ..spool import Spool
from .pattern import Pattern, parse_pattern
from .sensitivity import layer_shares

if TYPE_CHECKING:
    import torch

    from ...model import Model
    from ..layerwise import InputSums

Allocation = Literal["uniform", "sensitivity"]
#: Steps of the update that a recipe's name asks for.
ADMM_STEPS = 20
_RIDGE = 0.1  # of the inputs' second moments, which the update normalizes; from the paper
_PENALTY = 1.0


@dataclass(frozen=True)
class Zeros(KeepsGrid):
    """Options of the pass.

    Attributes:
        pattern: how many become zero: ``50%``, or ``2:4`` (at most two of every four neighbours are left).
        method: ``magnitude`` or ``wanda``.
        admm_steps: of the update of the weights that are left; 0: they stay as they are.
        allocation: every layer loses the same share, or less where the model's output was measured to change more.
        skip: patterns of matrices that stay dense (``layers.0.*``).
    """

    pattern: str = "50%"
    method: Literal["magnitude", "wanda"] = "wanda"
    admm_steps: int = 0
    allocation: Allocation = "uniform"
    skip: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        self.parsed  # noqa: B018 - checks it
        if self.admm_steps < 0:
            raise RecipeError("zeros: 'admm_steps' must be 0 or more")
        if self.parsed.run and self.allocation != "uniform":
            raise RecipeError(f"zeros: {self.pattern} takes the same share of every layer (allocation 'uniform')")

    @cached_property
    def parsed(self) -> Pattern:
        return parse_pattern(self.pattern, "zeros")

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        names = pruned_names(model, self.parsed, self.skip)
        shares = layer_shares(model, names, self.parsed, self.allocation, setting)
        spool = Spool(setting.scratch / "zeros.bin", model.weights)
        for name, sums in self._inputs(model, names, setting, spool):
            if spool.entry(name) is None:
                weight = dense(model.weights.get(name))
                pattern = replace(self.parsed, share=shares[int(name.split(".")[1])])
                spool.write(name, self._pruned(weight, pattern, sums))
        made = model.with_weights(spool)
        return PassResult(made, PassReport("zeros", True, zeros=zero_share(made, names)))

    def _inputs(
        self, model: Model, names: Mapping[str, int], setting: Setting, spool: Spool
    ) -> Iterator[tuple[str, InputSums | None]]:
        """Every matrix to prune, with sums over its inputs where the method looks at them."""
        if self.method == "magnitude" and not self.admm_steps:
            yield from ((name, None) for name in track(setting.progress, "Pruning weights", list(names)))
            return

        def left(index: int) -> list[str]:
            return [name for name in model.spec.layer_tensors(index) if name in names and spool.entry(name) is None]

        changed = model.with_weights(spool)
        for index, inputs in walk_changing(model, changed, setting, "Pruning layers", lambda index: not left(index)):
            yield from ((name, inputs.of(name)) for name in left(index))

    def _pruned(self, weight: torch.Tensor, pattern: Pattern, sums: InputSums | None) -> torch.Tensor:
        scores = weight.abs()
        if self.method == "wanda" and sums is not None:
            scores = scores * sums.products.diagonal().sqrt()
        gone = pattern.lowest(scores, rows=self.method == "wanda")
        if self.admm_steps and sums is not None:
            return refit(weight, gone, sums.products, self.admm_steps)
        return weight.masked_fill(gone, 0)


def pruned_names(model: Model, pattern: Pattern, skip: tuple[str, ...]) -> dict[str, int]:
    """The matrices that lose weights, with their size.

    Raises:
        RecipeError: the pattern does not fit a row, or a name to skip matches nothing.
    """
    shapes = {name: shape for name, shape in model.spec.tensors().items() if is_linear(name)}
    for each in skip:
        if not any(fnmatchcase(name.removesuffix(".weight"), each) for name in shapes):
            raise RecipeError(f"'{each}', which is to be skipped, matches no matrix of the model")
    found = {}
    for name, (rows, columns) in shapes.items():
        if any(fnmatchcase(name.removesuffix(".weight"), each) for each in skip):
            continue
        pattern.refuse_misfit(name, columns)
        found[name] = rows * columns
    if not found:
        raise RecipeError("every matrix is to be skipped, so nothing is left to prune")
    return found


def zero_share(model: Model, names: Mapping[str, int]) -> float:
    """The share of the weights of these matrices that is zero, counted."""
    zero = sum(int((dense(model.weights.get(name)) == 0).sum()) for name in names)
    return round(zero / sum(names.values()), 6)


def refit(weight: torch.Tensor, gone: torch.Tensor, products: torch.Tensor, steps: int) -> torch.Tensor:
    """The matrix [out, in] with zeros where ``gone``, and the rest such that its product with the inputs changes least.

    ``products`` is the sum of x x^T over the inputs. Alternating direction method of multipliers, on inputs of unit
    norm (Boza, arXiv 2401.02938, algorithm 1).
    """
    import torch

    norms = products.diagonal().sqrt().clamp(min=1e-8)
    moments = products / norms.outer(norms)
    moments = moments + _RIDGE * torch.eye(len(norms))
    scaled = weight * norms
    inverse = torch.linalg.inv(moments + _PENALTY * torch.eye(len(norms)))
    wanted = scaled @ moments
    left = scaled.masked_fill(gone, 0)
    dual = torch.zeros_like(left)
    for _ in range(steps):
        free = (wanted + _PENALTY * (left - dual)) @ inverse
        left = (free + dual).masked_fill(gone, 0)
        dual = dual + free - left
    return left / norms
