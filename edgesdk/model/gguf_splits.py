"""How GGUF files split text in front of byte-level BPE: what each name of ``tokenizer.ggml.pre`` stands for.

Names and expressions are facts about published tokenizers, as llama.cpp (ggml-org/llama.cpp, ``src/llama-vocab.cpp``)
knows them; where it writes an expression for a weaker engine, the one of the model's own ``tokenizer.json`` stands
here.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError

#: The expression that the ByteLevel step of the ``tokenizers`` library has built in.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_ENDING = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_LINES = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
_SPACES = r"\s+(?!\S)|\s+"
_DIGIT, _THREE = r"\p{N}", r"\p{N}{1,3}"
_LLAMA3 = f"{_ENDING}|{_LETTERS}|{_THREE}|{_LINES}|{_SPACES}"
_QWEN2 = f"{_ENDING}|{_LETTERS}|{_DIGIT}|{_LINES}|{_SPACES}"
_CASCADE = "|".join(rf"\s{{{count}}}(?!\S)" for count in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"  # with the Chinese characters that go with them
_EAST_ASIAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_NO_STOPS = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_ALPHABETS = (  # DeepSeek's: letters of scripts with capitals
    "[A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-"
    "\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
    "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59"
    "\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3"
    "\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d"
    "\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00"
    "-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787"
    "\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f"
    "\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-"
    "\U000118df\U0001e900-\U0001e943]+"
)


def _cased(*, ending: str, digits: str) -> str:
    """Words that begin at their capital letters (GPT-4o, Tekken)."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    before = r"[^\r\n\p{L}\p{N}]?"
    return (
        f"{before}{upper}*{lower}+{ending}|{before}{upper}+{lower}*{ending}|{digits}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|{_SPACES}"
    )


@dataclass(frozen=True)
class Split:
    """How text is cut before byte-pair encoding.

    Attributes:
        names: values of ``tokenizer.ggml.pre`` that mean it.
        expressions: regular expressions, each cutting what the one before it left whole.
        whole_words: words that are tokens are taken as they are, whatever the merges say.
        adds_bos: whether a text gets the BOS where the file does not say (``tokenizer.ggml.add_bos_token``).
        normalizer: Unicode normalization in front of it, or None.
    """

    names: tuple[str, ...]
    expressions: tuple[str, ...]
    whole_words: bool = False
    adds_bos: bool = False
    normalizer: str | None = None

    def steps(self) -> list[dict[str, Any]]:
        """Pre-tokenizers of ``tokenizer.json``."""
        own = self.expressions[-1] == _GPT2
        steps = [_step(expression) for expression in (self.expressions[:-1] if own else self.expressions)]
        last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": own}
        return [*steps, last]


def _step(expression: str) -> dict[str, Any]:
    if expression == _DIGIT:
        return {"type": "Digits", "individual_digits": True}
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


_SPLITS = (
    Split(("default",), (r"[\p{P}\$\+<=>\^~\|]+", _GPT2.removesuffix(r"|\s+"), r"\p{N}+", "[0-9][0-9][0-9]")),
    Split(
        (
            *("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat"),
            *("a.x-4.0", "mellum", "modern-bert", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de"),
        ),
        (_GPT2,),
    ),
    Split(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"), (_DIGIT, _GPT2)
    ),
    Split(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
        (_LLAMA3,),
        whole_words=True,
        adds_bos=True,
    ),
    Split(("dbrx", "smaug-bpe", "chatglm-bpe"), (_LLAMA3,)),
    Split(("glm4", "glm5"), (_LLAMA3,), whole_words=True),
    Split(("jais-2",), (_LLAMA3.replace(_SPACES, _CASCADE + r"|\s{1}"),)),
    Split(("qwen2",), (_QWEN2,), normalizer="NFC"),
    Split(
        ("deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"), (_QWEN2,)
    ),
    Split(
        ("qwen35",),
        (_QWEN2.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r" ?[^\s\p{L}", r" ?[^\s\p{L}\p{M}"),),
    ),
    Split(("ufakzeka",), (_QWEN2.removeprefix(_ENDING + "|"),)),
    Split(("laguna",), (r"[^\n]+|[\n]+", _QWEN2)),
    Split(("minicpm5",), (_THREE, _QWEN2.replace(f"|{_DIGIT}|", f"|{_DIGIT}+|")), whole_words=True),
    Split(
        ("bailingmoe", "bailingmoe2", "llada-moe"),
        (
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
            rf"| ?[^\s\p{{L}}\p{{N}}]++[\r\n]*|\s*[\r\n]|{_SPACES}",
        ),
    ),
    Split(
        ("seed-coder",),
        (rf"{_ENDING}|{_LETTERS}|{_DIGIT}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|{_SPACES}",),
    ),
    Split(
        ("exaone-moe",),
        (
            rf"{_ENDING}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|{_DIGIT}"
            rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|{_SPACES}",
        ),
    ),
    Split(("tekken",), (_cased(ending="", digits=_DIGIT),), whole_words=True, adds_bos=True),
    Split(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), (_cased(ending=f"{_ENDING}?", digits=_THREE),)),
    Split(
        ("tiny_aya", "cohere2moe"),
        (r"\d{1,3}(?=(?:\d{3})*\b)", _cased(ending=f"{_ENDING}?", digits=_THREE)),
    ),
    Split(
        ("youtu",),
        (
            "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
            "|[\u3105-\u312f]+|" + _KANA,
            _cased(ending=f"{_ENDING}?", digits=_DIGIT),
        ),
        whole_words=True,
    ),
    Split(
        ("deepseek-llm",),
        (
            r"[\r\n]",
            r"\s?" + _ALPHABETS,
            r"\s?[!-/:-~" + "\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+$",
            _EAST_ASIAN,
            r"\p{N}+",
        ),
    ),
    Split(("deepseek-coder",), (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _EAST_ASIAN, _DIGIT)),
    Split(
        ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
        (_THREE, _KANA, rf"{_PUNCTUATION}| ?[\p{{P}}\p{{S}}]+[\r\n]*|\s*[\r\n]+|{_SPACES}"),
    ),
    Split(
        ("spark2_5",),
        (_THREE, _KANA, rf"{_PUNCTUATION}| ?[\p{{P}}\p{{S}}]+|[\r\n]|{_SPACES}", _DIGIT),
    ),
    Split(("falcon",), (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2.removesuffix(r"|\s+"), "[0-9][0-9][0-9]")),
    Split(("bloom", "poro-chat", "gpt3-finnish"), (_NO_STOPS,)),
    Split(("viking",), (_NO_STOPS, _DIGIT)),
    Split(
        ("chameleon",),
        (
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            _DIGIT,
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2.removesuffix(r"|\s+"),
        ),
        adds_bos=True,
    ),
)
_BY_NAME = {name: split for split in _SPLITS for name in split.names}
#: Names that llama.cpp knows, for splits that a ``tokenizer.json`` cannot say, or of models that are no decoders.
_NOT_BUILT = (
    *("afmoe", "kimi-k2", "superbpe", "sarvam-moe", "gemma4", "whitespace", "roberta-bpe", "jina-v1-en"),
    *("jina-v2-code", "granite-embed-multi-97m", "granite-embed-multi-311m"),
)
#: Vocabularies of files from before the key (May 2024): SHA-256 of the merges in their order, one a line, to the name.
_KNOWN_MERGES = {
    "04e3597d7996f292": "gpt-2",
    "0a1f07b1d32153dc": "mpt",  # and GPT-NeoX
    "0cd100e0ab7dbd83": "llama-bpe",
    "1101bfa1f9e8faaa": "command-r",
    "26a620e10c7991c8": "falcon",
    "3c86e94c54c92cfe": "deepseek-coder",
    "8715d8d6d92d1b0c": "starcoder",
    "aea6ed50becdb3be": "smollm",
    "bbeef245f0b03a96": "qwen2",
    "cb5bed793622288a": "deepseek-llm",
    "da302fc35c8c3284": "refact",
}


def split_of(name: str | None, merges: Iterable[str], where: str) -> Split:
    """The split that a file asks for by name; without one, that of the published vocabulary that it holds.

    Without its name a split cannot be told from the file: GPT-2's would give other ids for numbers, line ends and
    apostrophes to every model that was trained with another one.

    Args:
        name: ``tokenizer.ggml.pre``.
        merges: ``tokenizer.ggml.merges``.
        where: the file, for messages.

    Raises:
        ModelError: the name is not known, or there is none and the vocabulary is not known either.
    """
    if name is None:
        name = recognised(merges)
        if name is None:
            raise ModelError(
                f"{where}: the metadata lack 'tokenizer.ggml.pre', which says how text is split into words, and the "
                "vocabulary is none that edgesdk knows",
                hint="write the name of the model's split into a copy: gguf-new-metadata --pre-tokenizer NAME IN OUT "
                "(from the Python package gguf; NAME as llama-bpe, qwen2 or gpt-2), or convert the model again",
            )
    split = _BY_NAME.get(name)
    if split is None:
        near = difflib.get_close_matches(name, _BY_NAME, n=3, cutoff=0.5)
        guess = f"; nearest: {', '.join(near)}" if near else ""
        what = "is not built" if name in _NOT_BUILT else "is not known"
        raise ModelError(
            f"{where}: pre-tokenizer '{name}' {what}{guess}; known: {', '.join(sorted(_BY_NAME))}",
            hint="open the original Hugging Face checkpoint, whose tokenizer.json says how text is split",
        )
    return split


def recognised(merges: Iterable[str]) -> str | None:
    """The name of the split that a published vocabulary was trained with, known by its merges; or None."""
    return _KNOWN_MERGES.get(hashlib.sha256("\n".join(merges).encode()).hexdigest()[:16])
