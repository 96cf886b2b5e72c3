"""How much of a model a pass is to leave."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...errors import RecipeError


def check_keep(label: str, keep: float) -> None:
    """Raise an error for a share that leaves nothing, or takes nothing."""
    if not 0 < keep < 1:
        raise RecipeError(
            f"{label}: 'keep' must lie between 0 and 1, found {keep:g}",
            hint="0.75 leaves three quarters of the parameters",
        )


def parameters_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Elements of tensors of these shapes."""
    return sum(math.prod(shape) for shape in shapes.values())
