"""Compress a model once, into a checkpoint that every export takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .compress.allocation import chosen_size, sized
from .compress.base import PORTABLE, Limits, Setting
from .compress.calibration import Calibration
from .compress.recipe import Recipe, choose_recipe, open_recipe
from .compress.recovery import Recovery
from .compress.resuming import work_folder
from .converter import CONVERTERS
from .errors import EdgeError, RecipeError
from .exporting import Checks
from .files import file_entry, replacing_folder
from .model import Compression, Model
from .model import checkpoint as records
from .model.adapter import merge_notes, with_adapter
from .model.opening import open_model
from .model.tensors import packed_columns
from .model.vocabulary import in_vocabulary_of
from .options import program_options
from .oracle import Choice, consult
from .outputs import CHECKPOINT, output_path, refuse_foreign
from .progress import SILENT, Progress
from .schema import dump
from .targets import open_target
from .texts import write_texts

if TYPE_CHECKING:
    from .compress.base import PassReport
    from .targets import Target

_FLOAT_BYTES = 4  # of a value that stays float; what two bytes hold exactly takes two


def compress_model(
    model: str | Path | Model,
    out: str | Path,
    *,
    recipe: str | Recipe | None = None,
    target: str | None = None,
    size: str | None = None,
    teacher: str | None = None,
    adapter: str | Path | None = None,
    prefix_space: bool | None = None,
    calibration: Calibration | None = None,
    checks: Checks | None = None,
    resume: bool = False,
    oracle: Choice = "auto",
    progress: Progress = SILENT,
) -> records.Description:
    """Apply a recipe to a model and write a compressed checkpoint, which :func:`edgesdk.export` takes for any target.

    Args:
        model: what :func:`edgesdk.open_model` takes, or a model.
        out: the folder to write; replaced only when all went well.
        recipe: a decodable name, a TOML file, or a recipe; default: ``w4g32``.
        target: a device class whose kernels decide what the weights may look like, and whose program ``size`` means;
            default: what every target holds, and the size of the checkpoint's weights.
        size: most bytes (``90MB``) or bits per weight (``4.5bpw``); bits are then chosen for every matrix. Default:
            the recipe's, if it names one.
        teacher: a model that the recipe's recovery learns from, with the same tokens; default: the original.
        adapter: a LoRA adapter, a folder that PEFT wrote, to merge into the weights before anything else.
        prefix_space: whether a space goes before each text, for llama2.c files, which do not say it.
        calibration: text for passes that look at activations; default: the model's own.
        checks: what to measure against the original, and the limits that make it fail.
        oracle: as in :func:`edgesdk.export`.
        resume: go on with a run of the same arguments that was interrupted; the result has the same bytes.
        progress: told of every stage.

    Returns: the description, as written.

    Raises:
        EdgeError: what is wrong. What was done by then stays beside ``out``, for ``resume``.
    """
    out, calibration, checks = output_path(out), calibration or Calibration(), checks or Checks()
    refuse_foreign(out, CHECKPOINT)
    described = None if target is None else open_target(target)
    presets = described.recipes if described else None
    wanted = open_recipe(recipe, presets) if isinstance(recipe, str) else recipe
    opened = open_model(model, progress, prefix_space=prefix_space) if isinstance(model, (str, Path)) else model
    verdict = consult(opened, oracle, progress)
    opened = opened if adapter is None else with_adapter(opened, adapter)
    chosen = choose_recipe(opened, wanted)
    if teacher is not None:
        chosen = _taught(chosen, teacher)
    most = chosen_size(chosen, size, opened.spec.parameters)
    _refuse(opened)
    limits, _ = _aim(described, opened, chosen, refuse=not chosen.reshapes)
    _refuse_grids(opened, chosen, limits)
    plan = _plan(opened, chosen, target, limits, most, calibration)
    with work_folder(out, plan, resume, progress) as scratch:
        setting = Setting(scratch, progress, limits, calibration)
        shaped, early = chosen(opened, setting, slice(chosen.shaping))
        _, size_of = _aim(described, shaped, chosen, refuse=True)
        original = in_vocabulary_of(opened, shaped)
        setting = replace(setting, original=original)
        chosen, sizing = sized(chosen, shaped, size, size_of, setting)
        made, late = chosen(shaped, setting, slice(chosen.shaping, None))
        reports = (*early, *late)
        with replacing_folder(out, partial(refuse_foreign, out, CHECKPOINT)) as folder:
            write_texts(made, folder)
            grids = records.write_weights(made, folder, progress)
            quality = None if checks.skip else _measure(original, made, chosen, out.name, checks, progress)
            notes = [*opened.origin.notes, *sizing, *merge_notes(opened)]
            description = _describe(opened, made, chosen, reports, grids, calibration, notes, quality)
            records.write_description(replace(description, oracle=dump(verdict)), folder)
    return records.read_description(out)


def _taught(recipe: Recipe, teacher: str) -> Recipe:
    """The recipe with another teacher in its recovery."""
    if not any(isinstance(step, Recovery) for step in recipe.passes):
        raise RecipeError(
            f"recipe {recipe.name} has no recovery that a teacher could serve", hint="add -heal: w16-heal, w4g32-heal"
        )
    passes = (replace(step, teacher=teacher) if isinstance(step, Recovery) else step for step in recipe.passes)
    return replace(recipe, passes=tuple(passes))


def _refuse(model: Model) -> None:
    if model.compression is not None:
        raise RecipeError(
            f"this checkpoint is already compressed ({model.compression.name}), and rounding twice costs quality",
            hint="compress the original, or export this one as it is",
        )


def _refuse_grids(model: Model, recipe: Recipe, limits: Limits) -> None:
    for name in recipe.spec(model.spec).tensors():
        bits, group = recipe.grid(name) or (16, 0)
        if group > 0 and bits < 16 and not (limits.grouped_bytes if bits == 8 else limits.grouped_nibbles):
            raise RecipeError(
                f"recipe {recipe.name} makes {name} {bits}-bit in groups of {group}, which not every target holds",
                hint="use one scale a row (w8), or name a --target that holds groups",
            )


def _aim(
    target: Target | None, model: Model, recipe: Recipe, *, refuse: bool
) -> tuple[Limits, Callable[[Recipe], int]]:
    """What the weights may look like, and the size in bytes that a recipe would give.

    ``refuse``: raise an error where the target cannot take the model.
    """
    if target is None:
        return PORTABLE, lambda chosen: _checkpoint_bytes(model, chosen)
    converter = CONVERTERS.get(target.converter)
    options = program_options(model, target, recipe)
    if refuse:
        converter.check(recipe.spec(model.spec), recipe, options, target)
    limits = converter.limits(options.delegate)
    return limits, lambda chosen: converter.plan(chosen.spec(model.spec), chosen, options).program


def _checkpoint_bytes(model: Model, recipe: Recipe) -> int:
    """Size of the weights of a checkpoint, at most."""
    total = 0
    for name, shape in recipe.spec(model.spec).tensors().items():
        grid = recipe.grid(name)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        group = columns if grid is None or grid[1] <= 0 else grid[1]
        if grid is None or columns % group:
            total += _FLOAT_BYTES * rows * columns
        else:
            total += rows * packed_columns(columns, grid[0]) + 2 * rows * (columns // group)
    return total


def _plan(
    model: Model, recipe: Recipe, target: str | None, limits: Limits, size: int | None, calibration: Calibration
) -> dict[str, Any]:
    """All that decides the result, as plain data: a run that is resumed must have the same."""
    text = calibration.file
    return {
        "model": [dump(file_entry(path)) for path in model.origin.files],
        "recipe": [recipe.activations, recipe.kv_bits, recipe.observer, *recipe.describe()],
        "target": target,
        "limits": {**asdict(limits), "widths": list(limits.widths)},
        "size": size,
        "calibration": {
            **dump(calibration),
            "file": None if text is None else _text_hash(text),
        },
        "tools": _tools(),
    }


def _text_hash(path: Path) -> str:
    if not path.is_file():
        raise EdgeError(f"{path}: no such calibration text")
    return file_entry(path).sha256


def _tools() -> dict[str, str]:
    from . import __version__

    return {"edgesdk": __version__, "torch": metadata.version("torch")}


def _measure(
    original: Model, made: Model, recipe: Recipe, name: str, checks: Checks, progress: Progress
) -> dict[str, Any]:
    """What compression cost, in the float32 reference.

    Raises:
        QualityError: a limit is not met.
    """
    from .quality import Gates, compare_quality, enforce

    done = Compression(recipe.name, {}, passes=tuple(recipe.describe()))
    judged = replace(made, compression=done, origin=replace(made.origin, name=name))
    text, windows = checks.eval_text, checks.eval_windows
    found = compare_quality(original, judged, eval_text=text, eval_windows=windows, samples=0, progress=progress)
    enforce(found, Gates(checks.max_kl, checks.max_ppl_increase))
    return {
        "own_text": dump(found.own_text.summary) if found.own_text else None,
        "own_text_reason": found.own_text_reason,
        "eval_text": dump(found.eval_text.summary) if found.eval_text else None,
        "perplexity": dump(found.perplexity.summary) if found.perplexity else None,
    }


def _describe(
    original: Model,
    made: Model,
    recipe: Recipe,
    reports: tuple[PassReport, ...],
    grids: dict[str, records.Grid],
    calibration: Calibration,
    notes: list[str],
    quality: dict[str, Any] | None,
) -> records.Description:
    text = calibration.file
    return records.Description(
        schema=records.SCHEMA,
        name=original.origin.name,
        licence=original.origin.licence,
        spec=made.spec,
        special=made.tokenizer.special if made.tokenizer else None,
        recipe=recipe.name,
        activations=recipe.activations,
        kv_bits=recipe.kv_bits,
        observer=recipe.observer,
        passes=tuple(recipe.describe()),
        reports=tuple(dump(report) for report in reports),
        grids=grids,
        sources=tuple(file_entry(path) for path in original.origin.files),
        calibration={
            "text": calibration.source(original),
            "sha256": None if text is None else _text_hash(text),
            "sequences": calibration.sequences,
            "length": calibration.length,
            "seed": calibration.seed,
        },
        quality=quality,
        quality_reason=None if quality else "skipped with --skip-checks",
        tools=_tools(),
        notes=tuple(notes),
    )
