"""A ``tokenizer.json`` from the metadata of a GGUF file (keys: ggml-org/ggml, docs/gguf.md, section Tokenizer)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import ModelError
from .tokenizer import SpecialTokens, Tokenizer

_CONTROL, _USER_DEFINED = 3, 4
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
#: ``tokenizer.ggml.pre`` to the split in front of the byte-level alphabet: a regex, "digits", or None for GPT-2's own.
_SPLITS: dict[str, str | None] = {
    "default": None,
    "gpt-2": None,
    "smollm": "digits",
    "llama-bpe": _LLAMA3,
    "qwen2": _QWEN2,
}
_SPACE = "\u2581"


def tokenizer_from_gguf(metadata: Mapping[str, Any], where: str) -> Tokenizer:
    """Build the tokenizer that a GGUF file describes.

    Raises:
        ModelError: the file has no tokenizer, or one of a kind that edgesdk does not know.
    """
    try:
        return _build(metadata, where)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as failure:
        raise ModelError(f"{where}: the tokenizer's metadata is damaged ({failure!r})") from None


def _build(metadata: Mapping[str, Any], where: str) -> Tokenizer:
    kind = metadata.get("tokenizer.ggml.model")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not kind or not tokens:
        raise ModelError(f"{where}: no tokenizer in the metadata")
    if kind == "gpt2":
        parts = _byte_level(metadata, where)
    elif kind == "llama":
        parts = _sentencepiece(metadata)
    else:
        raise ModelError(f"{where}: tokenizer kind '{kind}' is not supported; supported: gpt2, llama")
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    added = [
        {
            "id": index,
            "content": token,
            "special": types[index] == _CONTROL,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for index, token in enumerate(tokens)
        if types[index] in (_CONTROL, _USER_DEFINED)
    ]
    definition = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **parts}
    return Tokenizer(
        json.dumps(definition, ensure_ascii=False), _special(metadata, tokens), metadata.get("tokenizer.chat_template")
    )


def _special(metadata: Mapping[str, Any], tokens: list[str]) -> SpecialTokens:
    def index(name: str) -> int | None:
        found = metadata.get(f"tokenizer.ggml.{name}_token_id")
        return found if isinstance(found, int) and 0 <= found < len(tokens) else None

    stops = [found for name in ("eos", "eot", "eom") if (found := index(name)) is not None]
    for written in ("<end_of_turn>", "<|im_end|>", "<|eot_id|>"):
        if written in metadata.get("tokenizer.chat_template", "") and written in tokens:
            stops.append(tokens.index(written))
    bos = index("bos")
    wants_bos = metadata.get("tokenizer.ggml.add_bos_token", metadata["tokenizer.ggml.model"] == "llama")
    prefix = (bos,) if wants_bos and bos is not None else ()
    return SpecialTokens(bos, tuple(dict.fromkeys(stops)), index("padding"), prefix)


def _byte_level(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """GPT-2's byte-level BPE behind the split that ``tokenizer.ggml.pre`` names."""
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if pre not in _SPLITS:
        raise ModelError(f"{where}: pre-tokenizer '{pre}' is not known; known: {', '.join(_SPLITS)}")
    split = _SPLITS[pre]
    steps: list[dict[str, Any]] = []
    if split == "digits":
        steps.append({"type": "Digits", "individual_digits": True})
    elif split is not None:
        steps.append({"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False})
    own_regex = split in (None, "digits")
    steps.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": own_regex})
    return {
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _bpe(
            metadata["tokenizer.ggml.tokens"],
            [merge.split(" ", 1) for merge in metadata.get("tokenizer.ggml.merges", [])],
            ignore_merges=pre == "llama-bpe",
        ),
    }


def _sentencepiece(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """SentencePiece BPE with byte fallback, as Llama 2 and Gemma use it."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    unknown = metadata.get("tokenizer.ggml.unknown_token_id")
    spaced = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    steps: list[dict[str, Any]] = [{"type": "Prepend", "prepend": _SPACE}] if spaced else []
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": _SPACE})
    decode: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if spaced:
        decode.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decode},
        "model": _bpe(
            tokens,
            _merges_by_score(tokens, metadata["tokenizer.ggml.scores"]),
            unknown=tokens[unknown] if isinstance(unknown, int) else None,
            byte_fallback=True,
        ),
    }


def _bpe(
    tokens: list[str],
    merges: list[Any],
    *,
    ignore_merges: bool = False,
    unknown: str | None = None,
    byte_fallback: bool = False,
) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": byte_fallback,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": merges,
    }


def _merges_by_score(tokens: list[str], scores: list[float]) -> list[tuple[str, str]]:
    """Merge rules from piece scores: a piece is made, best score first, from any two pieces that spell it.

    Splits of one piece go by the ids of their parts, as SentencePiece orders them (github.com/google/sentencepiece).
    """
    index = {token: number for number, token in enumerate(tokens)}
    merges: list[tuple[float, int, int]] = []
    for token, number in index.items():
        splits = [
            (index[token[:at]], index[token[at:]])
            for at in range(1, len(token))
            if token[:at] in index and token[at:] in index
        ]
        merges += [(-scores[number], left, right) for left, right in sorted(splits)]
    merges.sort(key=lambda merge: merge[0])
    return [(tokens[left], tokens[right]) for _, left, right in merges]
