"""What stands between a model and a target, found before any work: all of it at once, not the first error alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from . import estimate
from .compress.recipe import Recipe, choose_recipe, open_recipe
from .converter import CONVERTERS
from .errors import EdgeError, UnbuiltError
from .model import Model
from .model.chat_template import check_template
from .model.opening import open_model
from .model.vision.model import VisionModel
from .options import program_options
from .oracle import Choice, consult
from .progress import SILENT, Progress
from .targets import FloatType, Target, open_target

if TYPE_CHECKING:
    from .converter import MemoryPlan
    from .model import Tokenizer
    from .model.opening import AnyModel


@dataclass(frozen=True)
class Remark:
    """One finding.

    Attributes:
        level: ``error`` stops an export, ``warning`` may hurt on the device, ``note`` is good to know.
        about: ``program``, ``memory``, ``delivery``, ``tokenizer``, ``checkpoint`` or ``oracle``.
        text: what was found.
        way_out: what to do about it, or None.
    """

    level: Literal["error", "warning", "note"]
    about: str
    text: str
    way_out: str | None = None


def lint(
    model: str | Path | Model,
    target: str | None = None,
    *,
    recipe: str | Recipe | None = None,
    context: int | None = None,
    float_type: FloatType | None = None,
    memory_mb: int | None = None,
    delegate: str | None = None,
    prefix_space: bool | None = None,
    oracle: Choice = "off",
    progress: Progress = SILENT,
) -> list[Remark]:
    """Check a model, against a target too, without building anything; arguments as in :func:`edgesdk.export`.

    Without a ``target``, only what the checkpoint itself says is looked at.

    Raises:
        EdgeError: the model, the target or the recipe itself cannot be read.
    """
    described = None if target is None else open_target(target)
    presets = described.recipes if described else None
    wanted = open_recipe(recipe, presets) if isinstance(recipe, str) else recipe
    opened = open_model(model, progress, prefix_space=prefix_space) if isinstance(model, (str, Path)) else model
    remarks = list(_checkpoint(opened, oracle, progress))
    if described is not None:
        chosen = choose_recipe(opened, wanted)
        remarks += _on_target(opened, described, chosen, context, float_type, delegate, memory_mb)
    if opened.tokenizer is not None:
        remarks += _stops(opened.tokenizer)
        try:
            refuse_tokenizer(opened.tokenizer, described)
            remarks += [*_files(opened.tokenizer), *_suffix(opened.tokenizer)]
        except EdgeError as failure:
            remarks.append(_error("tokenizer", failure))
    return sorted(remarks, key=lambda remark: ("error", "warning", "note").index(remark.level))


def _checkpoint(model: Model, oracle: Choice, progress: Progress) -> Iterator[Remark]:
    """What reading the checkpoint passed over, and what transformers says of it."""
    for note in model.origin.notes:
        yield Remark("note", "checkpoint", note)
    if oracle != "off":
        try:
            yield Remark("note", "oracle", consult(model, oracle, progress).words())
        except EdgeError as failure:
            yield _error("oracle", failure)


def _on_target(
    model: Model,
    target: Target,
    recipe: Recipe,
    context: int | None,
    float_type: FloatType | None,
    delegate: str | None,
    memory_mb: int | None,
) -> list[Remark]:
    """What stands between a model and a target."""
    converter = CONVERTERS.get(target.converter)
    try:
        options = program_options(model, target, recipe, context, float_type, delegate)
    except EdgeError as failure:
        return [_error("program", failure)]
    spec = recipe.spec(model.spec)
    remarks = [] if model.tokenizer is None else list(_tokenizer(model.tokenizer, target))
    try:
        converter.check(spec, recipe, options, target)
    except EdgeError as failure:
        remarks.append(_error("program", failure))
        if isinstance(failure, UnbuiltError):
            return remarks
    plan = converter.plan(spec, recipe, options)
    try:
        estimate.refuse_unfit(spec, plan, options, target, memory_mb)
    except EdgeError as failure:
        remarks.append(_error("memory", failure))
    remarks += [Remark("note", "program", text) for text in converter.remarks(spec, options)]
    return [*remarks, *_memory(plan), *_delivery(plan, target)]


@runtime_checkable
class ProgramLinter(Protocol):
    """A converter that can also read finished programs, whoever made them."""

    def violations(self, program: Path) -> Iterable[EdgeError]:
        """Everything that its runtime would refuse, or compute wrongly.

        Raises:
            EdgeError: the file cannot be read.
        """


@runtime_checkable
class ReadsTokenizers(Protocol):
    """A converter whose runtime brings a tokenizer of its own."""

    def refused_tokenizer(self, definition: str) -> str | None:
        """Why it does not read a ``tokenizer.json``, given as text; None where it does."""


def lint_program(program: str | Path, target: str) -> list[Remark]:
    """Check a finished program, such as a ``.tflite`` file that another tool wrote, against a target.

    Raises:
        EdgeError: the program or the target cannot be read, or the target's converter reads no programs.
    """
    described, path = open_target(target), Path(program)
    converter = CONVERTERS.get(described.converter)
    if not isinstance(converter, ProgramLinter):
        raise EdgeError(
            f"target {target} cannot check finished programs: give the model",
            hint="cortex-m targets check .tflite files",
        )
    if not path.is_file():
        raise EdgeError(f"{path}: no such file")
    found = [_error("program", violation) for violation in converter.violations(path)]
    return found or [Remark("note", "program", f"{path.name}: nothing stands in its way")]


def refuse_tokenizer(tokenizer: Tokenizer, target: Target | None) -> None:
    """Stop before any work when a chat template cannot write a question, or a microcontroller cannot run a tokenizer.

    Raises:
        EdgeError: what it cannot do.
    """
    check_template(tokenizer)
    if target is not None and target.cores:
        from .fit import board_converter

        board_converter(target).tokenizer_bytes(tokenizer)


def warnings_of(model: AnyModel, plan: MemoryPlan, target: Target) -> list[str]:
    """What an export should say although it goes on.

    Raises:
        EdgeError: the chat template cannot write a question.
    """
    found = list(_delivery(plan, target))
    if model.tokenizer is not None:
        found += _files(model.tokenizer, parts=isinstance(model, VisionModel))
        found += _suffix(model.tokenizer) if isinstance(model, Model) else ()
        found += _tokenizer(model.tokenizer, target)
    warnings = [remark for remark in found if remark.level == "warning"]
    return [f"{remark.text} ({remark.way_out})" if remark.way_out else remark.text for remark in warnings]


def _error(about: str, failure: EdgeError) -> Remark:
    return Remark("error", about, failure.message, failure.hint)


def _memory(plan: MemoryPlan) -> Iterator[Remark]:
    yield Remark(
        "note",
        "memory",
        f"about {estimate.megabytes(plan.peak)} on the device: weights {estimate.megabytes(plan.weights)}, KV cache "
        f"{estimate.megabytes(plan.kv_cache)}, activations {estimate.megabytes(plan.activations)}, runtime "
        f"{estimate.megabytes(plan.runtime)} (estimate)",
    )


def _delivery(plan: MemoryPlan, target: Target) -> Iterator[Remark]:
    """Which ways to users take a program of this size."""
    for way in target.delivery:
        fits = plan.program <= way.max_mb * 1_000_000
        size = estimate.megabytes(plan.program)
        yield Remark(
            "note" if fits else "warning",
            "delivery",
            f"about {size} {'fits' if fits else 'does not fit'} {way.way} ({way.max_mb} MB)",
            None if fits else "deliver it in one of the other ways, or choose a smaller recipe",
        )


def _files(tokenizer: Tokenizer, *, parts: bool = False) -> Iterator[Remark]:
    """What the checkpoint's files leave open, and what the chat template does not write."""
    for note in (*tokenizer.notes, *check_template(tokenizer, parts=parts)):
        yield Remark("warning", "tokenizer", note)


def _suffix(tokenizer: Tokenizer) -> Iterator[Remark]:
    """What other readers of the definition put behind a text that an answer is to continue."""
    ends = "".join(map(tokenizer.token, tokenizer.added[1]))
    if ends:
        yield Remark(
            "warning",
            "tokenizer",
            f"the tokenizer's post-processor writes {ends} behind each text, so that an answer could not continue it; "
            "edgesdk leaves it out, other readers of tokenizer.json do not",
            "an app of your own has to encode prompts without special tokens, or to take the end off",
        )


def _stops(tokenizer: Tokenizer) -> Iterator[Remark]:
    """Which tokens end an answer, and what says so."""
    sources = tokenizer.stop_sources
    ends = [f"{tokenizer.token(index)} ({index}: {source})" for index, source in sources.items()]
    if ends:
        yield Remark("note", "tokenizer", f"an answer ends at {', '.join(ends)}")


def _tokenizer(tokenizer: Tokenizer, target: Target) -> Iterator[Remark]:
    if target.runtime.name != "executorch":
        return
    yield from _prefix(tokenizer)
    converter = CONVERTERS.get(target.converter)
    reason = converter.refused_tokenizer(tokenizer.definition) if isinstance(converter, ReadsTokenizers) else None
    if reason is not None:
        yield Remark(
            "warning",
            "tokenizer",
            f"ExecuTorch's own tokenizer does not read this one: {reason}",
            "its text runner, and apps that edgesdk package makes, cannot use it; an app with a tokenizer of its own "
            "can run the program",
        )
    found = sorted(set(_lookarounds(json.loads(tokenizer.definition).get("pre_tokenizer"))))
    for pattern in found:
        yield Remark(
            "warning",
            "tokenizer",
            f"the tokenizer's pattern {pattern} looks ahead or behind, which RE2 in a plain ExecuTorch build refuses",
            "use the published Android and iOS packages, or build with -DSUPPORT_REGEX_LOOKAHEAD=ON",
        )


def _prefix(tokenizer: Tokenizer) -> Iterator[Remark]:
    """ExecuTorch's tokenizer adds special tokens by the definition's post-processor, and by nothing else."""
    try:
        start, _ = tokenizer.written_prefix()
    except EdgeError as failure:
        yield Remark("warning", "tokenizer", failure.message, failure.hint)
        return
    if start:
        yield Remark(
            "warning",
            "tokenizer",
            f"plain text begins with {start}, and no post-processor of the tokenizer adds it, so ExecuTorch does not",
            f"what edgesdk package writes does; an app of your own has to write {start} in front of each plain prompt",
        )


def _lookarounds(step: Any) -> Iterator[str]:
    """Patterns of a pre-tokenizer that RE2 cannot run."""
    if not isinstance(step, dict):
        return
    for inner in step.get("pretokenizers", ()):
        yield from _lookarounds(inner)
    if step.get("type") == "ByteLevel" and step.get("use_regex", True):
        yield r"\s+(?!\S)"  # part of the pattern that byte-level tokenizers imply
    pattern = step.get("pattern")
    text = pattern.get("Regex", "") if isinstance(pattern, dict) else ""
    if any(mark in text for mark in ("(?!", "(?=", "(?<!", "(?<=")):
        yield text if len(text) < 60 else text[:57] + "..."
