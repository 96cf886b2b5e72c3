"""The choices that an export and a lint share, completed from the target and the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .converter import ProgramOptions
from .errors import EdgeError, ModelError, TargetError
from .registry import unknown

if TYPE_CHECKING:
    from .compress.recipe import Recipe
    from .model.opening import AnyModel
    from .targets import FloatType, Target

DEFAULT_CONTEXT = 2048


def program_options(
    model: AnyModel,
    target: Target,
    recipe: Recipe,
    context: int | None = None,
    float_type: FloatType | None = None,
    delegate: str | None = None,
) -> ProgramOptions:
    """The user's choices, completed with the target's and the model's.

    Raises:
        EdgeError: a choice that neither allows.
    """
    if delegate is not None and delegate not in target.delegates:
        raise TargetError(unknown(f"delegate of {target.name}", delegate, target.delegates))
    trained = model.spec.context
    if context is not None and context > trained:
        raise ModelError(
            f"a context of {context} tokens is longer than the {trained} that the model was trained for",
            hint=f"--context {trained} is the most",
        )
    if context is not None and context < 1:
        raise EdgeError(f"the context must be at least 1 token, found {context}")
    return ProgramOptions(
        context or min(DEFAULT_CONTEXT, trained),
        float_type or target.float_type,
        recipe.activations or target.activations,
        recipe.kv_bits,
        delegate or next(iter(target.delegates), None),
        target.cores,
        recipe.observer,
    )
