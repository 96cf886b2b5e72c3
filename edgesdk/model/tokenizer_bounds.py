"""Tokenizer definitions that would not end or would take the machine's memory: refused before the library reads them.

The ``tokenizers`` library ends the whole process where memory runs out, and raises what no ``except Exception`` catches
where an assertion of its own fails.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from ..bounds.amounts import TEXT_GROWTH
from ..errors import ModelError

_INNER = ("normalizers", "decoders", "processors", "pretokenizers")
_STEPS = 100  # of one part (the longest of real ones: 9)
_WORD = 1000  # characters of a word that WordPiece takes apart (real ones: 100)
_IDS = 1000  # tokens that a post-processor writes around a text (real ones: below 10)
_CHARACTER = 1024  # bytes that a table of a normalizer writes for one character (real ones: below 40)
_DAMAGED = "the file is damaged, or made to do harm: take the model's own"


@lru_cache(maxsize=2)
def outline(definition: str) -> dict[str, Any]:
    """A definition without its vocabulary: the steps around it.

    Raises:
        ModelError: it is no definition, or one that no honest model has.
    """
    try:
        data = json.loads(definition)
    except (ValueError, RecursionError) as failure:
        raise ModelError(f"the tokenizer definition cannot be read: {failure}") from None
    if not isinstance(data, dict):
        raise ModelError("the tokenizer definition cannot be read: it is no JSON object")
    for part in ("normalizer", "decoder"):
        _refuse_growth(part, list(_steps(data.get(part), part)))
    _refuse_tables(list(_steps(data.get("normalizer"), "normalizer")))
    _refuse_processors(list(_steps(data.get("post_processor"), "post_processor")))
    list(_steps(data.get("pre_tokenizer"), "pre_tokenizer"))
    model = data.get("model")
    longest = model.get("max_input_chars_per_word") if isinstance(model, dict) else None
    if isinstance(longest, int) and longest > _WORD:
        raise _refused(f"its model takes words of {longest} characters apart, and {_WORD} are the most")
    return {key: value for key, value in data.items() if key not in ("model", "added_tokens")}


@contextmanager
def no_panic(what: str) -> Iterator[None]:
    """Turn a failed assertion inside of the library into an error; ``what`` begins its sentence.

    Raises:
        ModelError: the library failed.
    """
    try:
        yield
    except BaseException as failure:
        if type(failure).__name__ != "PanicException":  # a BaseException of PyO3's, which no module exports
            raise
        raise ModelError(f"{what}: the tokenizers library fails ({failure})", hint=_DAMAGED) from None


def _steps(part: Any, name: str) -> Iterator[dict[str, Any]]:
    """The steps of one part, sequences unpacked."""
    waiting, count = [part], 0
    while waiting:
        step = waiting.pop()
        count += 1
        if count > _STEPS:
            raise _refused(f"its {name} has more than {_STEPS} steps")
        if not isinstance(step, dict):
            continue
        inner = next((step[key] for key in _INNER if isinstance(step.get(key), list)), None)
        if inner is None:
            yield step
        else:
            waiting += inner[: _STEPS + 1]


def _refuse_growth(part: str, steps: list[dict[str, Any]]) -> None:
    """Stop at steps that together make a text far longer."""
    growth = math.prod(map(_growth, steps))
    if growth > TEXT_GROWTH:
        raise _refused(f"its {part} makes a text up to {growth:.3g} times as long, and {TEXT_GROWTH} is the most")


def _growth(step: dict[str, Any]) -> float:
    """How many times as long a step makes a text at most."""
    if step.get("type") == "Prepend":
        return 1 + _length(step.get("prepend"))
    if step.get("type") != "Replace":
        return 1
    content, pattern = _length(step.get("content")), step.get("pattern")
    text = _length(pattern.get("String")) if isinstance(pattern, dict) else 0
    return max(1, content / text) if text else 1 + content


def _length(text: Any) -> int:
    return len(text.encode("utf-8", "replace")) if isinstance(text, str) else 0


def _refuse_tables(steps: list[dict[str, Any]]) -> None:
    """Stop at SentencePiece's table of characters where it is none: a length, a trie, and texts that end in zeros."""
    tables = [step["precompiled_charsmap"] for step in steps if "precompiled_charsmap" in step]
    if len(tables) > 1:
        raise _refused("its normalizer has more than one table of characters")
    for table in tables:
        try:
            data = base64.b64decode(table or "", validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise _refused("the table of its normalizer cannot be read") from None
        trie = int.from_bytes(data[:4], "little")
        if data and (trie < 4 or trie % 4 or 4 + trie > len(data)):
            raise _refused("the table of its normalizer is cut short")
        if max(map(len, data[4 + trie :].split(b"\0"))) > _CHARACTER:
            raise _refused(f"the table of its normalizer writes more than {_CHARACTER} bytes for a character")


def _refuse_processors(steps: list[dict[str, Any]]) -> None:
    """Stop at templates that write a text several times, or very many tokens around it."""
    copies, ids = 1, 0
    for step in steps:
        templates = [_pieces(step, key) for key in ("single", "pair")]
        copies *= max(1, *(sum("Sequence" in piece for piece in template) for template in templates))
        special = step.get("special_tokens")
        sizes = {
            name: len(token.get("ids") or ()) if isinstance(token, dict) else 0
            for name, token in (special.items() if isinstance(special, dict) else ())
        }
        for template in templates:
            names = [
                piece["SpecialToken"].get("id") for piece in template if isinstance(piece.get("SpecialToken"), dict)
            ]
            ids += sum(sizes.get(name, 1) for name in names if isinstance(name, str))
    if copies > 4 or ids > _IDS:
        raise _refused("its post_processor writes too much around a text")


def _pieces(step: dict[str, Any], key: str) -> list[dict[str, Any]]:
    pieces = step.get(key)
    return [piece for piece in pieces if isinstance(piece, dict)] if isinstance(pieces, list) else []


def _refused(why: str) -> ModelError:
    return ModelError(f"the tokenizer definition is refused: {why}", hint=_DAMAGED)
