"""A ``tokenizer.json`` from the metadata of a GGUF file (keys: ggml-org/ggml, docs/gguf.md, section Tokenizer)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..bounds.amounts import TOKENIZER
from ..errors import ModelError
from .gguf_splits import Split, split_of
from .tokenizer import SpecialTokens, Tokenizer, with_prefix

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_SPACE = "\u2581"
_MOST_READ = 1 << 30  # characters of the beginnings of all pieces (Gemma 3: 10 million)
#: Kinds that no decoder of edgesdk has, in words.
_OTHER_KINDS = {
    "bert": "WordPiece, for encoders",
    "t5": "unigram, for encoder-decoders",
    "rwkv": "RWKV's own",
    "gemma4": "Gemma 4's own",
    "plamo2": "PLaMo 2's own",
    "hybriddna": "for DNA",
    "whitespace": "for encoders",
    "no_vocab": "none at all",
    "none": "none at all",
}
#: Tokens that end an answer whatever the metadata say, by their texts (ggml-org/llama.cpp, src/llama-vocab.cpp).
_ENDS = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "[e~[",
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "[PAD]",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
)


def tokenizer_from_gguf(metadata: Mapping[str, Any], where: str) -> Tokenizer:
    """Build the tokenizer that a GGUF file describes.

    Args:
        metadata: of the file; the keys of its tokenizer begin with ``tokenizer.``.
        where: the file, for messages.

    Raises:
        ModelError: the file has no tokenizer, one of a kind that edgesdk does not know, or damaged metadata.
    """
    try:
        return _build(metadata, where)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as failure:
        raise ModelError(f"{where}: the tokenizer's metadata is damaged ({failure!r})") from None


def _build(metadata: Mapping[str, Any], where: str) -> Tokenizer:
    kind = metadata.get("tokenizer.ggml.model")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if kind in _OTHER_KINDS:
        raise ModelError(
            f"{where}: tokenizer kind '{kind}' ({_OTHER_KINDS[kind]}) is not supported; supported: gpt2, llama",
            hint="open the original Hugging Face checkpoint",
        )
    if not kind or not tokens:
        raise ModelError(f"{where}: no tokenizer in the metadata")
    notes: list[str] = []
    if kind == "gpt2":
        split = split_of(metadata.get("tokenizer.ggml.pre"), metadata.get("tokenizer.ggml.merges", []), where)
        parts, adds_bos = _byte_level(metadata, split), split.adds_bos
        if "tokenizer.ggml.pre" not in metadata:
            notes.append(
                f"the file lacks 'tokenizer.ggml.pre'; its vocabulary is known, and text is split as '{split.names[0]}'"
            )
    elif kind == "llama":
        parts, adds_bos = _sentencepiece(metadata, where), True
        if metadata.get("tokenizer.ggml.remove_extra_whitespaces"):
            notes.append("the file asks to drop extra spaces (remove_extra_whitespaces); as in llama.cpp they stay")
    else:
        raise ModelError(f"{where}: tokenizer kind '{kind}' is not known; supported: gpt2, llama")
    special, names, stops = _special(metadata, tokens, adds_bos, notes)
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(metadata, tokens, stops),
        **parts,
    }
    definition = with_prefix(definition, [(tokens[index], index) for index in special.prefix])
    return Tokenizer(
        json.dumps(definition, ensure_ascii=False),
        special,
        metadata.get("tokenizer.chat_template"),
        names,
        stop_sources=stops,
        notes=tuple(notes),
    )


def _added(metadata: Mapping[str, Any], tokens: list[str], stops: Mapping[int, str]) -> list[dict[str, Any]]:
    """Tokens that are found in a text before it is split; those that end an answer are never printed."""
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    rules = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": index, "content": token, "special": types[index] != _USER_DEFINED or index in stops, **rules}
        for index, token in enumerate(tokens)
        if types[index] in (_UNKNOWN, _CONTROL, _USER_DEFINED) or index in stops
    ]


def _special(
    metadata: Mapping[str, Any], tokens: list[str], adds_bos: bool, notes: list[str]
) -> tuple[SpecialTokens, dict[str, str], dict[int, str]]:
    """The policy, named tokens for the template, and where each stop token comes from."""
    usual = {"bos": 1, "eos": 2, "unknown": 0} if metadata["tokenizer.ggml.model"] == "llama" else {}

    def index(name: str) -> int | None:
        number = metadata.get(f"tokenizer.ggml.{name}_token_id", usual.get(name))
        return number if isinstance(number, int) and 0 <= number < len(tokens) else None

    stops: dict[int, str] = {}
    for name in ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"):
        if (number := index(name)) is not None:
            key = f"tokenizer.ggml.{name}_token_id"
            stops[number] = f"{stops[number]}, {key}" if number in stops else key
    places = {token: number for number, token in enumerate(tokens) if token in _ENDS}
    for text in _ends(places):
        stops.setdefault(places[text], "its text, as llama.cpp reads it")
    bos, wants_bos = index("bos"), metadata.get("tokenizer.ggml.add_bos_token", adds_bos)
    named = {"bos_token": bos, "eos_token": index("eos"), "unk_token": index("unknown"), "pad_token": index("padding")}
    if metadata.get("tokenizer.ggml.add_bos_token") is False:
        named["bos_token"] = None  # what the original says of models that have no BOS (Qwen)
    if metadata.get("tokenizer.ggml.add_eos_token"):
        notes.append("the file asks for an end token behind each text (add_eos_token); an answer could not go on there")
    names = {name: tokens[number] for name, number in named.items() if number is not None}
    prefix = (bos,) if wants_bos and bos is not None else ()
    return SpecialTokens(bos, tuple(stops), index("padding"), prefix), names, stops


def _ends(places: Mapping[str, int]) -> list[str]:
    """Texts of tokens that end an answer, less those that other tokens show to be ordinary ones."""
    texts = list(places)
    calls = {"<|call|>", "<|calls|>"} & places.keys()
    if calls and ("<|flush|>" in places or ("<|return|>" in places and "<|call|>" in places)) and "<|end|>" in places:
        texts.remove("<|end|>")  # between the parts of one answer (gpt-oss, Solar Open)
    if "<|tool_response>" in places and "</s>" in places:
        texts.remove("</s>")  # Gemma 4's vocabulary holds it as text
    return texts


def _byte_level(metadata: Mapping[str, Any], split: Split) -> dict[str, Any]:
    """GPT-2's byte-level BPE behind a split."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [_pair(merge) for merge in metadata.get("tokenizer.ggml.merges", [])]
    return {
        "normalizer": {"type": split.normalizer} if split.normalizer else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": split.steps()},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _bpe(tokens, merges, ignore_merges=split.whole_words),
    }


def _pair(merge: str) -> list[str]:
    """The two parts of a merge; its first character belongs to the first part, even a space."""
    at = merge.index(" ", 1)
    return [merge[:at], merge[at + 1 :]]


def _sentencepiece(metadata: Mapping[str, Any], where: str) -> dict[str, Any]:
    """SentencePiece BPE, as Llama 2 and Gemma use it; with byte fallback where the vocabulary has pieces for bytes."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    spaced = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    steps: list[dict[str, Any]] = [{"type": "Prepend", "prepend": _SPACE}] if spaced else []
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": _SPACE})
    fallback = any(is_byte(token) for token in tokens)
    decode: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}]
    decode += [{"type": "ByteFallback"}] if fallback else []
    decode += [{"type": "Fuse"}]
    if spaced:
        decode.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decode},
        "model": _bpe(
            tokens,
            _merges_by_score(tokens, metadata["tokenizer.ggml.scores"], where),
            unknown=tokens[unknown] if isinstance(unknown, int) else None,
            fuse_unknown=True,
            byte_fallback=fallback,
        ),
    }


def is_byte(token: str) -> bool:
    """Whether a piece stands for one byte: ``<0x0A>``."""
    digits = token[3:5]
    return len(token) == 6 and token == f"<0x{digits}>" and all(digit in "0123456789ABCDEF" for digit in digits)


def _bpe(
    tokens: list[str],
    merges: list[Any],
    *,
    ignore_merges: bool = False,
    unknown: str | None = None,
    fuse_unknown: bool = False,
    byte_fallback: bool = False,
) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": fuse_unknown,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": merges,
    }


def _merges_by_score(tokens: list[str], scores: list[float], where: str) -> list[tuple[str, str]]:
    """Merge rules from piece scores: a piece is made, best score first, from any two pieces that spell it.

    Splits of one piece go by the ids of their parts, as SentencePiece orders them (github.com/google/sentencepiece).

    Raises:
        ModelError: the rules take more text than any tokenizer has.
    """
    index = {token: number for number, token in enumerate(tokens)}
    merges: list[tuple[float, int, int]] = []
    read = written = 0
    for token, starts in _prefixes(index):
        read += len(starts) * len(token)
        splits = [(index[start], index[rest]) for start in starts if (rest := token[len(start) :]) in index]
        written += len(splits) * len(token)
        if read > _MOST_READ or written > TOKENIZER:
            raise ModelError(f"{where}: the pieces of its tokenizer are put together in too many ways")
        merges += [(-scores[index[token]], left, right) for left, right in sorted(splits)]
    merges.sort(key=lambda merge: (merge[0], index[tokens[merge[1]] + tokens[merge[2]]]))
    return [(tokens[left], tokens[right]) for _, left, right in merges]


def _prefixes(tokens: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each token with the shorter ones that it begins with.

    In the order of the alphabet those stand above it on a stack, so that each token is compared with its last only.
    """
    stack: list[str] = []
    for token in sorted(tokens):
        while stack and not token.startswith(stack[-1]):
            stack.pop()
        yield token, stack
        if token:
            stack.append(token)
