"""Which microcontroller boards hold a model: flash and RAM by use, and the largest context."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from .boards import Board, Footprint, boards_with
from .compress.recipe import Recipe, choose_recipe, open_recipe
from .converter import CONVERTERS, Converter
from .errors import TargetError
from .model.opening import open_model
from .options import program_options
from .progress import SILENT, Progress
from .targets import Target, open_target, target_names

if TYPE_CHECKING:
    from .converter import ProgramOptions
    from .model import DecoderSpec, Model, Tokenizer


class BoardConverter(Converter, Protocol):
    """A converter whose programs run on boards without an operating system."""

    def check_form(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        """Refuse what its runtime cannot run or hold on any board.

        Raises:
            EdgeError: what cannot be held, and what can.
        """

    def footprint(self, core: str) -> Footprint:
        """What its runtime takes on a core, without any model."""

    def tokenizer_bytes(self, tokenizer: Tokenizer) -> int:
        """Flash that a tokenizer takes.

        Raises:
            EdgeError: the runtime cannot run it.
        """


@dataclass(frozen=True)
class Fit:
    """A model on a board; all sizes in bytes.

    Attributes:
        board: its name.
        core: the board's core.
        flash: what the board has.
        ram: what it has, contiguous.
        weights: the model in flash.
        tokenizer: its table in flash.
        code: the runtime in flash.
        kv_cache: keys and values in RAM.
        work: everything else that a token needs in RAM.
        runner: the runner's own variables and its stack.
        fits: whether flash and RAM are enough.
        largest_context: tokens that fit, up to what the model was trained for; 0 when it does not fit at all.
        code_measured: what linked the code, or None where its size is that of the largest core.
    """

    board: str
    core: str
    flash: int
    ram: int
    weights: int
    tokenizer: int
    code: int
    kv_cache: int
    work: int
    runner: int
    fits: bool
    largest_context: int
    code_measured: str | None


def fit(
    model: str | Path | Model,
    *,
    recipe: str | Recipe | None = None,
    context: int | None = None,
    progress: Progress = SILENT,
) -> list[Fit]:
    """Every board with a verdict for a model in its target's default form (C99), the smallest board first.

    Arguments as in :func:`edgesdk.export`.

    Raises:
        EdgeError: the model, the recipe or the context cannot be used at all.
    """
    wanted = open_recipe(recipe) if isinstance(recipe, str) else recipe
    opened = open_model(model, progress) if isinstance(model, (str, Path)) else model
    chosen = choose_recipe(opened, wanted)
    found: list[Fit] = []
    tokenizers: dict[str, int] = {}  # sizes by converter
    with progress.stage("Sizing the model for every board", None):
        for board in boards_with():
            target = _target_of(board)
            converter = board_converter(target)
            options = program_options(opened, target, chosen, context)
            converter.check_form(chosen.spec(opened.spec), chosen, options, target)
            if target.converter not in tokenizers:
                tokenizer = opened.tokenizer
                tokenizers[target.converter] = 0 if tokenizer is None else converter.tokenizer_bytes(tokenizer)
            found.append(_fit(opened, chosen, options, converter, board, tokenizers[target.converter]))
    return found


def _fit(
    model: Model, recipe: Recipe, options: ProgramOptions, converter: BoardConverter, board: Board, tokenizer: int
) -> Fit:
    """A model on one board; ``tokenizer`` is what its table takes in flash."""
    spec = recipe.spec(model.spec)
    footprint = converter.footprint(board.core)

    def runs(context: int) -> bool:
        plan = converter.plan(spec, recipe, replace(options, context=context))
        return plan.program + tokenizer + footprint.flash <= board.flash and plan.peak <= board.ram

    plan = converter.plan(spec, recipe, options)
    return Fit(
        board.name,
        board.core,
        board.flash,
        board.ram,
        plan.program,
        tokenizer,
        footprint.flash,
        plan.kv_cache,
        plan.activations,
        plan.runtime,
        runs(options.context),
        largest(runs, spec.context),
        footprint.measured,
    )


def board_converter(target: Target) -> BoardConverter:
    """The converter of a target for microcontrollers."""
    return cast("BoardConverter", CONVERTERS.get(target.converter))


def largest(holds: _Test, most: int) -> int:
    """The largest number up to ``most`` that passes a test which all smaller ones pass too; 0 when 1 fails."""
    low = 0
    while low < most:
        middle = (low + most + 1) // 2
        if holds(middle):
            low = middle
        else:
            most = middle - 1
    return low


class _Test(Protocol):
    def __call__(self, number: int, /) -> bool: ...


def _target_of(board: Board) -> Target:
    """The target that serves a board's core, or the first one for microcontrollers."""
    targets = [target for name in target_names() if (target := open_target(name)).cores]
    if not targets:
        raise TargetError("no target serves microcontrollers", hint="EDGESDK_TARGETS names a folder without them")
    return next((target for target in targets if board.core in target.cores), targets[0])
