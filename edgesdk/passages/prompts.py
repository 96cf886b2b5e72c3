"""What a chat model is asked to write text of its own, and how a question reaches any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import TYPE_CHECKING

from ..schema import load
from ..toml import toml_tables

if TYPE_CHECKING:
    from ..model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """A question to a chat model.

    Attributes:
        language: its language, as ISO 639-1 has it.
        text: the question.
    """

    language: str
    text: str


@cache
def prompts() -> tuple[Prompt, ...]:
    """The built-in questions, one of each domain in turns."""
    data = toml_tables(files(__package__).joinpath("prompts.toml").read_text(encoding="utf-8"))
    domains = [[load(Prompt, entry, f"prompts.toml, {name}") for entry in data[name]] for name in data]
    return tuple(chain.from_iterable(zip(*domains, strict=True)))


def question_ids(tokenizer: Tokenizer, question: str) -> list[int]:
    """A question as a user's message in the chat template; without a template as plain text behind the prefix.

    Raises:
        ModelError: the template refuses it.
    """
    if tokenizer.chat_template is None:
        return tokenizer.encode(question, prefix=True)
    return tokenizer.chat([{"role": "user", "content": question}])


def asked(tokenizer: Tokenizer, most: int) -> Sequence[list[int]]:
    """The built-in questions in the chat template, those of at most ``most`` tokens; none without a template.

    Raises:
        ModelError: the template refuses one.
    """
    if tokenizer.chat_template is None:
        return ()
    return [ids for prompt in prompts() if 0 < len(ids := question_ids(tokenizer, prompt.text)) <= most]
