"""A model in a part of its vocabulary: the tokenizer's definition without other tokens, and the rows that are left.

Text whose tokens are all kept is tokenized as before. For byte-pair encoding that needs the tokens on the way too,
those that merging passes through. For unigram, WordPiece and word-level models the kept tokens are enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from .tensors import QuantizedTensor
from .tokenizer import SpecialTokens, Tokenizer

if TYPE_CHECKING:
    from . import Model
    from .weights import Stored, Weights

_TABLES = ("embed.weight", "head.weight")


def required_ids(tokenizer: Tokenizer) -> set[int]:
    """Tokens that no vocabulary can be without: special and added ones, bytes, single characters of the alphabet.

    Added ones that the model has no row for go.
    """
    definition = json.loads(tokenizer.definition)
    vocabulary = _vocabulary(definition)
    special = tokenizer.special
    found = {entry["id"] for entry in definition.get("added_tokens") or () if entry["id"] < tokenizer.size}
    found |= {index for index in (special.bos, special.pad, *special.stop, *special.prefix) if index is not None}
    if _byte_level(definition):
        found |= {index for text, index in vocabulary.items() if len(text) == 1}
    found |= {index for text, index in vocabulary.items() if _is_byte(text)}
    model = definition["model"]
    found |= _processor_ids(definition.get("post_processor"))
    unknown = model.get("unk_token")
    if isinstance(unknown, str) and unknown in vocabulary:
        found.add(vocabulary[unknown])
    if isinstance(model.get("unk_id"), int):
        found.add(model["unk_id"])
    return found


def closed(tokenizer: Tokenizer, ids: set[int]) -> set[int]:
    """The ids with all tokens that their merging passes through."""
    definition = json.loads(tokenizer.definition)
    model = definition["model"]
    if model["type"] != "BPE":
        return ids
    vocabulary = _vocabulary(definition)
    texts = {index: text for text, index in vocabulary.items()}
    added = {entry["id"] for entry in definition.get("added_tokens") or ()}
    ranks = {pair: rank for rank, pair in enumerate(_merges(model))}
    found = set(ids)
    for index in (ids - added) & texts.keys():
        for part in _passed(texts[index], ranks, model.get("continuing_subword_prefix") or ""):
            if part in vocabulary:
                found.add(vocabulary[part])
    return found


def without_others(tokenizer: Tokenizer, ids: Sequence[int]) -> Tokenizer:
    """The tokenizer with only these tokens (rising ids), numbered from 0 in their order.

    Raises:
        ModelError: a special token is not among them, or the kind of tokenizer is not known here.
    """
    new = {old: number for number, old in enumerate(ids)}
    _refuse_missing(tokenizer, new)
    definition = json.loads(tokenizer.definition)
    model = definition["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in ids if old < len(model["vocab"])]
        if isinstance(model.get("unk_id"), int):
            model["unk_id"] = new[model["unk_id"]]
    else:
        model["vocab"] = {text: new[old] for text, old in model["vocab"].items() if old in new}
    if model["type"] == "BPE":
        left, prefix = model["vocab"], model.get("continuing_subword_prefix") or ""
        model["merges"] = [
            list(pair)
            for pair in _merges(model)
            if pair[0] in left and pair[1] in left and pair[0] + pair[1].removeprefix(prefix) in left
        ]
    definition["added_tokens"] = [
        {**entry, "id": new[entry["id"]]} for entry in definition.get("added_tokens") or () if entry["id"] in new
    ]
    _renumber(definition.get("post_processor"), new)
    padding = definition.get("padding")
    if isinstance(padding, dict) and "pad_id" in padding:
        padding["pad_id"] = new.get(padding["pad_id"], 0)
    special = tokenizer.special
    policy = SpecialTokens(
        None if special.bos is None else new[special.bos],
        tuple(new[old] for old in special.stop),
        None if special.pad is None else new[special.pad],
        tuple(new[old] for old in special.prefix),
    )
    text = json.dumps(definition, ensure_ascii=False, indent=2) + "\n"
    smaller = replace(tokenizer, definition=text, special=policy, rows=None)
    left = smaller.backend.get_vocab(with_added_tokens=True)
    names = {name: token for name, token in tokenizer.variables.items() if token in left}
    sources = {new[old]: source for old, source in tokenizer.stop_sources.items() if old in new}
    return replace(smaller, names=names, stop_sources=sources)


def without(tokenizer: Tokenizer) -> str:
    """What becomes of text whose tokens are gone, in words."""
    definition = json.loads(tokenizer.definition)
    if _byte_level(definition) or definition["model"].get("byte_fallback"):
        return "text with others takes more, shorter tokens"
    return "text with others may be read as unknown"


def ids_in(tokenizer: Tokenizer, part: Tokenizer) -> list[int] | None:
    """The id in ``tokenizer`` of every token of ``part``, in order; None where one of them has none."""
    whole = tokenizer.backend.get_vocab(with_added_tokens=True)
    tokens = part.backend.get_vocab(with_added_tokens=True)
    found = [whole.get(text, -1) for text, _ in sorted(tokens.items(), key=lambda entry: entry[1])]
    dense = sorted(tokens.values()) == list(range(len(tokens)))
    return found if dense and -1 not in found else None


def restricted(model: Model, ids: Sequence[int], tokenizer: Tokenizer) -> Model:
    """The model with only some rows of its embedding and head, for a tokenizer that numbers them from 0."""
    return replace(
        model,
        spec=replace(model.spec, vocab=len(ids)),
        weights=_SomeRows(model.weights, tuple(ids)),
        tokenizer=tokenizer,
    )


def in_vocabulary_of(model: Model, other: Model) -> Model:
    """The model as it is, or restricted to the tokens of another whose vocabulary is a part of its own.

    Raises:
        ModelError: the other's tokens are not all among the model's.
    """
    if model.spec.vocab == other.spec.vocab or model.tokenizer is None or other.tokenizer is None:
        return model
    ids = ids_in(model.tokenizer, other.tokenizer)
    if ids == list(range(len(ids or ()))) and other.spec.vocab <= model.spec.vocab:
        ids = list(range(other.spec.vocab))  # the same tokens, and rows that no token has
    if ids is None or len(ids) != other.spec.vocab:
        raise ModelError(
            f"the tokens of {other.origin.name} are not a part of those of {model.origin.name}",
            hint="they come from different models: tokens cannot be compared",
        )
    return restricted(model, ids, other.tokenizer)


class _SomeRows:
    """Weights of which embedding and head have only some rows."""

    def __init__(self, base: Weights, ids: tuple[int, ...]) -> None:
        self._base, self._ids = base, ids

    def get(self, name: str) -> Stored:
        import torch

        stored = self._base.get(name)
        if name not in _TABLES:
            return stored
        index = torch.tensor(self._ids)
        return stored.select_rows(index) if isinstance(stored, QuantizedTensor) else stored[index]


def _vocabulary(definition: Mapping[str, Any]) -> dict[str, int]:
    """Tokens of the model itself, without added ones that only the tokenizer knows."""
    model = definition["model"]
    if model["type"] == "Unigram":
        return {entry[0]: index for index, entry in enumerate(model["vocab"])}
    if model["type"] not in ("BPE", "WordPiece", "WordLevel"):
        raise ModelError(f"a tokenizer of type {model['type']} cannot lose tokens")
    return dict(model["vocab"])


def _merges(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Pairs by rank; older files write them as one text with a space."""
    for entry in model["merges"]:
        first, second = entry.split(" ") if isinstance(entry, str) else entry
        yield first, second


def _passed(text: str, ranks: Mapping[tuple[str, str], int], prefix: str) -> Iterator[str]:
    """Every token that byte-pair encoding of a text passes through, itself included."""
    parts = [text[0], *(prefix + letter for letter in text[1:])] if not prefix else _letters(text, prefix)
    yield from parts
    ahead, behind = list(range(1, len(parts) + 1)), list(range(-1, len(parts) - 1))
    waiting = [(ranks[pair], at, at + 1) for at, pair in enumerate(pairwise(parts)) if pair in ranks]
    heapify(waiting)
    while waiting:
        rank, at, after = heappop(waiting)
        if ahead[at] != after or not parts[at] or ranks.get((parts[at], parts[after])) != rank:
            continue  # one of the two was merged meanwhile
        parts[at], parts[after] = parts[at] + parts[after].removeprefix(prefix), ""
        yield parts[at]
        ahead[at] = following = ahead[after]
        if following < len(parts):
            behind[following] = at
        for left, right in ((behind[at], at), (at, following)):
            if left >= 0 and right < len(parts) and (parts[left], parts[right]) in ranks:
                heappush(waiting, (ranks[parts[left], parts[right]], left, right))
    yield text


def _letters(text: str, prefix: str) -> list[str]:
    if text.startswith(prefix):
        return [prefix + letter for letter in text.removeprefix(prefix)]
    return [text[0], *(prefix + letter for letter in text[1:])]


def _byte_level(definition: Mapping[str, Any]) -> bool:
    """Whether single characters stand for bytes, so that any text can be written with them."""
    parts = [definition.get("pre_tokenizer"), definition.get("decoder")]
    return '"ByteLevel"' in json.dumps(parts)


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _refuse_missing(tokenizer: Tokenizer, new: Mapping[int, int]) -> None:
    special = tokenizer.special
    named: list[tuple[str, int | None]] = [("end-of-sequence", index) for index in special.stop]
    named += [("beginning-of-sequence", special.bos), ("padding", special.pad)]
    named += [("beginning-of-sequence", index) for index in special.prefix]
    for what, index in named:
        if index is not None and index not in new:
            raise ModelError(
                f"the vocabulary would lose the {what} token {tokenizer.token(index)!r} (id {index})",
                hint="special and byte tokens must stay: allow a larger vocabulary",
            )
    required = required_ids(tokenizer)
    for index in sorted(required):
        if index not in new:
            raise ModelError(
                f"the vocabulary would lose the token {tokenizer.token(index)!r} (id {index}), without which texts "
                "cannot be written",
                hint="special and byte tokens must stay: allow a larger vocabulary",
            )


def _processor_ids(processor: Any) -> set[int]:
    """Ids that a post-processor writes."""
    if not isinstance(processor, dict):
        return set()
    found = set[int]().union(*(_processor_ids(child) for child in processor.get("processors") or ()))
    special = processor.get("special_tokens")
    for entry in special.values() if isinstance(special, dict) else ():
        found.update(entry["ids"])
    return found | {processor[key][1] for key in ("sep", "cls") if isinstance(processor.get(key), list)}


def _renumber(processor: Any, new: Mapping[int, int]) -> None:
    """Give the ids inside a post-processor their new numbers, in place."""
    if not isinstance(processor, dict):
        return
    for child in processor.get("processors") or ():
        _renumber(child, new)
    special = processor.get("special_tokens")
    for entry in special.values() if isinstance(special, dict) else ():
        entry["ids"] = [new[old] for old in entry["ids"]]
    for key in ("sep", "cls"):  # of BERT and RoBERTa
        if isinstance(processor.get(key), list):
            processor[key][1] = new[processor[key][1]]
