"""Text that users give, cut into what a model reads: windows to score, and rows of equal length to calibrate on.

Wherever a text is cut, what comes next stands behind the tokenizer's prefix again: a model that was trained with a BOS
in front of every text is out of its depth without it (Gemma 3 270M: perplexity 85 instead of 22; EleutherAI's
lm-evaluation-harness, pull request 2049).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ..documents import parse_json
from ..errors import EdgeError, ModelError
from .passage import Passage

if TYPE_CHECKING:
    from pathlib import Path

    from ..model.tokenizer import Tokenizer

WINDOW = 512  # tokens of a text that are scored together
DOCUMENT_END = "<|endoftext|>"
_LINES = 256  # of a file that are tokenized together
_CHATS = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Part:
    """A piece of a document.

    Attributes:
        text: as it stands there, or as the chat template writes a conversation.
        begins: whether a document begins with it; otherwise it goes on with the one before.
        templated: whether a chat template wrote it, which brings its own BOS.
    """

    text: str
    begins: bool
    templated: bool = False


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ModelError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as failure:
        raise ModelError(f"{path}: {failure.strerror}") from None
    except UnicodeDecodeError as failure:
        raise ModelError(f"{path}: not UTF-8 text (byte {failure.start})") from None


def file_windows(
    tokenizer: Tokenizer | None, path: Path, count: int, *, context: int, length: int | None = None
) -> list[Passage]:
    """The first passages of a text file, to score; see :func:`windows`."""
    return windows(tokenizer, read_text(path), str(path), count, context=context, length=length)


def windows(
    tokenizer: Tokenizer | None, text: str, where: str, count: int, *, context: int, length: int | None = None
) -> list[Passage]:
    """The first passages of a text, to score.

    A text with ``<|endoftext|>`` holds documents: each is one passage, stripped, cut where prefix and text together
    have ``length`` tokens, and scored from its first token, which the prefix predicts; without a prefix from its second
    one. Any other text is cut into consecutive windows of ``length`` tokens, each behind the prefix, and each scored
    from its second token: with and without a prefix the same tokens count.

    Args:
        tokenizer: the model's.
        text: what to cut.
        where: what an error calls it.
        count: most passages.
        context: most tokens that run together, the prefix included.
        length: of a passage; default 512, or what the context has room for.

    Raises:
        ModelError: no tokenizer; a text shorter than one window; no document of two tokens.
        EdgeError: windows that do not fit the context behind the prefix.
    """
    if tokenizer is None:
        raise ModelError("this model has no tokenizer, so a text cannot be scored")
    front = len(tokenizer.special.prefix)
    if DOCUMENT_END in text:
        most = min(length or WINDOW, context)
        parts = (part.strip() for part in text.split(DOCUMENT_END))
        whole = (behind(tokenizer, tokenizer.encode(part))[:most] for part in parts if part)
        documents = (Passage(ids, front, max(0, front - 1)) for ids in whole)
        chosen = list(islice((passage for passage in documents if passage.scored), count))
        if not chosen:
            raise ModelError(f"{where}: no document in it has two tokens")
        return chosen
    length = length or min(WINDOW, context - front)
    if length + front > context:
        with_prefix = f" and a prefix of {front}" if front else ""
        raise EdgeError(
            f"windows of {length} tokens{with_prefix} exceed the context of {context}", hint="give a smaller --window"
        )
    ids = behind(tokenizer, tokenizer.encode(text))[front:]
    if len(ids) < length:
        raise ModelError(f"{where}: {len(ids)} tokens are less than one window of {length}")
    starts = range(0, len(ids) - length + 1, length)
    return [Passage([*tokenizer.special.prefix, *ids[at : at + length]], front, front) for at in starts[:count]]


def behind(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    """The ids of a text behind the tokenizer's prefix, which is not put there again where the text writes it."""
    prefix = list(tokenizer.special.prefix)
    return ids if ids[: len(prefix)] == prefix else [*prefix, *ids]


def rows(tokenizer: Tokenizer, file: Path, length: int) -> Iterator[list[int]]:
    """Documents of a file one after the other, cut into rows of ``length`` tokens, to calibrate on.

    Each document stands behind the tokenizer's prefix, and so does what a cut leaves of it for the next row; a
    conversation begins as its chat template begins.

    Raises:
        EdgeError: the file cannot be read or holds less than one row, a line is no chat, or the rows have no room for
            text behind the prefix.
    """
    prefix = tokenizer.special.prefix
    if length <= len(prefix):
        raise EdgeError(f"calibration sequences of {length} tokens have no room for text behind the prefix")
    row: list[int] = []
    whole = 0
    for part in parts_of(tokenizer, file):
        ids = tokenizer.encode(part.text)
        alone = part.templated or (row and not part.begins)
        row += ids if alone else behind(tokenizer, ids)
        while len(row) >= length:
            yield row[:length]
            whole += 1
            rest = row[length:]
            row = [*prefix, *rest] if rest else []
    if not whole:
        raise EdgeError(
            f"{file}: {len(row)} tokens are less than one calibration sequence of {length}",
            hint="give more text, or leave out --calibration to use text that the model samples itself",
        )


def parts_of(tokenizer: Tokenizer, file: Path) -> Iterator[Part]:
    """Pieces of a text file, whose documents end with ``<|endoftext|>``, or of one text or chat a line of JSON.

    Raises:
        EdgeError: the file cannot be read, or a line is no chat.
    """
    try:
        with file.open(encoding="utf-8") as lines:
            if file.suffix.lower() in _CHATS:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield _chat(tokenizer, line, f"{file}: line {number}")
                return
            begins = True
            while block := list(islice(lines, _LINES)):
                before, *others = "".join(block).split(DOCUMENT_END)
                for number, text in enumerate((before, *others)):
                    begins |= number > 0
                    text = text.lstrip() if number else text
                    text = text.rstrip() if number < len(others) else text
                    if text:
                        yield Part(text, begins)
                        begins = False
    except OSError as failure:
        raise EdgeError(f"{file}: {failure.strerror or failure}") from None
    except UnicodeDecodeError as failure:
        raise EdgeError(
            f"{file}: not UTF-8 text (byte {failure.object[failure.start]:#04x}: {failure.reason})",
            hint="convert it, for example with iconv -t UTF-8",
        ) from None


def _chat(tokenizer: Tokenizer, line: str, where: str) -> Part:
    entry = parse_json(line, where)
    if isinstance(entry, dict) and isinstance(entry.get("text"), str):
        return Part(entry["text"], begins=True)
    messages = entry.get("messages") if isinstance(entry, dict) else None
    if not isinstance(messages, list) or not messages:
        raise EdgeError(
            f"{where}: neither 'messages' nor 'text'",
            hint='a line is {"messages": [{"role": "user", "content": "..."}, ...]} or {"text": "..."}',
        )
    if tokenizer.chat_template is None:
        raise EdgeError(f"{where}: chats need a chat template, and this model's tokenizer has none")
    try:
        return Part(tokenizer.render(messages, answering=False), begins=True, templated=True)
    except EdgeError as failure:
        raise EdgeError(f"{where}: {failure.message}", hint=failure.hint) from None
