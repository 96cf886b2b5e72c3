"""Adapters that stay apart from the weights: which exports can have them, and whether they do what they should."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .compress.base import PASSES
from .errors import QualityError, RecipeError, TargetError
from .progress import track

if TYPE_CHECKING:
    from .compress.recipe import Recipe
    from .converter import Converter
    from .model import Model
    from .model.adapter import Adapter
    from .progress import Progress
    from .session import Session
    from .targets import Target

#: Passes that leave every matrix a rounding of itself: an update of it stays one.
_ROUNDING = ("rtn", "hqq", "gptq", "reconstruction", "stored")
_TOKENS = 32
_LEAST_AGREEMENT = 0.5  # of best tokens, as for the program itself


@dataclass(frozen=True)
class AdapterParity:
    """The program with an adapter against the reference with it merged, on random tokens."""

    tokens: int
    max_logit_difference: float
    top1: float


def refuse_target(converter: Converter, target: Target, switchable: Collection[str] | None) -> None:
    """Stop where the runtime has no inputs that adapters could fill.

    Raises:
        TargetError: with the way out.
    """
    on_device = converter.on_device
    if switchable and (on_device is None or not on_device.adapters):
        raise TargetError(
            f"programs for {target.name} hold their weights as constants: {target.runtime.name} cannot switch adapters",
            hint="merge one adapter into each bundle (--adapter FOLDER), or choose an ONNX Runtime target",
        )


def refuse_recipe(recipe: Recipe, adapters: Sequence[Adapter]) -> None:
    """Stop at passes after which a matrix is no longer the one that adapters were trained beside.

    Raises:
        RecipeError: with the passes that can be used.
    """
    fine = {PASSES.get(name) for name in _ROUNDING if name in PASSES.names()}
    names = {PASSES.get(name): name for name in PASSES.names()}
    for step in recipe.passes if adapters else ():
        if type(step) not in fine and type(step).__name__ != "AsStored":
            raise RecipeError(
                f"'{names.get(type(step), type(step).__name__)}' in recipe {recipe.name} changes what the matrices "
                "compute with, so adapters that stay apart no longer fit them",
                hint=f"use a recipe of {', '.join(name for name in _ROUNDING if name in PASSES.names())} alone "
                "(w4g32, w8, w4g32-gptq), or merge the adapter: --adapter FOLDER",
            )


def check_adapters(
    model: Model, adapters: Sequence[Adapter], open_session: Callable[[Adapter], Session], progress: Progress
) -> tuple[AdapterParity, ...]:
    """Compare the program with each adapter with the reference.

    Args:
        model: the compressed model.
        adapters: those that stay apart from it.
        open_session: the program with an adapter.
        progress: told of every adapter.

    Raises:
        QualityError: an adapter does something else in the program.
    """
    found = []
    for adapter in track(progress, "Checking adapters", adapters) if adapters else ():
        parity = _parity(model, adapter, open_session(adapter))
        if parity.top1 < _LEAST_AGREEMENT:
            raise QualityError(
                f"with adapter '{adapter.name}' the program agrees with the reference on {parity.top1:.0%} of "
                f"{parity.tokens} tokens (logits differ by up to {parity.max_logit_difference:g})",
                hint="try float activations (add -a32 to the recipe's name), or merge the adapter (--adapter)",
            )
        found.append(parity)
    return tuple(found)


def _parity(model: Model, adapter: Adapter, session: Session) -> AdapterParity:
    import numpy as np
    import torch

    from .compress.quality import rounded
    from .model.adapter import AdaptedWeights
    from .model.reference import ReferenceModel

    drawn = np.random.default_rng(0).integers(0, model.spec.vocab, _TOKENS).tolist()
    prefix = model.tokenizer.special.prefix if model.tokenizer is not None else ()
    ids: Sequence[int] = [*prefix, *drawn][: min(_TOKENS, session.context)]
    merged = model.with_weights(AdaptedWeights(model.weights, adapter))
    with torch.inference_mode():
        reference = ReferenceModel(merged, resident=False)
        (hidden,) = reference.hidden([torch.tensor([ids])])
        wanted = reference.logits(hidden[0]).numpy()
    logits = session.score(ids)
    top1 = float((wanted.argmax(-1) == logits.argmax(-1)).mean())
    return AdapterParity(len(ids), rounded(float(np.abs(wanted - logits).max())), rounded(top1))
