"""Models that are no decoders through recipes that round to nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from ..errors import RecipeError
from ..model.spec import is_linear
from ..progress import track
from .base import WHOLE, PassReport, Setting, WithinLimits
from .hqq import Hqq
from .rtn import RoundToNearest, Tally
from .spool import Spool

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..estimate import Shaped
    from ..model import Weights
    from .recipe import Recipe

_ROUNDS = (RoundToNearest, Hqq)


class Roundable(Protocol):
    """A model of any kind, as far as rounding goes."""

    @property
    def spec(self) -> Shaped:
        """It knows its weights."""

    @property
    def weights(self) -> Weights:
        """By canonical name."""

    def with_weights(self, weights: Weights) -> Self:
        """The same model with other weights."""


ModelT = TypeVar("ModelT", bound=Roundable)


def refuse_recipe(spec: Shaped, recipe: Recipe) -> None:
    """Stop before any work where a recipe does more than rounding to nearest.

    Raises:
        RecipeError: which pass.
    """
    for step in recipe.passes:
        if type(step) not in _ROUNDS:
            raise RecipeError(
                f"recipe {recipe.name}: {type(step).__name__} works on decoders alone; weights of other kinds are "
                "rounded to nearest",
                hint="w8, w4g32, w4g32-hqq and none do",
            )
        assert isinstance(step, RoundToNearest)
        if step.group == WHOLE:
            raise RecipeError(f"recipe {recipe.name}: one scale a matrix is for microcontrollers; take w8")
        step.refuse_exceptions([name.removesuffix(".weight") for name in spec.tensors() if is_linear(name)])
    if recipe.size is not None:
        raise RecipeError(f"recipe {recipe.name}: sizes are met by decoders alone: leave out @{recipe.size}")


def rounded(model: ModelT, recipe: Recipe, setting: Setting) -> tuple[ModelT, tuple[PassReport, ...]]:
    """The model as the recipe rounds it and the target's kernels hold it, and what each pass did."""
    reports = []
    for number, step in enumerate(recipe.passes):
        assert isinstance(step, RoundToNearest)
        tally = Tally(Spool(setting.scratch / f"pass{number}.bin", model.weights))
        names = [name for name in model.spec.tensors() if step.grid(name)]
        for name in track(setting.progress, "Rounding weights", names):
            step.round_one(name, model.weights.get(name), setting.limits, tally)
        model = model.with_weights(tally.spool)
        reports.append(tally.report(step.label))
    return model.with_weights(WithinLimits(model.weights, setting.limits)), tuple(reports)
