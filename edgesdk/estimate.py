"""Sizes before work: what a program will need on the device and what its export will need on this host."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .compress.base import stored_width
from .errors import RecipeError, TargetError, UnbuiltError
from .model.features import lacking
from .model.spec import Attention, Moe

if TYPE_CHECKING:
    from .compress.base import Limits
    from .compress.recipe import Recipe
    from .converter import MemoryPlan, ProgramOptions
    from .model import DecoderSpec
    from .model.spec import FeedForward, Mixer
    from .targets import Target

FLOAT_BITS = {"float32": 32, "float16": 16}
HELD_WIDTHS = (4, 8)  # every target that holds one of them also stores fewer bits in it
_HOST_LIBRARIES = 450_000_000  # resident size of torch and ONNX Runtime once imported, measured
_FIT = "use a smaller --context, a smaller recipe (edgesdk recipes), or name the device's memory with --memory"


class Shaped(Protocol):
    """A spec of any kind: it knows its weights."""

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Canonical weight names and shapes."""


def tensor_bits(
    spec: Shaped, recipe: Recipe, options: ProgramOptions, limits: Limits
) -> dict[str, tuple[int, int, int]]:
    """Elements, stored bits and group of every weight after the recipe (group 0: plain float).

    Rows that no group divides stay in float, or get 8 bits where the kernels have no float matrices.
    """
    found = {}
    for name, shape in spec.tensors().items():
        grid = recipe.grid(name)
        bits, group = grid if grid and grid[0] < 16 else (FLOAT_BITS[options.float_type], 0)
        if grid and grid[0] < 16 and group <= 0:  # a row, or the whole matrix
            group = shape[-1]
        if group and shape[-1] % group:
            bits, group = (FLOAT_BITS[options.float_type], 0) if limits.float_matrices else (8, shape[-1])
        if group:
            bits = stored_width(bits, limits.widths)
        found[name] = (math.prod(shape), bits, group)
    return found


def refuse_schemes(spec: Shaped, recipe: Recipe, target: Target, *, static: bool = False) -> None:
    """Stop before any work when a recipe makes weights that the target does not hold.

    ``static``: scales of activations are measured before, so that the recipe may name an observer.

    Raises:
        RecipeError: which weights, and what the target holds.
    """
    for name in spec.tensors():
        grid = recipe.grid(name)
        scheme = f"w{stored_width(grid[0], HELD_WIDTHS)}" if grid and grid[0] < 16 else "float"
        if scheme not in target.schemes:
            raise RecipeError(
                f"target {target.name} holds {', '.join(sorted(target.schemes))} weights, but recipe {recipe.name} "
                f"makes {name} {scheme}"
            )
    if recipe.observer != "minmax" and not static:
        raise RecipeError(
            f"target {target.name} takes scales of activations anew for each token, so recipe {recipe.name} names an "
            "observer for nothing",
            hint=f"leave out -{recipe.observer}: observers are for TFLite-Micro (--delegate tflm)",
        )
    if recipe.activations == 16 and "a16" not in target.schemes:
        raise RecipeError(
            f"target {target.name} has no int16 activations, which recipe {recipe.name} asks for",
            hint="leave out -a16: int16 activations are for TFLite-Micro (edgesdk targets)",
        )


def refuse_features(spec: DecoderSpec, built: frozenset[str], runtime: str) -> None:
    """Stop before any work at what a converter does not build of a family: see :mod:`edgesdk.model.features`.

    Raises:
        UnbuiltError: which parts of the model they are.
    """
    missing = lacking(spec, built)
    if missing is not None:
        raise UnbuiltError(
            f"family {spec.family} has {missing}, which the {runtime} converter does not build",
            hint="edgesdk models --families shows which runtimes take it",
        )


def inner_size(ffn: FeedForward | None) -> int:
    """Values between the matrices of a feed-forward block, for one token."""
    if not isinstance(ffn, Moe):
        return ffn.size if ffn else 0
    return ffn.active * ffn.expert.size + (ffn.shared.size if ffn.shared else 0)


def kv_cache_bytes(spec: DecoderSpec, options: ProgramOptions) -> int:
    """Keys and values of every layer at full context, and the states of those that carry some."""
    width = FLOAT_BITS[options.float_type] // 8
    attentions = [layer.mixer for layer in spec.layers if isinstance(layer.mixer, Attention)]
    states = sum(math.prod(shape) for layer in spec.layers for shape in layer.states(spec.hidden).values())
    return (sum(2 * attention.kv_size * options.context for attention in attentions) + states) * width


def mixer_size(mixer: Mixer, hidden: int) -> int:
    """Values that a mixer works with, for one token."""
    if isinstance(mixer, Attention):
        return mixer.q_size
    if mixer.kind == "gated_delta":
        return mixer.conv_size + 2 * mixer.inner
    return 3 * (hidden if mixer.kind == "short_conv" else mixer.size if mixer.kind == "rwkv" else mixer.inner)


def host_peak(spec: Shaped, plan: MemoryPlan) -> int:
    """Rough peak of the export process: libraries, the largest matrix in float twice, and the program in a session."""
    largest = max(math.prod(shape) for shape in spec.tensors().values()) * 4
    return _HOST_LIBRARIES + 2 * largest + plan.peak


def available_memory() -> int | None:
    """Memory of this host that is free to use, in bytes, or None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def refuse_unfit(
    spec: Shaped, plan: MemoryPlan, options: ProgramOptions, target: Target, memory_mb: int | None
) -> None:
    """Stop before any work when the program cannot fit.

    Raises:
        TargetError: with the numbers.
    """
    room = (memory_mb or target.memory_mb) * 1_000_000
    if plan.peak > room:
        raise TargetError(
            f"{target.name}: the program needs about {megabytes(plan.peak)} (weights {megabytes(plan.weights)}, "
            f"KV cache of {options.context} tokens {megabytes(plan.kv_cache)}, activations "
            f"{megabytes(plan.activations)}, runtime {megabytes(plan.runtime)}), but it may use {megabytes(room)}",
            hint=_FIT,
        )
    largest = max(target.delivery, key=lambda way: way.max_mb, default=None)
    if largest is not None and plan.program > largest.max_mb * 1_000_000:
        raise TargetError(
            f"{target.name}: the program will be about {megabytes(plan.program)}, over the {largest.max_mb} MB of "
            f"{largest.way}",
            hint="choose a smaller recipe (edgesdk recipes), or download the bundle outside the store",
        )
    here, needed = available_memory(), host_peak(spec, plan)
    if here is not None and needed > here:
        raise TargetError(
            f"this export needs about {megabytes(needed)} of memory on this host, but {megabytes(here)} are free",
            hint="close other programs, or export on a larger machine",
        )


def megabytes(count: float) -> str:
    """Bytes as text in units of 10^6, or of 10^3 where that is more telling."""
    if count < 1e6:
        return f"{count / 1e3:,.0f} kB"
    return f"{count / 1e6:,.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"
