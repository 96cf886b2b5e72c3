"""The table that ``lm_tokenizer.c`` reads: a tokenizer as arrays of integers, for the flash of a microcontroller.

Two kinds of BPE are held: from characters with U+2581 for a space (SentencePiece: Llama 2, llama2.c, Gemma), and from
bytes behind a pattern (GPT-2, SmolLM2, Llama 3). Everything else is refused by name.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from edgesdk.errors import TargetError

from .character_classes import class_runs

if TYPE_CHECKING:
    from edgesdk.model import Tokenizer

    Added = dict[int, Any]  # id to tokenizers.AddedToken

_MAGIC, _VERSION, _NONE = 0x4B544D4C, 1, 0xFFFFFFFF
_CHARACTERS, _BYTES = 1, 2
_LEAD_NONE, _LEAD_ALWAYS, _LEAD_UNLESS_SPACE, _LEAD_TEXT = range(4)
_WORDS_WHOLE, _WORDS_AT_SPACES, _WORDS_AT_EACH_SPACE = range(3)
_GPT2, _LLAMA3 = 1, 2
_MARK = "\u2581"
_GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
#: Regular expressions that the C code knows: (pattern, its digits).
_PATTERNS = {
    _GPT2_REGEX: (_GPT2, 0),
    _LLAMA3_REGEX % r"\p{N}{1,3}": (_LLAMA3, 3),
    _LLAMA3_REGEX % r"\p{N}": (_LLAMA3, 1),
}
#: Each step of a SentencePiece decoder, in the order in which they must come.
_DECODE_ORDER = ("Replace", "ByteFallback", "Fuse", "Strip")


@dataclass(frozen=True)
class _Rules:
    """What the C code does with text, besides merging; the header's fields of the same names."""

    kind: int
    lead: int = _LEAD_NONE
    words: int = _WORDS_WHOLE
    pattern: int = 0
    digits: int = 0


@dataclass(frozen=True)
class _Decoding:
    """How tokens become text: ``marks`` are spaces, ``raw`` pieces like <0x0A> are bytes."""

    marks: bool = False
    raw: bool = False
    strip: int = 0
    first_bare: bool = False


def tokenizer_table(tokenizer: Tokenizer) -> bytes:
    """The table of a tokenizer, its prefix and its stop ids included.

    Raises:
        TargetError: the tokenizer does something that the C code cannot do; named.
        ModelError: the definition cannot be read.
    """
    backend = tokenizer.backend
    definition = json.loads(tokenizer.definition)
    model = definition["model"]
    _check_model(model)
    added: Added = backend.get_added_tokens_decoder()
    _check_added(added, definition.get("normalizer") is not None)
    rules = _rules(definition)
    decoding = _decoding(definition.get("decoder"), rules.kind)
    vocab: dict[str, int] = model["vocab"]
    merges = _merges(model["merges"], vocab)
    if rules.kind == _CHARACTERS and rules.words == _WORDS_WHOLE and _words_stay_apart(vocab, merges):
        rules = replace(rules, words=_WORDS_AT_SPACES)

    pieces = _pieces(tokenizer.size, vocab, added, rules.kind, decoding)
    pool = bytearray()
    starts = []
    for text, raw in pieces:
        starts.append(2 * len(pool) + raw)
        pool += text
    starts.append(2 * len(pool))
    finder = sorted((token.content.encode(), index) for index, token in added.items() if token.content)
    added_starts = []
    for text, _ in finder:
        added_starts.append(len(pool))
        pool += text

    missing = tokenizer.size
    if rules.kind == _BYTES:
        byte_ids = [vocab.get(character, missing) for character in _alphabet()]
        chars: list[tuple[int, int]] = []
    else:
        byte_ids = _fallback_bytes(vocab, missing) if model.get("byte_fallback") else []
        chars = sorted((ord(token), index) for token, index in vocab.items() if len(token) == 1)
    whole = [index for index in vocab.values() if index not in added] if model.get("ignore_merges") else []
    by_pair = sorted((*pair, rank) for pair, (rank, _) in merges.items())
    new_by_rank = dict(merges.values())
    classes = [16 * first + bits for first, bits in class_runs()] if rules.pattern else []
    arrays: list[Sequence[int]] = [
        starts,
        pool,
        byte_ids,
        [code for code, _ in chars],
        [index for _, index in chars],
        [left for left, _, _ in by_pair],
        [right for _, right, _ in by_pair],
        [rank for _, _, rank in by_pair],
        [new_by_rank[rank] for rank in range(len(by_pair))],
        sorted((index for index in whole if pieces[index][0]), key=lambda index: pieces[index][0]),
        added_starts,
        [len(text) for text, _ in finder],
        [index for _, index in finder],
        classes,
        tokenizer.special.prefix,
        tokenizer.special.stop,
    ]
    unknown = model.get("unk_token")
    if unknown is not None and unknown not in vocab:
        _refuse(f"the unknown token '{unknown}', which is not in its vocabulary", "set 'unk_token' to null")
    fields = (
        tokenizer.size,
        rules.kind,
        rules.lead,
        rules.words,
        rules.pattern,
        rules.digits,
        _NONE if unknown is None else vocab[unknown],
        int(bool(model.get("fuse_unk"))),
        decoding.strip,
        int(decoding.first_bare),
        max((len(text) for text, _ in pieces), default=0),
    )
    return _packed(fields, arrays)


def _packed(fields: Sequence[int], arrays: Sequence[Sequence[int]]) -> bytes:
    """Header and arrays; each array has the smallest width that holds its values, and starts at four bytes."""
    start = 4 * (3 + len(fields) + 3 * len(arrays))
    heads: list[int] = []
    body = bytearray()
    for array in arrays:
        largest = max(array, default=0)
        code, width = ("B", 1) if largest < 1 << 8 else ("H", 2) if largest < 1 << 16 else ("I", 4)
        heads += (start + len(body), len(array), width)
        body += struct.pack(f"<{len(array)}{code}", *array)
        body += bytes(-len(body) % 4)
    head = (_MAGIC, _VERSION, start + len(body), *fields, *heads)
    return struct.pack(f"<{len(head)}I", *head) + bytes(body)


def _refuse(what: str, hint: str | None = None) -> NoReturn:
    raise TargetError(
        f"the tokenizer of a microcontroller cannot hold {what}",
        hint=hint or "use a model with a plain Llama 2, GPT-2, SmolLM2 or Llama 3 tokenizer",
    )


def _check_model(model: dict[str, Any]) -> None:
    if model.get("type") != "BPE":
        _refuse(f"a {model.get('type')} model: it holds BPE")
    if model.get("dropout"):
        _refuse("BPE with dropout", "set 'dropout' to null in tokenizer.json: it is for training only")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            _refuse(f"BPE with a {key} ('{model[key]}')")


def _check_added(added: Added, normalizes: bool) -> None:
    for token in added.values():
        for rule in ("single_word", "lstrip", "rstrip"):
            if getattr(token, rule):
                _refuse(f"the added token '{token.content}' with '{rule}'", f"set '{rule}' to false in tokenizer.json")
    normalized = {bool(token.normalized) for token in added.values()}
    if len(normalized) > 1 or (normalizes and True in normalized):
        _refuse("added tokens that are looked for after normalizing", "set 'normalized' to false in tokenizer.json")


def _steps(part: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder, one level of sequences unpacked."""
    if part is None:
        return []
    return list(part[key]) if part.get("type") == "Sequence" else [part]


def _rules(definition: dict[str, Any]) -> _Rules:
    normalizers = _steps(definition.get("normalizer"), "normalizers")
    pre = _steps(definition.get("pre_tokenizer"), "pretokenizers")
    if pre and pre[-1]["type"] == "ByteLevel":
        if normalizers:
            _refuse(
                f"the normalizer {_names(normalizers)}", "normalize the text on the host and set 'normalizer' to null"
            )
        return _byte_rules(pre, bool(definition["model"].get("ignore_merges")))
    if definition["model"].get("ignore_merges"):
        _refuse("BPE from characters with 'ignore_merges'")
    if len(pre) == 1 and pre[0]["type"] == "Metaspace" and not normalizers:
        return _metaspace(pre[0])
    splits_nothing = not pre or (
        len(pre) == 1 and pre[0]["type"] == "Split" and pre[0]["pattern"] == {"String": " "}
    )  # Gemma's: no space is left behind the normalizer
    replaces = {"type": "Replace", "pattern": {"String": " "}, "content": _MARK}
    if splits_nothing and normalizers == [replaces]:
        return _Rules(_CHARACTERS)
    if splits_nothing and normalizers == [{"type": "Prepend", "prepend": _MARK}, replaces]:
        return _Rules(_CHARACTERS, _LEAD_ALWAYS)
    _refuse(f"the normalizer {_names(normalizers)} with the pre-tokenizer {_names(pre)}")


def _names(steps: Iterable[dict[str, Any]]) -> str:
    return "+".join(str(step.get("type")) for step in steps) or "null"


def _byte_rules(pre: list[dict[str, Any]], ignore_merges: bool) -> _Rules:
    if pre[-1].get("add_prefix_space"):
        _refuse("ByteLevel with 'add_prefix_space'", "put the space into the prompt, and false into tokenizer.json")
    own = bool(pre[-1].get("use_regex", True))
    if len(pre) == 1:
        return _Rules(_BYTES, pattern=_GPT2 if own else 0)
    first = pre[0]
    if len(pre) == 2 and own and first == {"type": "Digits", "individual_digits": True}:
        return _Rules(_BYTES, pattern=_GPT2, digits=1)
    if len(pre) == 2 and not own and first["type"] == "Split":
        regex = first["pattern"].get("Regex")
        known = _PATTERNS.get(regex)
        if known and first["behavior"] in ("Isolated", "isolated") and not first["invert"]:
            return _Rules(_BYTES, pattern=known[0], digits=known[1])
        _refuse(f"the split pattern {first['pattern']}")
    _refuse(f"the pre-tokenizer {_names(pre)}")


def _metaspace(step: dict[str, Any]) -> _Rules:
    if step.get("replacement") != _MARK:
        _refuse(f"Metaspace with '{step.get('replacement')}'")
    leads = {"always": _LEAD_UNLESS_SPACE, "first": _LEAD_TEXT, "never": _LEAD_NONE}
    words = _WORDS_AT_EACH_SPACE if step.get("split", True) else _WORDS_WHOLE
    return _Rules(_CHARACTERS, leads[step.get("prepend_scheme", "always")], words)


def _decoding(decoder: dict[str, Any] | None, kind: int) -> _Decoding:
    steps = _steps(decoder, "decoders")
    names = [step["type"] for step in steps]
    if kind == _BYTES and names == ["ByteLevel"]:
        return _Decoding()
    if kind == _CHARACTERS and names == ["Metaspace"] and steps[0].get("replacement") == _MARK:
        return _Decoding(marks=True, first_bare=steps[0].get("prepend_scheme", "always") != "never")
    found = dict(zip(names, steps, strict=True))
    replaces = {"type": "Replace", "pattern": {"String": _MARK}, "content": " "}
    strip = found.get("Strip", {"content": " ", "start": 0, "stop": 0})
    if (
        kind != _CHARACTERS
        or names != [name for name in _DECODE_ORDER if name in found]
        or found.get("Replace") != replaces
        or "Fuse" not in found
        or strip["content"] != " "
        or strip["stop"]
        or strip["start"] > 255
    ):
        _refuse(f"the decoder {_names(steps)}")
    return _Decoding(marks=True, raw="ByteFallback" in found, strip=strip["start"])


def _merges(merges: list[Any], vocab: dict[str, int]) -> dict[tuple[int, int], tuple[int, int]]:
    """Merges by the ids of their parts: (rank, what they make). Ranks are dense; a later rule replaces an equal one."""
    found: dict[tuple[int, int], str] = {}
    for merge in merges:
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        pair = vocab[left], vocab[right]
        found.pop(pair, None)
        found[pair] = left + right
    return {pair: (rank, vocab[text]) for rank, (pair, text) in enumerate(found.items())}


def _words_stay_apart(vocab: dict[str, int], merges: dict[tuple[int, int], tuple[int, int]]) -> bool:
    """Whether no merge reaches over a space behind another character, so that words may be merged one by one."""
    made = {new for _, new in merges.values()}
    return _MARK in vocab and not any(_MARK in token.lstrip(_MARK) for token, index in vocab.items() if index in made)


def _alphabet() -> list[str]:
    """The character by which byte-level BPE writes each byte: itself where it can be seen, else one from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte if byte in seen else 0x100 + hidden.index(byte)) for byte in range(256)]


def _fallback_bytes(vocab: dict[str, int], missing: int) -> list[int]:
    """The id of each byte, ``missing`` where it has none; empty where none has."""
    found = [vocab.get(f"<0x{byte:02X}>", missing) for byte in range(256)]
    if _MARK not in vocab and all(found[byte] != missing for byte in _MARK.encode()):
        # each space would be three tokens, more than the scratch memory that the header promises
        _refuse(f"byte fallback without '{_MARK}', the space, in its vocabulary")
    return found if any(index != missing for index in found) else []


def _pieces(size: int, vocab: dict[str, int], added: Added, kind: int, decoding: _Decoding) -> list[tuple[bytes, int]]:
    """For each id, the bytes that it decodes to, and 1 where they are one byte of a run; none for special tokens."""
    written = {index: token for token, index in vocab.items()}
    written |= {index: token.content for index, token in added.items()}
    special = {token.content for token in added.values() if token.special}
    values = {character: byte for byte, character in enumerate(_alphabet())}
    found: list[tuple[bytes, int]] = []
    for index in range(size):
        token = written.get(index, "")
        if token in special:
            found.append((b"", 0))
        elif kind == _BYTES:
            plain = all(character in values for character in token)
            found.append((bytes(values[character] for character in token) if plain else token.encode(), 0))
        elif decoding.raw and len(token) == 6 and token.startswith("<0x") and token.endswith(">") and _is_hex(token):
            found.append((bytes([int(token[3:5], 16)]), 1))
        else:
            if decoding.first_bare and " " in token:
                _refuse(f"the Metaspace decoder with a space in the token '{token}'")
            found.append((token.replace(_MARK, " ").encode(), 0))
    return found


def _is_hex(token: str) -> bool:
    return all(digit in "0123456789abcdefABCDEF" for digit in token[3:5])
