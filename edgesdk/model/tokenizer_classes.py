"""Tokenizer classes of ``transformers`` that build their own steps around the vocabulary of a ``tokenizer.json``.

Since version 5 such a class takes vocabulary, merges, added tokens and post-processor from the file, and normalizer,
pre-tokenizer and decoder from its own code, so that a file with other steps gives other ids there. What the classes of
decoders build is data here (version 5.23, ``models/*/tokenization_*.py``; which class a folder gets:
``models/auto/tokenization_auto.py``). A test compares both with the installed version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MARK = "\u2581"
_ENDOFTEXT = "<|endoftext|>"
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN3_5 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class TokenizerClass:
    """What a class builds, and the named tokens that it has where ``tokenizer_config.json`` names none.

    Attributes:
        names: named tokens.
        pattern: what cuts words in front of the byte-level alphabet; None for its built-in pattern.
        marked: U+2581 stands for a space (SentencePiece), instead of the byte-level alphabet.
        normalizer: Unicode normalization, or None.
        cuts: the tokenizer has no space in front of a text, and spaces are cut at (Gemma).
        drops_prefix: the post-processor of the file is replaced with none.
    """

    names: Mapping[str, str]
    pattern: str | None = None
    marked: bool = False
    normalizer: str | None = None
    cuts: bool = False
    drops_prefix: bool = False

    def rebuilt(self, definition: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        """The definition with the steps of the class.

        Args:
            definition: ``tokenizer.json``.
            config: ``tokenizer_config.json``.
        """
        parts = self._marked(config) if self.marked else self._byte_level(config)
        model = {
            **definition["model"],
            "dropout": None,
            "unk_token": self.names["unk_token"] if self.cuts else None,
            "fuse_unk": self.marked,
            "byte_fallback": self.marked,
            "ignore_merges": False,
        }
        processor = None if self.drops_prefix else definition.get("post_processor")
        return {**definition, **parts, "model": model, "post_processor": processor}

    def _byte_level(self, config: Mapping[str, Any]) -> dict[str, Any]:
        own = self.pattern is None
        step = {
            "type": "ByteLevel",
            "add_prefix_space": bool(config.get("add_prefix_space")),
            "trim_offsets": True,
            "use_regex": own,
        }
        cut = {"type": "Split", "pattern": {"Regex": self.pattern}, "behavior": "Isolated", "invert": False}
        return {
            "normalizer": {"type": self.normalizer} if self.normalizer else None,
            "pre_tokenizer": step if own else {"type": "Sequence", "pretokenizers": [cut, step]},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        }

    def _marked(self, config: Mapping[str, Any]) -> dict[str, Any]:
        replaced = {"type": "Replace", "pattern": {"String": _MARK}, "content": " "}
        decoders: list[dict[str, Any]] = [replaced, {"type": "ByteFallback"}, {"type": "Fuse"}]
        if self.cuts:
            return {
                "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _MARK},
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"String": " "},
                    "behavior": "MergedWithPrevious",
                    "invert": False,
                },
                "decoder": {"type": "Sequence", "decoders": decoders},
            }
        asked = config.get("add_prefix_space")
        scheme = "never" if asked is False else "always" if config.get("legacy") else "first"
        if scheme != "never":
            decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
        return {
            "normalizer": None,
            "pre_tokenizer": {"type": "Metaspace", "replacement": _MARK, "prepend_scheme": scheme, "split": False},
            "decoder": {"type": "Sequence", "decoders": decoders},
        }


_GPT2_NAMES = {"unk_token": _ENDOFTEXT, "bos_token": _ENDOFTEXT, "eos_token": _ENDOFTEXT}
_QWEN_NAMES = {"unk_token": _ENDOFTEXT, "eos_token": _ENDOFTEXT, "pad_token": _ENDOFTEXT}
_GEMMA_NAMES = {name + "_token": f"<{name}>" for name in ("unk", "bos", "eos", "pad", "mask")}
CLASSES: Mapping[str, TokenizerClass] = {
    "LlamaTokenizer": TokenizerClass({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}, marked=True),
    "GemmaTokenizer": TokenizerClass(_GEMMA_NAMES, marked=True, cuts=True),
    "GPT2Tokenizer": TokenizerClass(_GPT2_NAMES),
    "CodeGenTokenizer": TokenizerClass(_GPT2_NAMES),
    "GPTNeoXTokenizer": TokenizerClass(
        {**_GPT2_NAMES, "pad_token": "<|padding|>"}, normalizer="NFC", drops_prefix=True
    ),
    "Qwen2Tokenizer": TokenizerClass(_QWEN_NAMES, pattern=_QWEN2, normalizer="NFC"),
    "Qwen3_5Tokenizer": TokenizerClass(_QWEN_NAMES, pattern=_QWEN3_5, normalizer="NFC"),
}
_PLAIN = "TokenizersBackend"
#: ``model_type`` to the class that is registered for it; for others there is none.
REGISTERED: Mapping[str, str] = {
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), "GemmaTokenizer"),
    **dict.fromkeys(("gpt2", "gpt_neo", "opt", "phi", "starcoder2"), "GPT2Tokenizer"),
    **dict.fromkeys(("gpt_neox", "mamba", "falcon_mamba", "mamba2", "olmo", "olmoe", "rwkv"), "GPTNeoXTokenizer"),
    **dict.fromkeys(("qwen2", "qwen3", "qwen3_next", "qwen2_moe", "qwen3_moe"), "Qwen2Tokenizer"),
    **dict.fromkeys(("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"), "Qwen3_5Tokenizer"),
    **dict.fromkeys(("ernie4_5", "glm", "glm4", "granite", "granitemoehybrid", "granitemoe", "internlm2"), _PLAIN),
    **dict.fromkeys(("jamba", "mistral", "mixtral", "nemotron", "olmo2", "phi3", "phimoe", "stablelm"), _PLAIN),
}
#: Those whose folders often name a wrong class: the registered one is taken whatever they name.
MISNAMED = frozenset(
    (
        *("ernie4_5", "internlm2", "jamba", "nemotron", "phi3", "phimoe"),
        *("qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text"),
    )
)


def class_of(model_type: str | None, named: str | None, *, byte_level: bool) -> TokenizerClass | None:
    """The class that ``AutoTokenizer`` opens a folder with; None where that takes ``tokenizer.json`` as it is.

    Args:
        model_type: of ``config.json``.
        named: ``tokenizer_class`` of ``tokenizer_config.json``, or else of ``config.json``.
        byte_level: whether ``tokenizer.json`` mentions the byte-level alphabet.
    """
    kind = model_type or ""
    registered = REGISTERED.get(kind)
    chosen = named.removesuffix("Fast") if named else registered
    if chosen == "LlamaTokenizer" and named and byte_level and kind not in MISNAMED:
        return None
    if registered is not None and chosen != registered:
        chosen = None if registered == _PLAIN else registered if kind in MISNAMED else chosen
    found = CLASSES.get(chosen or "")
    # a class of the other alphabet could not read the vocabulary at all
    return found if found is not None and found.marked != byte_level else None
