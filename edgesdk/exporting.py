"""The main job: a model in, a compressed, verified bundle out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from . import bundle as bundles
from . import estimate
from .bundle import manifest as records
from .bundle.admission import remember
from .compress.allocation import chosen_size, sized
from .compress.base import Limits, Setting, stored_width
from .compress.calibration import Calibration
from .compress.recipe import Recipe, choose_recipe, open_recipe
from .compress.stored import AsStored
from .converter import CONVERTERS, MemoryPlan, Program, ProgramOptions, open_program
from .drafting import draft_plan, measure, open_draft, take_in
from .errors import EdgeError, MissingExtraError, QualityError
from .files import file_entry, folder_beside, replacing_folder
from .linting import refuse_tokenizer, warnings_of
from .model import Model
from .model.adapter import merge_notes, with_adapter, with_switchable
from .model.opening import open_any
from .model.vocabulary import in_vocabulary_of
from .options import program_options
from .oracle import Choice, consult
from .outputs import BUNDLE, output_path, refuse_foreign
from .progress import SILENT, Progress
from .schema import dump
from .switching import AdapterParity, check_adapters, refuse_recipe, refuse_target
from .targets import FloatType, Target, open_target
from .texts import write_texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .compress.base import PassReport
    from .compress.quality import Divergence, Perplexity, PromptParity
    from .converter import Converter
    from .model import DecoderSpec
    from .model.opening import AnyModel
    from .passages.passage import Passage
    from .session import Session

SKIPPED = "skipped with --skip-checks"
_COMPRESSED = "the checkpoint was compressed before: compare with the original (edgesdk quality ORIGINAL BUNDLE)"
_NO_ROOM = "the context has no room for a prompt and 64 tokens of answer"
_LEAST_AGREEMENT = 0.5  # of greedy tokens; int8 activations stay above 0.9, a wrong graph is near 0


@dataclass(frozen=True)
class Checks:
    """What is measured on the finished program, and the limits that make an export fail.

    Attributes:
        eval_text: a text file for perplexity.
        eval_windows: windows of 512 tokens (or documents) of it.
        max_kl: largest mean KL divergence from the uncompressed model, nats a token.
        max_ppl_increase: largest increase of perplexity, percent; needs ``eval_text``.
        skip: measure nothing; the manifest then says so.
    """

    eval_text: Path | None = None
    eval_windows: int = 6
    max_kl: float | None = None
    max_ppl_increase: float | None = None
    skip: bool = False

    def __post_init__(self) -> None:
        if self.skip and (self.eval_text or self.max_kl is not None):
            raise EdgeError("--skip-checks measures nothing, so it goes with no limit and no --eval-text")
        if self.eval_text is not None and not self.eval_text.is_file():
            raise EdgeError(f"{self.eval_text}: no such text file")
        if self.max_ppl_increase is not None and self.eval_text is None:
            raise EdgeError("--max-ppl-increase needs a text", hint="add --eval-text FILE")


class Recorded(Protocol):
    """What the manifest records of measurements, whatever was measured: dataclasses, or None."""

    @property
    def parity(self) -> Sequence[object] | None:
        """Program against reference, a row for each text."""

    @property
    def divergence(self) -> object:
        """Program against the uncompressed model."""

    @property
    def divergence_reason(self) -> str | None:
        """Why there is none, where it is not that nothing was measured."""

    @property
    def perplexity(self) -> object:
        """Before and after, on a text of the user's."""


@dataclass(frozen=True)
class _Measured:
    """What was measured; everything is None when the user skipped it."""

    parity: tuple[PromptParity, ...] | None = None
    divergence: Divergence | None = None
    perplexity: Perplexity | None = None
    divergence_reason: str | None = None
    notes: tuple[str, ...] = ()
    adapters: tuple[AdapterParity, ...] = ()


def export(
    model: str | Path | AnyModel,
    target: str,
    out: str | Path,
    *,
    recipe: str | Recipe | None = None,
    context: int | None = None,
    float_type: FloatType | None = None,
    memory_mb: int | None = None,
    delegate: str | None = None,
    size: str | None = None,
    adapter: str | Path | None = None,
    prefix_space: bool | None = None,
    switchable: Mapping[str, str | Path] | None = None,
    draft: str | Path | Model | None = None,
    draft_recipe: str | Recipe | None = None,
    calibration: Calibration | None = None,
    checks: Checks | None = None,
    oracle: Choice = "auto",
    progress: Progress = SILENT,
) -> bundles.Manifest:
    """Compress a model, convert it for a target, verify the program, and pack the bundle.

    Args:
        model: what :func:`edgesdk.open_model` takes, an encoder's folder, or a model.
        target: a name of :func:`edgesdk.target_names`.
        out: the bundle: a folder, or one file when the name ends in ``.zip``. Replaced only when all went well.
        recipe: a decodable name, a TOML file, or a recipe; default: ``w4g32``, or a compressed checkpoint's own
            (encoders: ``w8``).
        context: capacity of the key-value cache in tokens; default 2048, or the model's own if smaller.
        float_type: ``float32`` or ``float16``; default: the target's.
        memory_mb: memory of the concrete device, when it differs from the target's.
        delegate: the hardware path, one of the target's; default: its first.
        size: most bytes of the program (``90MB``) or bits per weight (``4.5bpw``); bits are then chosen for every
            matrix. Default: the recipe's, if it names one.
        adapter: a LoRA adapter, a folder that PEFT wrote, to merge into the weights before anything else.
        prefix_space: whether a space goes before each text, for llama2.c files, which do not say it.
        switchable: LoRA adapters that stay apart from the weights, by the names that users switch to them with.
        draft: a smaller model with the same tokens, to draft what the program then checks: speculative decoding.
        draft_recipe: as ``recipe``, for the draft.
        calibration: text for passes that look at activations; default: the model's own.
        checks: what to measure and which limits to enforce.
        oracle: whether transformers is asked what it makes of the checkpoint: ``auto`` (where it is installed),
            ``off`` or ``required``.
        progress: told of every stage.

    Returns: the manifest, as written.

    Raises:
        EdgeError: what is wrong; nothing is left behind then.
    """
    checks, out = checks or Checks(), output_path(out)
    refuse_output(out)
    described = open_target(target)
    wanted = open_recipe(recipe, described.recipes) if isinstance(recipe, str) else recipe
    converter = CONVERTERS.get(described.converter)
    refuse_target(converter, described, switchable)
    _require_torch(described.converter)
    opened = open_any(model, progress, prefix_space=prefix_space) if isinstance(model, (str, Path)) else model
    verdict = consult(opened, oracle, progress)
    if not isinstance(opened, Model):
        from .exporting_others import export_other, refuse_choices

        refuse_choices(checks, size, calibration, adapter=adapter, switchable=switchable, draft=draft)
        return export_other(
            opened, described, out, wanted, context, float_type, memory_mb, delegate, checks, verdict, progress
        )
    opened = _with_adapters(opened, adapter, switchable)
    drafter = open_draft(draft, opened, converter, described, progress)
    chosen = choose_recipe(opened, wanted)
    refuse_recipe(chosen, opened.switchable)
    most = chosen_size(chosen, size, opened.spec.parameters)
    if opened.compression is not None and checks.max_kl is not None:
        raise EdgeError(
            "--max-kl compares with the uncompressed model, which a compressed checkpoint does not hold",
            hint="edgesdk quality ORIGINAL BUNDLE --max-kl ... after the export",
        )
    options = program_options(opened, described, chosen, context, float_type, delegate)
    opened = replace(opened, spec=opened.spec.for_context(options.context))
    beside = draft_plan(drafter, draft_recipe, converter, described, options)
    spec = chosen.spec(opened.spec)
    if not chosen.reshapes:
        converter.check(spec, chosen, options, described)
    if opened.tokenizer is not None:
        refuse_tokenizer(opened.tokenizer, described)
    if most is None and not chosen.reshapes:
        plan = converter.plan(spec, chosen, options).beside(beside)
        estimate.refuse_unfit(spec, plan, options, described, memory_mb)
    with staging(out) as (folder, scratch):
        limits = converter.limits(options.delegate)
        setting = Setting(scratch, progress, limits, calibration or Calibration())
        shaped, early = chosen(opened, setting, slice(chosen.shaping))
        original, spec = in_vocabulary_of(opened, shaped), chosen.spec(shaped.spec)
        setting = replace(setting, original=original)
        chosen, sizing = sized(chosen, shaped, size, lambda it: converter.plan(spec, it, options).program, setting)
        converter.check(spec, chosen, options, described)
        plan = converter.plan(spec, chosen, options)
        estimate.refuse_unfit(spec, plan.beside(beside), options, described, memory_mb)
        warnings = [*opened.origin.notes, *warnings_of(opened, plan, described), *_notes_of(opened)]
        tell(progress, warnings)
        warnings += [*sizing, *_widened(spec, chosen, limits)]
        compressed, late = chosen(shaped, setting, slice(chosen.shaping, None))
        reports = (*early, *late)
        program = converter.convert(replace(compressed, switchable=opened.switchable), options, folder, progress)
        notes = [*warnings, *(note for report in reports for note in report.notes)]
        write_texts(compressed, folder)
        notes += merge_notes(opened)
        if (larger := not_smaller(opened, folder, program)) is not None:
            notes.append(larger)
            progress.note(larger)
        measured = _Measured()
        reason = SKIPPED if checks.skip else program.not_run
        if reason is None:
            start = partial(open_program, converter, folder / program.main, options.context)
            measured = _measure(original, compressed, start, options, checks, scratch, progress)
            _enforce(checks, measured)
            files = {name: folder / file for name, file in program.facts.get("adapters", {}).items()}
            adapters = check_adapters(compressed, opened.switchable, lambda it: start(adapter=files[it.name]), progress)
            measured = replace(measured, adapters=adapters)
            notes += measured.notes
        elif program.not_run is not None:
            progress.note(program.not_run)
        record = manifest_of(
            opened, compressed, described, chosen, options, plan, program, reports, measured, reason, tuple(notes)
        )
        record = replace(record, adapters=_adapters(opened, program, measured), oracle=verdict)
        made = partial(_export_draft, drafter, described, scratch / "draft", draft_recipe, options, memory_mb)
        record = (
            record if drafter is None else _with_draft(record, made, folder, converter, compressed, checks, progress)
        )
        sealed = bundles.seal(folder, record)
        if out.suffix == ".zip":
            bundles.pack(folder, out)
    remember(sealed)
    return sealed


def _with_adapters(opened: Model, adapter: str | Path | None, switchable: Mapping[str, str | Path] | None) -> Model:
    """The model with its adapters: one merged into it, some apart."""
    opened = opened if adapter is None else with_adapter(opened, adapter)
    return with_switchable(opened, switchable) if switchable else opened


def _export_draft(
    drafter: Model | None,
    target: Target,
    out: Path,
    recipe: str | Recipe | None,
    options: ProgramOptions,
    memory_mb: int | None,
    progress: Progress,
) -> tuple[Path, bundles.Manifest]:
    """A bundle of the draft model alone, with the choices of the one that it goes into."""
    assert drafter is not None
    delegate, skip = options.delegate, Checks(skip=True)
    return out, export(
        drafter,
        target.name,
        out,
        recipe=recipe,
        context=min(options.context, drafter.spec.context),
        float_type=options.float_type,
        memory_mb=memory_mb,
        delegate=delegate if delegate in target.delegates else None,
        checks=skip,
        progress=progress,
    )


def _with_draft(
    record: bundles.Manifest,
    export_draft: Callable[[Progress], tuple[Path, bundles.Manifest]],
    folder: Path,
    converter: Converter,
    model: Model,
    checks: Checks,
    progress: Progress,
) -> bundles.Manifest:
    """The manifest with a draft, whose program is in the folder then."""
    if record.parity_reason is not None and not checks.skip and record.parity_reason != _NO_ROOM:
        raise EdgeError(f"a draft is of use where its tokens are checked in one step: {record.parity_reason}")
    found = take_in(*export_draft(progress), folder)
    if not checks.skip:
        assert model.tokenizer is not None
        target = partial(open_program, converter, folder / record.program.main, record.context)
        draft = partial(open_program, converter, folder / found.main, found.context)
        found = replace(found, worth=dump(measure(target, draft, model.tokenizer, progress)))
    return replace(record, draft=found)


def refuse_output(out: Path) -> None:
    """Stop where a bundle, or a zip of one, would replace something else.

    Raises:
        EdgeError: there is something else.
    """
    zipped = out.suffix == ".zip"
    if zipped and out.is_dir():
        raise EdgeError(f"{out}: is a folder", hint="name a file, or leave out .zip to make a folder")
    if not zipped:
        refuse_foreign(out, BUNDLE)
    elif out.is_symlink() or (out.exists() and not bundles.is_bundle(out)):
        raise EdgeError(f"{out}: exists and is not a bundle, so it is not replaced", hint="name another output")


@contextmanager
def staging(out: Path) -> Iterator[tuple[Path, Path]]:
    """A folder that becomes ``out`` when all went well, and a scratch folder on the same disk."""
    refuse_output(out)
    with folder_beside(out) as scratch:
        if out.suffix == ".zip":
            folder = scratch / "bundle"
            folder.mkdir()
            yield folder, scratch
        else:
            with replacing_folder(out, partial(refuse_foreign, out, BUNDLE)) as folder:
                yield folder, scratch


def tell(progress: Progress, notes: Sequence[str]) -> None:
    """Show the user what an export goes on in spite of."""
    for note in notes:
        progress.note(note)


def _require_torch(extra: str) -> None:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError("torch", extra) from None


def _widened(spec: DecoderSpec, recipe: Recipe, limits: Limits) -> list[str]:
    """What the target stores in more bits than the recipe makes."""
    bits = [grid[0] for name in spec.tensors() if (grid := recipe.grid(name)) and grid[0] < 16]
    return [
        f"{bits.count(width)} matrices of {width} bits are stored in {stored} on this target: the same integers"
        for width in sorted(set(bits))
        if (stored := stored_width(width, limits.widths)) != width
    ]


def _notes_of(model: Model) -> list[str]:
    """What the compression of a checkpoint said of it."""
    return [note for report in (model.compression.reports if model.compression else ()) for note in report["notes"]]


def not_smaller(model: AnyModel, folder: Path, program: Program) -> str | None:
    """A sentence where a bundle is no smaller than the checkpoint that it was made from, or None."""
    before = model.origin.bytes
    files = (path for path in folder.rglob("*") if path.is_file())
    after = sum(path.stat().st_size for path in files if path.relative_to(folder).parts[0] not in program.made_from_it)
    if not before or after < before or model.compression is not None:
        return None
    return f"the bundle ({estimate.megabytes(after)}) is not smaller than the checkpoint ({estimate.megabytes(before)})"


def _measure(
    original: Model,
    compressed: Model,
    open_session: Callable[[int], Session],
    options: ProgramOptions,
    checks: Checks,
    scratch: Path,
    progress: Progress,
) -> _Measured:
    """Measure the program; it and the references take turns in memory."""
    from .compress import quality
    from .compress.recording import record
    from .digests import file_digest
    from .model.reference import ReferenceModel
    from .passages.cutting import file_windows
    from .passages.loops import loop_notes
    from .passages.own import own_text
    from .passages.reference import ReferenceWriter, may_stay, worthwhile_threads

    text, notes = checks.eval_text, list[str]()
    windows: list[Passage] = []
    if text is not None:
        windows = file_windows(original.tokenizer, text, checks.eval_windows, context=options.context)
        notes += loop_notes(text.name, windows)
    reference = ReferenceModel(original, resident=may_stay(original))
    own = own_text(ReferenceWriter(reference), original.tokenizer, options.context, progress)
    reference.release()
    recording = record(open_session(worthwhile_threads(original.spec)), own.passages, windows, scratch, progress)
    tell(progress, [*notes, *([f"not compared on its own text: {own.loops}"] if own.loops else [])])
    apart, reason = None, own.loops
    if original.compression is not None:
        reason = _COMPRESSED
    elif reason is None:
        apart = quality.divergence(reference, own, recording, progress)
    reference.release()
    perplexity = None
    if text is not None:
        before = quality.reference_loss(ReferenceModel(original, resident=False), windows, progress)
        perplexity = quality.Perplexity(
            quality.rounded(quality.perplexity_of(before, windows)),
            quality.rounded(quality.perplexity_of(recording.window_loss, windows)),
            len(windows),
            max(len(window.text) for window in windows),
            file_digest(text),
        )
    found = quality.parity(ReferenceModel(compressed, resident=False), recording, progress)
    return _Measured(found, apart, perplexity, reason, tuple(notes))


def _enforce(checks: Checks, measured: _Measured) -> None:
    for row in measured.parity or ():
        if row.top1 < _LEAST_AGREEMENT:
            raise QualityError(
                f"the program does not compute what the model says: after {row.prompt} tokens it agrees with the "
                f"reference on {row.top1:.0%} of 64 tokens (logits differ by up to {row.max_logit_difference:g})",
                hint="try float activations (add -a32 to the recipe's name); if that does not help, report it",
            )
    apart = measured.divergence
    if checks.max_kl is not None and apart is None:
        raise QualityError(
            f"there is no KL divergence to hold against the limit of {checks.max_kl:g}: {measured.divergence_reason}",
            hint="set a limit on a text instead: --eval-text FILE --max-ppl-increase PERCENT",
        )
    if checks.max_kl is not None and apart is not None and not apart.kl <= checks.max_kl:
        raise QualityError(
            f"the mean KL divergence from the uncompressed model is {apart.kl:.4g}, over the limit of "
            f"{checks.max_kl:g}",
            hint="use more bits (edgesdk recipes) or raise --max-kl; no bundle was written",
        )
    ppl = measured.perplexity
    if ppl is not None and checks.max_ppl_increase is not None and not ppl.increase <= checks.max_ppl_increase:
        raise QualityError(
            f"perplexity rises from {ppl.before:.4g} to {ppl.after:.4g}, by {ppl.increase:.1f} %, over the limit of "
            f"{checks.max_ppl_increase:g} %",
            hint="use more bits (edgesdk recipes) or raise --max-ppl-increase; no bundle was written",
        )


def manifest_of(
    model: AnyModel,
    compressed: AnyModel,
    target: Target,
    recipe: Recipe,
    options: ProgramOptions,
    plan: MemoryPlan,
    program: Program,
    reports: tuple[PassReport, ...],
    measured: Recorded,
    reason: str | None,
    notes: tuple[str, ...],
) -> bundles.Manifest:
    """The manifest of a bundle that is about to be sealed; ``reason`` is why nothing was measured."""
    import torch

    special = compressed.tokenizer.special if compressed.tokenizer else None
    template = compressed.tokenizer is not None and compressed.tokenizer.chat_template is not None
    runtime = program.runtime or target.runtime
    done, kept = model.compression, all(isinstance(step, AsStored) for step in recipe.passes)
    return bundles.Manifest(
        schema=bundles.SCHEMA,
        model=records.ModelIdentity(
            model.origin.name,
            model.spec.family,
            (compressed if recipe.shaping else model).spec.parameters,
            model.origin.licence,
            tuple(file_entry(path) for path in model.origin.files),
            cast("dict[str, Any]", dump((compressed if recipe.shaping else model).spec)),
        ),
        recipe=records.RecipeRecord(
            recipe.name,
            options.activations,
            done.passes if done and kept else tuple(recipe.describe()),
            done.reports if done and kept else tuple(dump(report) for report in reports),
            options.kv_bits,
        ),
        target=records.TargetRecord(target.name, target.os, target.architecture, target.page_size),
        program=records.ProgramRecord(
            target.converter, program.main, runtime.name, runtime.versions, options.float_type, dict(program.facts)
        ),
        context=options.context,
        memory=records.MemoryRecord(**dump(plan)),
        tokenizer=records.TokenizerRecord(
            "tokenizer.json" if special else "",
            "chat_template.jinja" if template else None,
            special.bos if special else None,
            special.stop if special else (),
            special.pad if special else None,
            special.prefix if special else (),
        ),
        quality=records.QualityRecord(
            dump(measured.divergence),
            None if measured.divergence else reason or measured.divergence_reason,
            dump(measured.perplexity),
            None if measured.perplexity else reason or "no --eval-text was given",
        ),
        parity=tuple(dump(row) for row in measured.parity) if measured.parity else None,
        parity_reason=None if measured.parity else (reason if measured.parity is None else _NO_ROOM),
        tools=_tools({"torch": torch.__version__, runtime.name: metadata.version(runtime.name)} | dict(program.tools)),
        notes=notes,
    )


def _adapters(model: Model, program: Program, measured: _Measured) -> tuple[records.AdapterRecord, ...]:
    """Adapters that were merged, then those that stay apart."""
    files = program.facts.get("adapters", {})
    parities = dict(zip((each.name for each in model.switchable), measured.adapters, strict=False))
    return tuple(
        records.AdapterRecord(
            adapter.name,
            adapter.rank,
            len(adapter.matrices) + len(adapter.replaced),
            tuple(file_entry(path) for path in adapter.files),
            files[adapter.name] if adapter in model.switchable else None,
            dump(parities.get(adapter.name)) if adapter in model.switchable else None,
        )
        for adapter in (*model.origin.adapters, *model.switchable)
    )


def _tools(extra: Mapping[str, str]) -> dict[str, str]:
    from . import __version__

    return {"edgesdk": __version__, **{name: extra[name] for name in sorted(extra)}}
