"""Ids and conversations: edgesdk's tokenizer against the one that transformers builds from the same folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..model.template_runner import TemplateStuckError
from ..quality.tokens import TEXTS
from .networks import quiet, source_of

if TYPE_CHECKING:
    from ..model import Model, Tokenizer

REPORT = "please report it, with the checkpoint's small files; export and compress go on with --oracle off"
Conversation = Sequence[Mapping[str, str]]
_ASK, _ANSWER, _SYSTEM = (
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "system", "content": "Be brief.\nUse metric units."},
)
CONVERSATIONS: tuple[Conversation, ...] = (
    (_ASK,),
    (_SYSTEM, _ASK),
    (_ASK, _ANSWER, {"role": "user", "content": " And of \u65e5\u672c?\n"}),
    (_SYSTEM, _ASK, _ANSWER, {"role": "user", "content": "```python\nprint('{{ x }}')\n```"}),
    (_ASK, _ANSWER),
)


def compare_texts(model: Model, oracle: str) -> tuple[int | None, int | None, str | None]:
    """How many texts get the same ids and how many conversations the same text; and what was not compared, and why.

    Raises:
        ModelError: the first text or conversation that transformers writes otherwise.
    """
    if model.tokenizer is None:
        return None, None, "no tokenizer"
    source = source_of(model)
    if source.is_file():
        return None, None, "a GGUF file's tokenizer is not compared"
    with quiet():
        published = _published(source)
        if published is None:
            return None, None, "transformers does not load the tokenizer"
        for text in TEXTS:
            try:
                plain, whole = _published_ids(published, text)
            except Exception as failure:  # it was built of files that its class does not fit
                return None, None, f"transformers' tokenizer fails ({type(failure).__name__})"
            _compare_ids(model.tokenizer, plain, whole, text, oracle)
        if model.tokenizer.chat_template is None:
            return len(TEXTS), None, None
        for conversation in CONVERSATIONS:
            _compare_rendering(model.tokenizer, published, conversation, oracle)
    return len(TEXTS), len(CONVERSATIONS), None


def _published(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # whatever a tokenizer's class raises over files that it does not expect
        return None


def _published_ids(published: Any, text: str) -> tuple[list[int], list[int]]:
    """Ids without special tokens, and with them."""
    return list(published(text, add_special_tokens=False)["input_ids"]), list(published(text)["input_ids"])


def _compare_ids(tokenizer: Tokenizer, plain: list[int], whole: list[int], text: str, oracle: str) -> None:
    found = tokenizer.encode(text), tokenizer.encode(text, prefix=True)
    if found[0] != plain or found[1] != whole[: len(found[1])]:
        ours, theirs = (found[0], plain) if found[0] != plain else (found[1], whole)
        at = next((index for index, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0)
        raise ModelError(
            f"edgesdk gives the text {text[:40]!r} other ids than {oracle}: from number {at} on, {ours[at : at + 4]} "
            f"instead of {theirs[at : at + 4]}",
            hint=REPORT,
        )


def _compare_rendering(tokenizer: Tokenizer, published: Any, conversation: Conversation, oracle: str) -> None:
    answering = conversation[-1]["role"] == "user"
    try:
        found = tokenizer.render(conversation, answering=answering)
    except TemplateStuckError:  # transformers would not come to an end with it
        raise
    except ModelError:
        found = None
    try:
        wanted = published.apply_chat_template(
            [dict(message) for message in conversation], tokenize=False, add_generation_prompt=answering
        )
    except Exception:  # a template may raise anything that its expressions can
        wanted = None
    if found != wanted:
        roles = ", ".join(message["role"] for message in conversation)
        raise ModelError(
            f"edgesdk writes a conversation ({roles}) otherwise than {oracle}: {_short(found)} instead of "
            f"{_short(wanted)}",
            hint=REPORT,
        )


def _short(text: str | None) -> str:
    return "a refusal" if text is None else repr(text if len(text) <= 120 else f"{text[:117]}...")
