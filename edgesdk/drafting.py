"""A draft model in a bundle: a second program for the same tokens, what it is worth, and a session that uses it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .bundle.manifest import DraftRecord, Manifest
from .compress.recipe import choose_recipe, open_recipe
from .converter import open_program
from .errors import EdgeError, ModelError, TargetError
from .generation import Statistics, generate
from .progress import track
from .speculative import DraftStatistics, ModelDrafter, PromptLookup, SpeculativeSession, find_steps

if TYPE_CHECKING:
    from .bundle import Bundle
    from .compress.recipe import Recipe
    from .converter import Converter, MemoryPlan, ProgramOptions
    from .model import Model, Tokenizer
    from .progress import Progress
    from .session import Session
    from .targets import Target

#: What drafts: ``auto`` the bundle's own draft model, if it has one; ``lookup`` the text so far; ``off`` nothing.
Drafting = Literal["auto", "lookup", "off"]
FOLDER = "draft"
_PROGRAMS = ("model.", "licences")  # what of a bundle the draft needs beside the target's own texts
_HINT = "take a smaller model of the same family, or shorten this one (edgesdk compress MODEL -r w4g32-depth50)"


@dataclass(frozen=True)
class DraftWorth:
    """What a draft did on the built-in prompts, greedily, on the machine that exported.

    Attributes:
        prompts: that were answered.
        tokens: of all answers.
        steps: of the target for them.
        drafted: tokens that were proposed and decided on.
        accepted: those that were taken.
        width: of the target's steps there.
        aligned: whether these are blocks at multiples of the width.
        exact: the answers do not depend on the draft: its kernels give a token the same bits whatever is drafted.
        as_token_by_token: how many of the answers are those of decoding token by token.
    """

    prompts: int
    tokens: int
    steps: int
    drafted: int
    accepted: int
    width: int
    aligned: bool
    exact: bool
    as_token_by_token: int


def open_draft(
    draft: str | Path | Model | None, model: Model, converter: Converter, target: Target, progress: Progress
) -> Model | None:
    """The draft model, which must have the tokens of the model and a runtime that checks several in one step.

    Raises:
        EdgeError: why it cannot draft for it.
    """
    if draft is None:
        return None
    on_device = converter.on_device
    if on_device is None or not on_device.drafts:
        raise TargetError(
            f"programs for {target.name} take one token a step, so checking drafted ones would save nothing",
            hint="export without --draft, or choose an ONNX Runtime or ExecuTorch target",
        )
    from .model.opening import open_model

    opened = open_model(draft, progress) if isinstance(draft, (str, Path)) else draft
    refuse_tokenizers(model.tokenizer, opened.tokenizer)
    return opened


def refuse_tokenizers(target: Tokenizer | None, draft: Tokenizer | None) -> None:
    """Stop where two models do not write text with the same tokens.

    Raises:
        ModelError: the first difference.
    """
    if target is None or draft is None:
        raise ModelError("a draft needs a model and a draft model with a tokenizer each", hint=_HINT)
    ours, theirs = (each.backend.get_vocab(with_added_tokens=True) for each in (target, draft))
    if ours != theirs:
        token = min(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        raise ModelError(
            f"the draft model has other tokens: {token!r} is {ours.get(token, 'no token')} in the model and "
            f"{theirs.get(token, 'no token')} in the draft",
            hint=_HINT,
        )
    if set(target.special.stop) != set(draft.special.stop):
        raise ModelError(
            f"the draft model stops at other tokens: {sorted(draft.special.stop)}, not {sorted(target.special.stop)}",
            hint=_HINT,
        )


def draft_plan(
    draft: Model | None, recipe: str | Recipe | None, converter: Converter, target: Target, options: ProgramOptions
) -> MemoryPlan | None:
    """What a draft needs on the device, with the choices of the program that it goes with.

    Raises:
        EdgeError: the recipe is not one, or not for this target.
    """
    if draft is None:
        return None
    chosen = choose_recipe(draft, open_recipe(recipe, target.recipes) if isinstance(recipe, str) else recipe)
    context = min(options.context, draft.spec.context)
    own = replace(
        options, context=context, activations=chosen.activations or target.activations, kv_bits=chosen.kv_bits
    )
    converter.check(chosen.spec(draft.spec), chosen, own, target)
    return converter.plan(chosen.spec(draft.spec), chosen, own)


def take_in(made: Path, manifest: Manifest, folder: Path) -> DraftRecord:
    """Move the program of a draft's own bundle into the target's folder; what the manifest says of it."""
    into = folder / FOLDER
    into.mkdir()
    for path in sorted(made.iterdir()):
        if path.name.startswith(_PROGRAMS):
            shutil.move(path, into / path.name)
    program = manifest.program
    described = {
        "converter": program.converter,
        "main": f"{FOLDER}/{program.main}",
        "float_type": program.float_type,
        "facts": program.facts,
    }
    return DraftRecord(manifest.model, manifest.recipe, described, manifest.context, manifest.memory, manifest.notes)


def measure(
    target: Callable[[], Session], draft: Callable[[], Session], tokenizer: Tokenizer, progress: Progress
) -> DraftWorth:
    """What a draft is worth on the built-in prompts."""
    from .passages.prompts import question_ids
    from .quality.answers import PROMPTS, TOKENS

    plain = target()
    steps = find_steps(plain)
    session = SpeculativeSession(target(), ModelDrafter(draft()), steps)
    tokens = same = 0
    for prompt in track(progress, "Measuring the draft", PROMPTS):
        ids = question_ids(tokenizer, prompt)[: session.context // 2]
        answers = [_answer(each, tokenizer, ids, min(TOKENS, session.context - len(ids))) for each in (session, plain)]
        tokens, same = tokens + len(answers[0]), same + (answers[0] == answers[1])
    found: DraftStatistics = session.statistics
    return DraftWorth(
        len(PROMPTS),
        tokens,
        found.steps,
        found.drafted,
        found.accepted,
        steps.width,
        steps.aligned,
        steps.exact,
        same,
    )


def _answer(session: Session, tokenizer: Tokenizer, ids: list[int], most: int) -> list[int]:
    session.reset()
    statistics = Statistics()
    for _ in generate(session, tokenizer, ids, max_tokens=most, statistics=statistics):
        pass
    return statistics.tokens


def with_drafting(bundle: Bundle, session: Session, drafting: Drafting, threads: int | None) -> Session:
    """The session, or one over it that drafts.

    Raises:
        EdgeError: the bundle's draft cannot be opened.
    """
    from .converter import CONVERTERS

    record = bundle.manifest.draft
    if drafting == "lookup":
        return SpeculativeSession(session, PromptLookup())
    if drafting == "off" or record is None:
        return session
    converter = CONVERTERS.get(bundle.manifest.program.converter)
    try:
        draft = open_program(converter, bundle.folder / record.main, record.context, threads)
    except EdgeError as failure:
        raise EdgeError(f"the bundle's draft: {failure.message}", hint=failure.hint or "run with --draft off") from None
    return SpeculativeSession(session, ModelDrafter(draft))
