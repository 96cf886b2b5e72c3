"""Which boards hold a program: verdicts for the manifest, and the refusal of what fits none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgesdk.boards import boards_with
from edgesdk.errors import TargetError
from edgesdk.fit import largest

from .footprint import LARGEST, footprint
from .layout import ram

if TYPE_CHECKING:
    from edgesdk.converter import MemoryPlan
    from edgesdk.model import DecoderSpec
    from edgesdk.targets import Target

STACK_BYTES = 4096
_LEAST_BITS = 4.5  # a weight of w4g32-e4 with its share of a scale


def verdicts(image: int, arena: int) -> dict[str, dict[str, Any]]:
    """Flash and RAM that the firmware needs on every real board, in bytes, and whether it fits."""
    found: dict[str, dict[str, Any]] = {}
    for board in boards_with():
        code = footprint(board.core)
        flash, memory = image + code.flash, arena + code.ram + STACK_BYTES
        fits = flash <= board.flash and memory <= board.ram
        found[board.name] = {"flash": flash, "ram": memory, "linked_with": code.measured, "fits": fits}
    return found


def arena_verdicts(arena: int, program: int) -> dict[str, dict[str, Any]]:
    """What is known of boards before TensorFlow Lite Micro is linked: the arena and the program, not the code."""
    found: dict[str, dict[str, Any]] = {}
    for board in boards_with():
        fits = program <= board.flash and arena + STACK_BYTES <= board.ram
        found[board.name] = {"flash": program, "ram": arena + STACK_BYTES, "linked_with": None, "fits": fits}
    return found


def refuse_boards(spec: DecoderSpec, plan: MemoryPlan, context: int, target: Target) -> None:
    """Stop where the program fits no board of the target: by how much, and what would make it fit."""
    boards = [board for core in target.cores for board in boards_with(core)]
    flash = plan.program + LARGEST.flash
    if not boards or any(flash <= board.flash and plan.peak <= board.ram for board in boards):
        return
    roomiest = max(boards, key=lambda board: (min(board.flash - flash, board.ram - plan.peak), board.name))
    needs = f"{kilobytes(flash)} of flash and {kilobytes(plan.peak)} of RAM"
    has = f"{roomiest.name} has {kilobytes(roomiest.flash)} and {kilobytes(roomiest.ram)}"
    raise TargetError(
        f"no board of {target.name} holds this program: it needs {needs} at a context of {context}; {has}, "
        f"so {_missing(flash - roomiest.flash, plan.peak - roomiest.ram)}",
        hint=_way_out(spec, flash - roomiest.flash, plan, roomiest.ram),
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
