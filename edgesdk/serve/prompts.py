"""What an answer follows: a conversation, a text, or tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..errors import EdgeError, ModelError
from ..model.template_runner import TemplateStuckError

if TYPE_CHECKING:
    from ..model.chat_template import Variable
    from ..model.tokenizer import Message, Tokenizer


class PromptError(EdgeError):
    """A prompt is none for this model; ``param`` is the parameter, ``code`` OpenAI's word for it where it has one."""

    def __init__(self, param: str, message: str, code: str | None = None) -> None:
        super().__init__(f"{param}: {message}")
        self.param, self.code = param, code


class Prompt(Protocol):
    """What an answer follows."""

    @property
    def param(self) -> str:
        """The parameter of the request that it came in."""

    @property
    def size(self) -> int:
        """Characters, or tokens where they are known."""

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        """Its tokens.

        Raises:
            PromptError: it makes none for this model.
        """


@dataclass(frozen=True)
class Conversation:
    """Messages, written by the chat template; special tokens in them are plain text."""

    messages: Sequence[Message]
    variables: Mapping[str, Variable] = field(default_factory=dict)
    param: str = "messages"

    @property
    def size(self) -> int:
        return sum(len(message["content"]) for message in self.messages)

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        try:
            return tokenizer.chat(self.messages, self.variables)
        except TemplateStuckError:
            raise
        except ModelError as failure:
            raise PromptError(self.param, failure.message) from None


@dataclass(frozen=True)
class PlainText:
    """A text to go on with, behind the tokenizer's prefix; special tokens in it count, for it is the whole prompt."""

    text: str
    param: str = "prompt"
    prefix: bool = True

    @property
    def size(self) -> int:
        return len(self.text)

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        try:
            return tokenizer.encode(self.text, prefix=self.prefix)
        except ModelError as failure:
            raise PromptError(self.param, failure.message) from None


@dataclass(frozen=True)
class Tokens:
    """Tokens as the client has them."""

    given: Sequence[int]
    param: str = "prompt"

    @property
    def size(self) -> int:
        return len(self.given)

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        if wrong := [index for index in self.given if not 0 <= index < tokenizer.size]:
            raise PromptError(self.param, f"there is no token {wrong[0]}: ids are 0 to {tokenizer.size - 1}")
        return list(self.given)
