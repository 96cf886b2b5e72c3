"""Chat templates: Jinja as ``transformers`` runs it (``utils/chat_template_utils.py``, version 5.23)."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import ModelError

if TYPE_CHECKING:
    import jinja2

    from .tokenizer import Tokenizer

#: Names under which a message's reasoning is handed over; templates read the first, gpt-oss ``thinking``.
_REASONING = ("reasoning_content", "thinking", "reasoning")
_WAY_OUT = "correct the template in the model's folder (chat_template.jinja), or take it away to export without one"


def render_template(
    source: str, messages: Sequence[Mapping[str, object]], names: Mapping[str, str], *, answering: bool
) -> str:
    """A conversation as a chat template writes it.

    Args:
        source: the template.
        messages: one mapping a message; keys that are None are left out, as ``transformers`` does.
        names: named special tokens, each a variable of the template; those that are absent stay undefined.
        answering: whether the assistant's turn is opened at the end.

    Raises:
        ModelError: the template is not valid Jinja, or it refuses the conversation.
    """
    try:
        return _compiled(source).render(
            {
                **names,
                "messages": [_message(message) for message in messages],
                "tools": None,
                "documents": None,
                "add_generation_prompt": answering,
            }
        )
    except Exception as failure:  # a template may raise anything that its expressions can
        raise ModelError(f"the chat template failed: {failure}", hint=_WAY_OUT) from None


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


@lru_cache(maxsize=8)
def _compiled(source: str) -> jinja2.Template:
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks the assistant's own text for training; the text is written as it stands."""

        tags = {"generation"}  # noqa: RUF012 - the attribute that Jinja reads

        def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

        def _written(self, caller: Any) -> str:
            return str(caller())

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_refuse, strftime_now=_now)
    return environment.from_string(source)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's filter of this name escapes HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
