"""Chat templates: Jinja as ``transformers`` runs it (``utils/chat_template_utils.py``, version 5.23)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import ModelError
from .template_runner import RUNNER, Mark, TemplateStuckError

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

#: What a caller may set a template's variable to: no text but a word, so that none becomes a token.
Variable = bool | int | float | str
#: Names under which a message's reasoning is handed over; templates read the first, gpt-oss ``thinking``.
_REASONING = ("reasoning_content", "thinking", "reasoning")
_WAY_OUT = "correct the template in the model's folder (chat_template.jinja), or take it away to export without one"


def render_template(
    source: str,
    messages: Sequence[Mapping[str, object]],
    names: Mapping[str, str],
    *,
    answering: bool,
    marks: Sequence[Mark] = (),
    variables: Mapping[str, Variable] | None = None,
) -> str:
    """A conversation as a chat template writes it.

    Args:
        source: the template.
        messages: one mapping a message; keys that are None are left out, as ``transformers`` does.
        names: named special tokens, each a variable of the template; those that are absent stay undefined.
        answering: whether the assistant's turn is opened at the end.
        marks: tokens for which the template writes marks, so that no message can write them.
        variables: more of the template's own, such as ``enable_thinking``; named tokens and those of this
            function stay as they are.

    Raises:
        TemplateStuckError: the template took too long or too much.
        ModelError: the template is not valid Jinja, or it refuses the conversation.
    """
    values = {
        **{name: value for name, value in (variables or {}).items() if name not in names},
        "messages": [_message(message) for message in messages],
        "tools": None,
        "documents": None,
        "add_generation_prompt": answering,
    }
    try:
        return RUNNER.render(source, values, names, marks)
    except ModelError as failure:
        raise type(failure)(failure.message, hint=_WAY_OUT) from None


def check_template(tokenizer: Tokenizer, *, parts: bool = False) -> list[str]:
    """Render the chat template over a set of conversations, so that it fails here and not at a user's first question.

    Args:
        tokenizer: its template, named tokens and ids.
        parts: whether contents are lists of parts (models that see images), not texts.

    Returns: what the template cannot write although plain questions work, as sentences.

    Raises:
        ModelError: it cannot write a user's question, or writes tokens that the model does not know.
    """
    if tokenizer.chat_template is None:
        return []
    try:
        tokenizer.encode(tokenizer.render(_conversation(parts, "user")))
    except ModelError as failure:
        raise ModelError(
            f"the chat template cannot write a user's question: {failure.message}", hint=failure.hint or _WAY_OUT
        ) from None
    notes = []
    for what, roles, hint in (
        ("a second question", ("user", "assistant", "user"), "each conversation ends after its first answer"),
        ("a system text", ("system", "user"), "put what it would say into the first question"),
    ):
        try:
            tokenizer.encode(tokenizer.render(_conversation(parts, *roles)))
        except TemplateStuckError:
            raise
        except ModelError as failure:
            reason = failure.message.removeprefix("the chat template failed: ")
            notes.append(f"the chat template does not write {what}: {reason} ({hint})")
    return notes


def _conversation(parts: bool, *roles: str) -> list[dict[str, object]]:
    texts = {"system": "Be brief.", "user": "What is the capital of France?", "assistant": "Paris."}
    return [
        {"role": role, "content": [{"type": "text", "text": texts[role]}] if parts else texts[role]} for role in roles
    ]


def _message(message: Mapping[str, object]) -> dict[str, object]:
    """A message without keys that are None; reasoning stands under the names that templates know."""
    kept = {key: value for key, value in message.items() if value is not None}
    reasoning = next((kept[name] for name in _REASONING if name in kept), None)
    return kept if reasoning is None else {"thinking": reasoning, **kept, "reasoning_content": reasoning}
