"""Tokenizers of GGUF files: splits by name, end tokens as llama.cpp collects them, the prefix for every reader."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

import edgesdk
from edgesdk.errors import ModelError
from edgesdk.model import gguf_splits
from edgesdk.model.gguf_splits import recognised, split_of
from edgesdk.model.gguf_tokenizer import tokenizer_from_gguf
from edgesdk.model.opening import open_model
from edgesdk.model.tokenizer import Tokenizer

from .test_gguf import llama_gguf

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
WORDS = ["ab", "\u0120a", "<s>", "</s>", "<|im_end|>", "<|endoftext|>", "<tool>"]
TEXTS = ("ab a  b\n\n1234 don't", "<s>x</s> <|im_end|>y<tool>", "\u65e5\u672c caf\u00e9 \U0001f600", "")


def metadata(**changes: Any) -> dict[str, Any]:
    tokens = [*ALPHABET, *WORDS]
    kinds = {"<s>": 3, "</s>": 3, "<|im_end|>": 4, "<tool>": 4}
    keys = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [kinds.get(token, 1) for token in tokens],
        "merges": ["a b", "\u0120 a"],
        "bos_token_id": tokens.index("<s>"),
        "eos_token_id": tokens.index("</s>"),
        "add_bos_token": True,
        **changes,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items() if value is not None}


def spm(*words: str, **changes: Any) -> dict[str, Any]:
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "\u2581",
        "a",
        "b",
        "\u2581a",
        *words,
    ]
    keys = {
        "model": "llama",
        "tokens": tokens,
        "token_type": [2, 3, 3] + [6] * 256 + [1] * (len(tokens) - 259),
        "scores": [-float(index) for index, _ in enumerate(tokens)],
        **changes,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items() if value is not None}


#: What each split makes of a text, by words of its published expression.
SPLIT = {
    "gpt-2": ["don", "'t", " 1234", "!?", "\n\n", " a", "'", "LL", " ", " b", "\u0301"],
    "smollm": ["don", "'t", " ", "1", "2", "3", "4", "!?", "\n\n", " a", "'", "LL", " ", " b", "\u0301"],
    "llama-bpe": ["don", "'t", " ", "123", "4", "!?\n\n", " a", "'LL", " ", " b", "\u0301"],
    "qwen2": ["don", "'t", " ", "1", "2", "3", "4", "!?\n\n", " a", "'LL", " ", " b", "\u0301"],
    "qwen35": ["don", "'t", " ", "1", "2", "3", "4", "!?\n\n", " a", "'LL", " ", " b\u0301"],
    "tekken": ["don", "'t", " ", "1", "2", "3", "4", "!?\n\n", " a", "'LL", " ", " b\u0301"],
    "gpt-4o": ["don't", " ", "123", "4", "!?\n\n", " a'LL", " ", " b\u0301"],
    "deepseek-v3": ["don", "'t", " ", "123", "4", "!?\n\n", " a", "'LL", " ", " b\u0301"],
    "deepseek-coder": [
        "don",
        "'",
        "t",
        " ",
        "1",
        "2",
        "3",
        "4",
        "!?",
        "\n",
        "\n",
        " a",
        "'",
        "LL",
        " ",
        " b",
        "\u0301",
    ],
    "falcon": ["don", "'", "t", " ", "123", "4", "!?", "\n\n", " a", "'", "LL", " ", " b", "\u0301"],
    "bloom": ["don't", " 1234", "!?\n\n", " a'LL", " ", " b\u0301"],
    "default": ["don", "'", "t", " ", "123", "4", "!?", "\n\n", " a", "'", "LL", " ", " b", "\u0301"],
}


def words(name: str, text: str) -> list[str]:
    """The words of a split, without its step to the alphabet of bytes."""
    steps = split_of(name, [], "x").steps()
    steps[-1] = {**steps[-1], "type": "ByteLevel"}
    definition = json.loads(tokenizer_from_gguf(metadata(pre=name), "x").definition)
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    backend = Backend.from_str(json.dumps(definition))
    assert backend.pre_tokenizer is not None
    return [text[start:end] for _, (start, end) in backend.pre_tokenizer.pre_tokenize_str(text)]


@pytest.mark.parametrize("name", SPLIT)
def test_splits(name: str) -> None:
    assert words(name, "don't 1234!?\n\n a'LL  b\u0301") == SPLIT[name]


def every_name() -> list[str]:
    return [name for split in gguf_splits._SPLITS for name in split.names]


def test_each_name_opens_and_loses_no_text() -> None:
    names = every_name()
    assert len(names) == len(set(names)) and len(names) > 70
    for name in names:
        tokenizer = tokenizer_from_gguf(metadata(pre=name), "x")
        for text in TEXTS:
            assert "".join(words(name, text)) == text
            assert tokenizer.decode(tokenizer.encode(text.replace("<s>", "").replace("</s>", ""))) == text.replace(
                "<s>", ""
            ).replace("</s>", "").replace("<|im_end|>", "")


@pytest.mark.parametrize(
    ("name", "same"),
    [(alias, "llama-bpe") for alias in ("llama3", "llama-v3", "falcon3", "lfm2", "pixtral", "midm-2.0")]
    + [(alias, "qwen2") for alias in ("deepseek-r1-qwen", "megrez")]
    + [(alias, "gpt-2") for alias in ("mpt", "olmo", "phi-2", "jais", "exaone4")]
    + [(alias, "smollm") for alias in ("starcoder", "refact", "command-r", "exaone")],
)
def test_names_of_the_same_split(name: str, same: str) -> None:
    assert split_of(name, [], "x").expressions == split_of(same, [], "x").expressions
    assert split_of(name, [], "x").whole_words == split_of(same, [], "x").whole_words


@pytest.mark.parametrize(("name", "near"), [("llamabpe", "llama-bpe"), ("qwen3", "qwen2"), ("gpt2", "gpt-2")])
def test_an_unknown_name_is_refused_with_near_ones(name: str, near: str) -> None:
    with pytest.raises(ModelError, match=rf"'{name}' is not known; nearest: .*{re.escape(near)}") as refused:
        tokenizer_from_gguf(metadata(pre=name), "file.gguf")
    assert refused.value.hint


def test_a_name_that_is_not_built_is_said_so() -> None:
    with pytest.raises(ModelError, match="'kimi-k2' is not built"):
        tokenizer_from_gguf(metadata(pre="kimi-k2"), "file.gguf")


def test_a_missing_name_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lack 'tokenizer\.ggml\.pre'") as refused:
        tokenizer_from_gguf(metadata(pre=None), "file.gguf")
    assert refused.value.hint and "gguf-new-metadata --pre-tokenizer" in refused.value.hint


def test_a_known_vocabulary_without_a_name_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    merges = metadata()["tokenizer.ggml.merges"]
    assert recognised(merges) is None
    digest = hashlib.sha256("\n".join(merges).encode()).hexdigest()[:16]
    monkeypatch.setitem(gguf_splits._KNOWN_MERGES, digest, "llama3")
    tokenizer = tokenizer_from_gguf(metadata(pre=None), "file.gguf")
    assert tokenizer.encode("a 12\n\n34") == tokenizer_from_gguf(metadata(pre="llama-bpe"), "x").encode("a 12\n\n34")
    (note,) = tokenizer.notes
    assert "lacks 'tokenizer.ggml.pre'" in note and "'llama-bpe'" in note
    assert set(gguf_splits._KNOWN_MERGES.values()) <= set(every_name())


@pytest.mark.parametrize("kind", ["bert", "t5", "rwkv", "gemma4", "plamo2", "none"])
def test_other_kinds_are_refused_by_name(kind: str) -> None:
    with pytest.raises(ModelError, match=f"kind '{kind}'") as refused:
        tokenizer_from_gguf(metadata(model=kind), "file.gguf")
    assert refused.value.hint


def test_end_tokens_and_their_sources() -> None:
    tokenizer = tokenizer_from_gguf(metadata(eot_token_id=len(ALPHABET) + 3), "x")
    ends = {tokenizer.token(index): source for index, source in tokenizer.stop_sources.items()}
    assert ends == {
        "</s>": "tokenizer.ggml.eos_token_id, tokenizer.ggml.eot_token_id",
        "<|im_end|>": "its text, as llama.cpp reads it",
        "<|endoftext|>": "its text, as llama.cpp reads it",
    }
    assert tokenizer.special.stop == tuple(tokenizer.stop_sources)
    ids = tokenizer.encode("a<|im_end|><|endoftext|><tool>")
    assert tokenizer.decode(ids) == "a<tool>"  # ends are not printed, other tokens that users defined are


@pytest.mark.parametrize(
    ("tokens", "ordinary"),
    [
        (["<|end|>", "<|return|>", "<|call|>"], "<|end|>"),
        (["<|end|>", "<|flush|>", "<|calls|>"], "<|end|>"),
        (["</s>", "<|tool_response>"], "</s>"),
    ],
)
def test_end_tokens_that_others_show_to_be_ordinary(tokens: list[str], ordinary: str) -> None:
    names = [*ALPHABET, *tokens]
    keys = metadata(tokens=names, token_type=[1] * len(names), bos_token_id=None, eos_token_id=None)
    ends = {names[index] for index in tokenizer_from_gguf(keys, "x").special.stop}
    assert ends == {*tokens} - {ordinary}
    alone = metadata(tokens=[*ALPHABET, ordinary], token_type=None, bos_token_id=None, eos_token_id=None)
    assert tokenizer_from_gguf(alone, "x").special.stop == (len(ALPHABET),)


@pytest.mark.parametrize(
    ("changes", "variable", "prefix"),
    [
        ({}, "<s>", True),
        ({"add_bos_token": False}, None, False),
        ({"add_bos_token": None}, "<s>", False),
        ({"add_bos_token": None, "pre": "llama-bpe"}, "<s>", True),
        ({"add_bos_token": None, "pre": "tekken"}, "<s>", True),
        ({"add_bos_token": True, "bos_token_id": None}, None, False),
        ({"add_bos_token": True, "bos_token_id": 10_000}, None, False),
    ],
)
def test_the_bos_of_text_and_of_templates(changes: dict[str, Any], variable: str | None, prefix: bool) -> None:
    keys = metadata(**changes) | {"tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}"}
    tokenizer = tokenizer_from_gguf(keys, "x")
    assert tokenizer.variables.get("bos_token") == variable
    assert tokenizer.special.prefix == ((len(ALPHABET) + 2,) if prefix else ())
    assert tokenizer.render([{"role": "user", "content": "a"}]) == (variable or "") + "a"


def test_sentencepiece_has_llama_cpps_usual_ids() -> None:
    tokenizer = tokenizer_from_gguf(spm(), "x")
    assert tokenizer.special.bos == 1 and tokenizer.special.prefix == (1,) and tokenizer.special.stop == (2,)
    assert dict(tokenizer.variables) == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    assert tokenizer.encode("a", prefix=True) == [1, 262]
    unspaced = tokenizer_from_gguf(spm(add_space_prefix=False, add_bos_token=False), "x")
    assert unspaced.encode("a a", prefix=True) == [260, 262]


def test_an_end_token_behind_a_text_is_left_out_and_said() -> None:
    tokenizer = tokenizer_from_gguf(spm(add_eos_token=True), "x")
    assert tokenizer.encode("a", prefix=True) == [1, 262]
    assert "add_eos_token" in tokenizer.notes[0]


def test_extra_spaces_stay_and_that_is_said() -> None:
    tokenizer = tokenizer_from_gguf(spm(remove_extra_whitespaces=True), "x")
    assert tokenizer.decode(tokenizer.encode("a  b")) == "a  b"
    assert "remove_extra_whitespaces" in tokenizer.notes[0]


def written(tokenizer: Tokenizer, folder: Path) -> Path:
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer.definition)
    (folder / "tokenizer_config.json").write_text(tokenizer.config_text())
    return folder


@pytest.mark.parametrize("add_bos", [True, False, None])
@pytest.mark.parametrize("kind", ["gpt-2", "llama-bpe", "qwen2", "tekken", "falcon", "spm"])
def test_every_reader_gets_the_same_prefix(tmp_path: Path, kind: str, add_bos: bool | None) -> None:
    keys = spm(add_bos_token=add_bos) if kind == "spm" else metadata(pre=kind, add_bos_token=add_bos)
    ours = tokenizer_from_gguf(keys, "x")
    folder = written(ours, tmp_path / "b")
    theirs, plain = AutoTokenizer.from_pretrained(folder), Backend.from_file(str(folder / "tokenizer.json"))
    assert ours.written_prefix() == ("", len(ours.special.prefix))
    assert theirs.special_tokens_map == dict(ours.variables)
    for text in TEXTS:
        ids = ours.encode(text, prefix=True)
        assert theirs(text).input_ids == plain.encode(text).ids == ids
        assert theirs(text, add_special_tokens=False).input_ids == ours.encode(text)
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)


@pytest.mark.parametrize("kind", ["gpt-2", "smollm", "llama-bpe", "qwen2", "spm"])
def test_executorchs_tokenizer_gives_the_prefix(tmp_path: Path, kind: str) -> None:
    reader = pytest.importorskip("pytorch_tokenizers").CppHFTokenizer()
    ours = tokenizer_from_gguf(spm() if kind == "spm" else metadata(pre=kind), "x")
    reader.load(str(written(ours, tmp_path / "b") / "tokenizer.json"))
    start, count = ours.written_prefix()
    for text in TEXTS[:2]:
        assert list(reader.encode(start + text, count, 0)) == ours.encode(text, prefix=True)


@pytest.mark.parametrize(
    ("name", "same"), [("gpt-2", True), ("llama-bpe", True), ("falcon", False), ("default", False)]
)
def test_lint_says_where_executorchs_tokenizer_gives_other_ids(
    checkpoint: Path, tmp_path: Path, name: str, same: bool
) -> None:
    pytest.importorskip("pytorch_tokenizers")
    model = open_model(checkpoint)
    assert model.tokenizer is not None
    other = replace(model, tokenizer=tokenizer_from_gguf(metadata(pre=name), "x"))
    texts = [remark.text for remark in edgesdk.lint(other, "android-arm64") if remark.level == "warning"]
    assert any("it gives other ids, for instance for" in text for text in texts) is not same


def test_a_bundle_of_a_gguf_file_gives_every_reader_the_prefix(checkpoint: Path, tmp_path: Path) -> None:
    llama_gguf(tmp_path / "tiny.gguf", checkpoint)
    out = tmp_path / "b"
    edgesdk.export(tmp_path / "tiny.gguf", "host", out, checks=edgesdk.Checks(skip=True))
    with edgesdk.open_bundle(out) as bundle:
        ours = edgesdk.Chat(bundle).tokenizer
    assert ours.special.prefix == (256,)
    theirs, plain = AutoTokenizer.from_pretrained(out), Backend.from_file(str(out / "tokenizer.json"))
    for text in TEXTS:
        assert theirs(text).input_ids == plain.encode(text).ids == ours.encode(text, prefix=True)


@pytest.mark.parametrize("key", ["tokens", "token_type", "merges", "bos_token_id", "add_bos_token", "pre"])
@pytest.mark.parametrize("value", [7, "x", [], [[1]], {"a": 1}, np.float32(1.5)])
def test_damaged_values_are_one_error_or_read(key: str, value: Any) -> None:
    try:
        tokenizer_from_gguf(metadata(**{key: value}), "x").encode("a")
    except ModelError as failure:
        assert failure.message


def test_lint_says_what_ends_an_answer(checkpoint: Path, tmp_path: Path) -> None:
    llama_gguf(tmp_path / "tiny.gguf", checkpoint)
    texts = [remark.text for remark in edgesdk.lint(tmp_path / "tiny.gguf", "host") if remark.about == "tokenizer"]
    assert any("(257: tokenizer.ggml.eos_token_id)" in text for text in texts)
    assert open_model(tmp_path / "tiny.gguf").tokenizer is not None
