"""An encoder in, a verified bundle out: the counterpart of :mod:`.exporting` for models that read a text at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import bundle as bundles
from . import estimate
from .compress.base import Setting
from .compress.calibration import Calibration
from .compress.recipe import Recipe, open_recipe
from .converter import CONVERTERS, encoder_converter
from .errors import EdgeError, QualityError
from .exporting import SKIPPED, Checks, manifest_of, not_smaller, staging, tell
from .linting import warnings_of
from .options import program_options
from .progress import Progress
from .texts import write_texts

if TYPE_CHECKING:
    from .compress.encoders import TextDifference, TextParity
    from .model.encoders.model import EncoderModel
    from .session import EncoderSession
    from .targets import FloatType, Target

DEFAULT = "w8"  # small encoders lose more with four bits than they save
_LEAST_COSINE = 0.8  # int8 activations stay above 0.99, a wrong graph is near 0
_MOST_TEXTS = 200


@dataclass(frozen=True)
class _Measured:
    """What was measured; everything is None when the user skipped it."""

    parity: tuple[TextParity, ...] | None = None
    divergence: TextDifference | None = None
    perplexity: None = None


def refuse_choices(checks: Checks, size: str | None, calibration: Calibration | None) -> None:
    """Stop where an export asks for what decoders alone have.

    Raises:
        EdgeError: which choice.
    """
    if size is not None or (calibration is not None and calibration != Calibration()):
        raise EdgeError("--size and --calibration are for decoders: other models are rounded to nearest")
    if checks.max_kl is not None or checks.max_ppl_increase is not None:
        raise EdgeError("--max-kl and --max-ppl-increase are for decoders: no other model continues texts")


def export_encoder(
    model: EncoderModel,
    target: Target,
    out: Path,
    recipe: Recipe | None,
    context: int | None,
    float_type: FloatType | None,
    memory_mb: int | None,
    delegate: str | None,
    checks: Checks,
    progress: Progress,
) -> bundles.Manifest:
    """Round an encoder, convert it, compare it, and pack the bundle; arguments as :func:`edgesdk.export` has them.

    Raises:
        EdgeError: what is wrong; nothing is left behind then.
    """
    from .compress.encoders import refuse_recipe, rounded

    converter = encoder_converter(target.converter, model.spec.family)
    chosen = recipe or open_recipe(DEFAULT)
    refuse_recipe(model.spec, chosen)
    options = program_options(model, target, chosen, context or model.longest, float_type, delegate)
    converter.check(model.spec, chosen, options, target)
    plan = converter.plan(model.spec, chosen, options)
    estimate.refuse_unfit(model.spec, plan, options, target, memory_mb)
    with staging(out) as (folder, scratch):
        notes = warnings_of(model, plan, target)
        tell(progress, notes)
        limits = CONVERTERS.get(target.converter).limits(options.delegate)
        compressed, reports = rounded(model, chosen, Setting(scratch, progress, limits))
        program = converter.convert(compressed, options, folder, progress)
        program = replace(program, facts={"kind": bundles.ENCODER, **program.facts})
        notes += [note for report in reports for note in report.notes]
        write_texts(compressed, folder)
        if (larger := not_smaller(model, folder, program)) is not None:
            notes.append(larger)
            progress.note(larger)
        measured = _Measured()
        if not checks.skip:
            session = converter.open(folder / program.main, options.context)
            measured = _measure(model, compressed, session, checks, progress)
        reason = SKIPPED if checks.skip else None
        record = manifest_of(
            model, compressed, target, chosen, options, plan, program, reports, measured, reason, tuple(notes)
        )
        sealed = bundles.seal(folder, record)
        if out.suffix == ".zip":
            bundles.pack(folder, out)
    return sealed


def _measure(
    original: EncoderModel, compressed: EncoderModel, session: EncoderSession, checks: Checks, progress: Progress
) -> _Measured:
    from .compress.encoders import SENTENCES, difference, parity
    from .compress.quality import read_text

    texts, where = list(SENTENCES), "built-in"
    if checks.eval_text is not None:
        lines = read_text(checks.eval_text).splitlines()
        texts, where = [line for line in lines if line.strip()][:_MOST_TEXTS], checks.eval_text.name
        if not texts:
            raise EdgeError(f"{checks.eval_text}: no text in it", hint="an encoder is compared on a file's lines")
    alike = parity(compressed, session, progress)
    for row in alike:
        if row.cosine < _LEAST_COSINE:
            raise QualityError(
                f"the program does not compute what the model says: its answer to {row.tokens} tokens has a cosine "
                f"similarity of {row.cosine:g} to the reference's",
                hint="try float activations (add -a32 to the recipe's name); if that does not help, report it",
            )
    return _Measured(alike, difference(original, session, texts, where, progress))
