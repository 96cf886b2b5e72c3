"""Which boards hold a program: verdicts for the manifest, and the refusal of what fits none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgesdk.boards import boards_with, open_board
from edgesdk.errors import TargetError
from edgesdk.fit import largest

from .footprint import LARGEST, footprint
from .layout import STACK_BYTES, ram

if TYPE_CHECKING:
    from edgesdk.boards import Board
    from edgesdk.converter import MemoryPlan
    from edgesdk.model import DecoderSpec
    from edgesdk.targets import Target

_LEAST_BITS = 4.5  # a weight of w4g32-e4 with its share of a scale


def verdicts(image: int, arena: int, cores: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Bytes of flash and RAM that the firmware needs on every board of these cores (none: all), and whether it fits."""
    found: dict[str, dict[str, Any]] = {}
    for board in _boards(cores):
        code = footprint(board.core)
        flash, memory = image + code.flash, arena + code.ram + STACK_BYTES
        fits = flash <= board.flash and memory <= board.ram
        found[board.name] = {"flash": flash, "ram": memory, "linked_with": code.measured, "fits": fits}
    return found


def arena_verdicts(program: int, arena: int, cores: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The same before TensorFlow Lite Micro is linked: whether it fits is not known (None) where all but its code does.

    ``program`` is everything in flash, ``arena`` everything in RAM, without TensorFlow Lite Micro's own.
    """
    found: dict[str, dict[str, Any]] = {}
    for board in _boards(cores):
        memory = arena + LARGEST.ram + STACK_BYTES
        fits = None if program <= board.flash and memory <= board.ram else False
        found[board.name] = {"flash": program, "ram": memory, "linked_with": None, "fits": fits}
    return found


def refuse_verdicts(found: Mapping[str, Mapping[str, Any]], cores: Sequence[str]) -> None:
    """Stop when a finished program fits none of the boards that it is for, with the exact sizes.

    Raises:
        TargetError: what the roomiest board lacks.
    """
    if not cores or any(entry["fits"] is not False for entry in found.values()):
        return
    needs = [(open_board(name), entry["flash"], entry["ram"]) for name, entry in found.items()]
    if needs:
        raise _refusal(
            "these cores", "", *_nearest(needs), "use a smaller recipe, --context or vocabulary (edgesdk fit)"
        )


def _boards(cores: Sequence[str]) -> list[Board]:
    return [board for board in boards_with() if not cores or board.core in cores]


def refuse_boards(spec: DecoderSpec, plan: MemoryPlan, context: int, target: Target) -> None:
    """Stop where the program fits no board of the target: by how much, and what would make it fit."""
    flash = plan.program + LARGEST.flash
    needs = [(board, flash, plan.peak) for core in target.cores for board in boards_with(core)]
    if not needs or any(flash <= board.flash and plan.peak <= board.ram for board, _, _ in needs):
        return
    board, *_ = _nearest(needs)
    hint = _way_out(spec, flash - board.flash, plan, board.ram)
    raise _refusal(target.name, f" at a context of {context}", board, flash, plan.peak, hint)


def _nearest(needs: Iterable[tuple[Board, int, int]]) -> tuple[Board, int, int]:
    """Of boards with the flash and RAM that a program needs there, the one that lacks least."""
    return max(needs, key=lambda need: (min(need[0].flash - need[1], need[0].ram - need[2]), need[0].name))


def _refusal(cores: str, context: str, board: Board, flash: int, memory: int, hint: str) -> TargetError:
    return TargetError(
        f"no board of {cores} holds this program: it needs {kilobytes(flash)} of flash and {kilobytes(memory)} of RAM"
        f"{context}; {board.name} has {kilobytes(board.flash)} and {kilobytes(board.ram)}, so "
        f"{_missing(flash - board.flash, memory - board.ram)}",
        hint=hint,
    )


def _missing(flash: int, memory: int) -> str:
    parts = [f"{kilobytes(flash)} of flash"] if flash > 0 else []
    parts += [f"{kilobytes(memory)} of RAM"] if memory > 0 else []
    return " and ".join(parts) + " are missing"


def _way_out(spec: DecoderSpec, flash_missing: int, plan: MemoryPlan, memory: int) -> str:
    """What would make it fit a board with this much RAM."""
    found = []
    if flash_missing > 0:
        rows = spec.vocab * spec.hidden * (1 if spec.tied else 2)
        least = int(spec.parameters * _LEAST_BITS / 8)
        if plan.program - least < flash_missing:
            found.append(
                f"a model of at most {(plan.program - flash_missing) * 8 / _LEAST_BITS / 1e6:.1f} M parameters"
            )
        else:
            found.append("a smaller recipe (w4g32-e4)")
        if rows > 0.4 * spec.parameters:
            share = f"{rows / spec.parameters:.0%} of the weights"
            found.append(f"a smaller vocabulary (its {spec.vocab} rows are {share})")
    if plan.peak > memory:
        longest = largest(lambda context: ram(spec, context).total <= memory - plan.runtime, spec.context)
        found.append(f"--context {longest}" if longest else "a model with fewer layers or key-value heads")
    return "what would make it fit: " + ", and ".join(found)


def kilobytes(count: float) -> str:
    """Bytes as text in units of 1024, as data sheets of microcontrollers count."""
    return f"{math.ceil(count / 1024):,} KB"
