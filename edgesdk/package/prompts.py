"""A chat template taken apart into fixed strings, for apps that have no Jinja: ``chat.json`` beside the program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..bundle import Bundle
from ..chat import bundle_tokenizer
from ..errors import ModelError
from ..model.tokenizer import Message, Tokenizer
from ..schema import dump
from .base import PackageError

FILE = "chat.json"
SCHEMA = 1
_SYSTEM, _FIRST, _SAID, _SECOND, _MORE = "QsysQ", "QfirstQ", "QsaidQ", "QsecondQ", "QmoreQ"
_PADDED = " Qpadded\nQ "


@dataclass(frozen=True)
class ChatFormat:
    """How an app writes a conversation, as the bundle's chat template does.

    A conversation is ``start`` or ``system_start`` + system text + ``system_end``, then for each turn the user's text +
    ``answer`` (which opens the assistant's turn), and between turns the answer + ``next``.

    Attributes:
        schema: version of this form.
        templated: False where the bundle has no chat template: each prompt is plain text after ``start``, and the other
            strings are empty.
        start: before the first user's text where there is no system text.
        system_start: before the system text; None where the template takes none.
        system_end: between the system text and the first user's text; None likewise.
        answer: after each user's text.
        next: between an answer and the next user's text.
        trims: whether white space around each text is removed.
        bos_tokens: how many beginning-of-sequence tokens the runtime adds in front of a plain prompt.
        added_tokens: most tokens that the tokenizer makes of a text beyond its bytes in UTF-8, such as a space in
            front: with it an app knows how many tokens a prompt has at most.
        stop: texts of the tokens that end an answer; some runtimes print them.
    """

    schema: int
    templated: bool
    start: str
    system_start: str | None
    system_end: str | None
    answer: str
    next: str
    trims: bool
    bos_tokens: int
    added_tokens: int
    stop: tuple[str, ...]

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation that ends with a user's text, ready for the assistant's answer."""
        texts = [message["content"].strip() if self.trims else message["content"] for message in messages]
        if messages[0]["role"] == "system":
            opening = f"{self.system_start}{texts.pop(0)}{self.system_end}"
        else:
            opening = self.start
        turns = [text + (self.answer if index % 2 == 0 else self.next) for index, text in enumerate(texts)]
        return opening + "".join(turns)

    def text(self) -> str:
        """The content of ``chat.json``."""
        return json.dumps(dump(self), indent=1, ensure_ascii=False) + "\n"


def chat_format(bundle: Bundle) -> ChatFormat:
    """The chat format of a bundle.

    Raises:
        EdgeError: its template writes conversations in a way that fixed strings cannot, there is no tokenizer, or
            an app cannot put in front of plain text what the model wants there.
    """
    tokenizer = bundle_tokenizer(bundle)
    stop = tuple(tokenizer.token(index) for index in tokenizer.special.stop)
    if tokenizer.chat_template is None:
        start, bos_tokens = tokenizer.written_prefix()
        return ChatFormat(SCHEMA, False, start, None, None, "", "", False, bos_tokens, _added(tokenizer), stop)
    found = _taken_apart(tokenizer, stop)
    for messages in _conversations(with_system=found.system_start is not None):
        if found.render(messages) != tokenizer.render(messages):
            raise _unfit(f"it writes {len(messages)} messages in another way than fewer")
    return found


def _taken_apart(tokenizer: Tokenizer, stop: tuple[str, ...]) -> ChatFormat:
    whole = tokenizer.render(_turns(_FIRST, _SAID, _SECOND))
    start, answer, following = _between(whole, _FIRST, _SAID)
    between, last = _between(following, _SECOND)
    if last != answer:
        raise _unfit("it opens the answer that is asked for in another way than those before")
    system_start = system_end = None
    system = _system(tokenizer)
    if system is not None:
        system_start, system_end, last = _between(system, _SYSTEM, _FIRST)
        if last != answer:
            raise _unfit("a system text changes how it opens an answer")
    trims = tokenizer.render(_turns(_PADDED)) == start + _PADDED.strip() + answer
    added = _added(tokenizer)
    return ChatFormat(SCHEMA, True, start, system_start, system_end, answer, between, trims, 0, added, stop)


def _added(tokenizer: Tokenizer) -> int:
    """Tokens of a text beyond its bytes, as single letters show them: nothing in them can make up for one."""
    return max(len(tokenizer.encode(letter)) - 1 for letter in map(chr, range(33, 127)))


def _system(tokenizer: Tokenizer) -> str | None:
    """A conversation with a system text; None where the template refuses one or leaves it out."""
    try:
        text = tokenizer.render([{"role": "system", "content": _SYSTEM}, *_turns(_FIRST)])
    except ModelError:
        return None
    return text if _SYSTEM in text else None


def _turns(*texts: str) -> list[Message]:
    roles = ("user", "assistant")
    return [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]


def _conversations(*, with_system: bool) -> list[list[Message]]:
    plain = [
        _turns(_FIRST),
        _turns(_PADDED, _PADDED, _SECOND),
        _turns(_FIRST, _SAID, _SECOND, _SAID, _MORE),
        _turns('a "quoted" {{ text }}\nof two lines', "ü\t<b>", "日本"),
    ]
    system: Message = {"role": "system", "content": _SYSTEM}
    return [*plain, *([system, *messages] for messages in plain if with_system)]


def _between(text: str, *marks: str) -> list[str]:
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            raise _unfit("a message does not stand in it once, as it is")
        parts.append(before)
    return [*parts, text]


def _unfit(why: str) -> PackageError:
    return PackageError(
        f"the bundle's chat template cannot be written as fixed strings: {why}",
        hint="an app has no Jinja: export the model with a plainer chat_template.jinja",
    )
