"""A model that is no decoder in, a verified bundle out: the counterpart of :mod:`.exporting`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from . import bundle as bundles
from . import estimate
from .bundle.admission import remember
from .compress.base import Setting
from .compress.calibration import Calibration
from .compress.recipe import Recipe, open_recipe
from .converter import CONVERTERS, kind_converter
from .errors import EdgeError
from .exporting import SKIPPED, Checks, manifest_of, not_smaller, staging, tell
from .kinds import ENCODER, SEQ2SEQ, VISION
from .linting import warnings_of
from .model.encoders.model import EncoderModel
from .model.seq2seq.model import Seq2SeqModel
from .model.vision.model import VisionModel
from .options import program_options
from .progress import Progress
from .texts import write_texts

if TYPE_CHECKING:
    from .bundle.manifest import OracleRecord
    from .targets import FloatType, Target

    Other: TypeAlias = EncoderModel | Seq2SeqModel | VisionModel

DEFAULT = "w8"  # small models of these kinds lose more with four bits than they save
CONTEXT = 512  # tokens, where nothing else says: scores grow with the square
_MOST_TEXTS = 200


@dataclass(frozen=True)
class _Measured:
    """What was measured, as dataclasses of the kind; everything is None when the user skipped it."""

    parity: tuple[object, ...] | None = None
    divergence: object = None
    perplexity: None = None
    divergence_reason: str | None = None


def refuse_choices(checks: Checks, size: str | None, calibration: Calibration | None, **more: object) -> None:
    """Stop where an export asks for what decoders alone have.

    Raises:
        EdgeError: which choice.
    """
    if size is not None or (calibration is not None and calibration != Calibration()):
        raise EdgeError("--size and --calibration are for decoders: other models are rounded to nearest")
    for name, choice in more.items():
        if choice:
            raise EdgeError(f"--{name} is for decoders")
    if checks.max_kl is not None or checks.max_ppl_increase is not None:
        raise EdgeError("--max-kl and --max-ppl-increase are for decoders: no other model continues texts")


def export_other(
    model: Other,
    target: Target,
    out: Path,
    recipe: Recipe | None,
    context: int | None,
    float_type: FloatType | None,
    memory_mb: int | None,
    delegate: str | None,
    checks: Checks,
    oracle: OracleRecord,
    progress: Progress,
) -> bundles.Manifest:
    """Round a model, convert it, compare it, and pack the bundle; arguments as :func:`edgesdk.export` has them.

    Raises:
        EdgeError: what is wrong; nothing is left behind then.
    """
    from .compress.others import refuse_recipe, rounded

    kind = _KINDS[type(model)]
    converter = kind_converter(target.converter, kind, model.spec.family)
    chosen = recipe or open_recipe(DEFAULT)
    refuse_recipe(model.spec, chosen)
    usual = model.longest or min(CONTEXT, model.spec.context)
    options = program_options(model, target, chosen, context or usual, float_type, delegate)
    converter.check(model.spec, chosen, options, target)
    plan = converter.plan(model.spec, chosen, options)
    estimate.refuse_unfit(model.spec, plan, options, target, memory_mb)
    with staging(out) as (folder, scratch):
        notes = [*model.origin.notes, *warnings_of(model, plan, target)]
        tell(progress, notes)
        limits = CONVERTERS.get(target.converter).limits(options.delegate)
        compressed, reports = rounded(model, chosen, Setting(scratch, progress, limits))
        program = converter.convert(compressed, options, folder, progress)
        program = replace(program, facts={"kind": kind, **program.facts})
        notes += [note for report in reports for note in report.notes]
        write_texts(compressed, folder)
        if (larger := not_smaller(model, folder, program)) is not None:
            notes.append(larger)
            progress.note(larger)
        measured = _Measured()
        if not checks.skip:
            session = converter.open(folder / program.main, options.context)
            measured = _MEASURES[kind](model, compressed, session, checks, progress)
        reason = SKIPPED if checks.skip else None
        record = manifest_of(
            model, compressed, target, chosen, options, plan, program, reports, measured, reason, tuple(notes)
        )
        sealed = bundles.seal(folder, replace(record, oracle=oracle))
        if out.suffix == ".zip":
            bundles.pack(folder, out)
    remember(sealed)
    return sealed


def _measure_encoder(
    original: EncoderModel, compressed: EncoderModel, session: Any, checks: Checks, progress: Progress
) -> _Measured:
    from .compress.encoders import difference, parity, refuse_wrong

    alike = parity(compressed, session, progress)
    refuse_wrong(alike)
    return _Measured(alike, difference(original, session, *_texts(checks), progress))


def _measure_seq2seq(
    original: Seq2SeqModel, compressed: Seq2SeqModel, session: Any, checks: Checks, progress: Progress
) -> _Measured:
    from .compress.seq2seq import difference, parity, refuse_wrong

    alike = parity(compressed, session, progress)
    refuse_wrong(alike)
    return _Measured(alike, difference(original, session, *_texts(checks), progress))


def _measure_vision(
    original: VisionModel, compressed: VisionModel, session: Any, checks: Checks, progress: Progress
) -> _Measured:
    from .compress.vision import difference, parity, refuse_wrong

    if checks.eval_text is not None:
        raise EdgeError("--eval-text is for models of text alone: images are compared on random ones")
    alike = parity(compressed, session, progress)
    refuse_wrong(alike)
    return _Measured(alike, difference(original, session, progress))


def _texts(checks: Checks) -> tuple[list[str], str]:
    """The texts to compare on, and where they come from."""
    from .compress.encoders import SENTENCES
    from .passages.cutting import read_text

    if checks.eval_text is None:
        return list(SENTENCES), "built-in"
    lines = [line for line in read_text(checks.eval_text).splitlines() if line.strip()]
    if not lines:
        raise EdgeError(f"{checks.eval_text}: no text in it", hint="models of this kind are compared on a file's lines")
    return lines[:_MOST_TEXTS], checks.eval_text.name


_KINDS: Mapping[type, str] = {EncoderModel: ENCODER, Seq2SeqModel: SEQ2SEQ, VisionModel: VISION}
_MEASURES: Mapping[str, Callable[[Any, Any, Any, Checks, Progress], _Measured]] = {
    ENCODER: _measure_encoder,
    SEQ2SEQ: _measure_seq2seq,
    VISION: _measure_vision,
}
