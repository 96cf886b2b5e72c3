"""Which file of a Hugging Face folder says what, against AutoTokenizer of the installed transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer
from transformers.models.auto import tokenization_auto

import edgesdk
from edgesdk.errors import ModelError
from edgesdk.model.families import FAMILIES
from edgesdk.model.tokenizer import Tokenizer, open_tokenizer, written_tokenizer
from edgesdk.model.tokenizer_classes import CLASSES, MISNAMED, REGISTERED

from ..conftest import make_checkpoint

MARK = "\u2581"
TEXTS = (
    "the cat  sat\n\non 1234 mats",
    " <|im_start|>user\nHi<|im_end|> \n<s>x</s> <pad>y<extra> <image>",
    "cafe\u0301 caf\u00e9 \u65e5\u672c <unk>\u2581a",
    "",
)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ eos_token }}{% endfor %}"
    "{{ image_token }}{{ unk_token }}{{ pad_token }}|{{ sep_token }}{{ pad_token is defined }}"
)
QUESTION = [{"role": "user", "content": "Hi"}]


def byte_level(*steps: Any, **model: Any) -> Backend:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<|im_end|>", "<extra>", "th", "the", "\u0120the", "12", "34", "\u01201"]
    vocab = {token: index for index, token in enumerate([*alphabet, *words])}
    merges = [("t", "h"), ("th", "e"), ("\u0120", "the"), ("1", "2"), ("3", "4"), ("\u0120", "1")]
    backend = Backend(models.BPE(vocab, merges, **model))
    step = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, step]) if steps else step
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "</s>")])
    return backend


def marked(normalizer: Any = None, pre_tokenizer: Any = None) -> Backend:
    """SentencePiece's way: U+2581 for a space, pieces for bytes."""
    pieces = [*"theca m123", MARK, *(f"<0x{byte:02X}>" for byte in range(256))]
    words = ["th", "the", f"{MARK}the", f"{MARK}c", f"{MARK}{MARK}"]
    vocab = {token: index for index, token in enumerate(["<unk>", "<s>", "</s>", *pieces, *words])}
    merges = [("t", "h"), ("th", "e"), (MARK, "the"), (MARK, "c"), (MARK, MARK)]
    backend = Backend(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizer
    steps = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1)]
    backend.decoder = decoders.Sequence(steps)
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


def with_bos(backend: Backend) -> Backend:
    bos = [("<s>", backend.token_to_id("<s>"))]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=bos)
    return backend


def rules(content: str, *, typed: bool = False, **more: bool) -> dict[str, Any]:
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True, **more}
    return {"content": content, **flags, **({"__type": "AddedToken"} if typed else {})}


def write(folder: Path, backend: Backend, files: dict[str, Any], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return folder


def size(backend: Backend) -> int:
    return backend.get_vocab_size()


def refuse_differences(folder: Path) -> Tokenizer:
    """Ids, vocabulary, named tokens, text of ids and rendered conversations as AutoTokenizer has them."""
    ours, theirs = open_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert dict(ours.variables) == theirs.special_tokens_map
    assert ours.backend.get_vocab(with_added_tokens=True) == theirs.get_vocab()
    for text in TEXTS:
        ids = theirs(text).input_ids
        assert ours.encode(text, prefix=True) == ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    if ours.chat_template is None:
        assert theirs.chat_template is None
    else:
        wanted = theirs.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
        assert ours.render(QUESTION) == wanted
    return ours


NAMED = {"bos_token": "<s>", "eos_token": "</s>"}
CONFIGS: dict[str, dict[str, Any]] = {
    "none": {},
    "plain": {**NAMED, "chat_template": TEMPLATE},
    "bos null": {**NAMED, "bos_token": None, "chat_template": TEMPLATE},
    "objects": {
        "bos_token": rules("<s>", typed=True),
        "eos_token": rules("</s>", typed=True),
        "chat_template": TEMPLATE,
    },
    "named in the vocabulary": {**NAMED, "eos_token": "<|im_end|>"},
    "named nowhere": {**NAMED, "pad_token": "<pad>", "unk_token": "<unk>", "sep_token": "<sep>"},
    "model's own": {**NAMED, "image_token": "<image>", "chat_template": TEMPLATE},
    "extra as names": {**NAMED, "extra_special_tokens": {"image_token": "<image>"}, "chat_template": TEMPLATE},
    "extra as list": {**NAMED, "extra_special_tokens": ["<extra>", "<image>"]},
    "additional": {**NAMED, "additional_special_tokens": ["<extra>", "<pad>"]},
    "additional as objects": {**NAMED, "additional_special_tokens": [rules("<pad>", typed=True, lstrip=True)]},
    "add_bos_token": {**NAMED, "add_bos_token": True},
    "no add_bos_token": {**NAMED, "add_bos_token": False},
    "add_eos_token": {**NAMED, "add_eos_token": True},
    "list of templates": {
        **NAMED,
        "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": TEMPLATE}],
    },
}
OTHERS: dict[str, dict[str, Any]] = {
    "": {},
    "special_tokens_map": {"special_tokens_map.json": {"pad_token": "<pad>", "eos_token": rules("<|im_end|>")}},
    "map without": {"special_tokens_map.json": {"bos_token": None}},
    "template": {"chat_template.jinja": "J" + TEMPLATE},
    "both templates": {
        "chat_template.jinja": "J" + TEMPLATE,
        "additional_chat_templates/default.jinja": "D" + TEMPLATE,
        "additional_chat_templates/rag.jinja": "R",
    },
    "processor's template": {"chat_template.json": {"chat_template": "P" + TEMPLATE}},
}


@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("config", CONFIGS)
def test_files_are_read_as_transformers_reads_them(tmp_path: Path, config: str, other: str, post: bool) -> None:
    backend = with_bos(byte_level()) if post else byte_level()
    files = {"tokenizer_config.json": CONFIGS[config], **OTHERS[other]} if CONFIGS[config] else OTHERS[other]
    refuse_differences(write(tmp_path / "m", backend, files, bos_token_id=3, eos_token_id=5))


@pytest.mark.parametrize("kind", ["decoder", "decoder's rules", "added_tokens.json", "both"])
def test_numbered_tokens_of_other_files_are_added(tmp_path: Path, kind: str) -> None:
    backend = byte_level()
    first = size(backend)
    numbered = {str(first): rules("<|im_start|>"), str(first + 1): rules("<pad>", special=False, normalized=True)}
    if kind == "decoder's rules":  # over those of tokenizer.json
        numbered[str(backend.token_to_id("<s>"))] = rules("<s>", lstrip=True, rstrip=True)
    config = {**NAMED, "eos_token": "<|im_end|>"}
    older = {"<|im_start|>": first, "<pad>": first + 1}
    files: dict[str, Any] = {"tokenizer_config.json": config}
    if kind == "added_tokens.json":
        files["added_tokens.json"] = older
        files["special_tokens_map.json"] = {"additional_special_tokens": ["<|im_start|>"]}
    else:
        config["added_tokens_decoder"] = numbered
    if kind == "both":  # the numbers of tokenizer_config.json replace the older files
        files["added_tokens.json"] = {"<other>": first}
        files["special_tokens_map.json"] = {"pad_token": "<other>"}
    ours = refuse_differences(write(tmp_path / "m", backend, files))
    assert ours.encode("<|im_start|>x<pad>") == [first, ours.encode("x")[0], first + 1]
    assert ours.special.stop == (ours.backend.token_to_id("<|im_end|>"),)
    assert "<pad>" in Backend.from_str(ours.definition).get_vocab()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "added_tokens.json"])
def test_contradicting_numbers_are_refused(tmp_path: Path, name: str) -> None:
    backend = byte_level()
    number = size(backend) + 7
    files: dict[str, Any] = {"tokenizer_config.json": NAMED, name: {"<new>": number}}
    if name == "tokenizer_config.json":
        files[name] = {**NAMED, "added_tokens_decoder": {str(number): rules("<new>")}}
    folder = write(tmp_path / "m", backend, files)
    with pytest.raises(ModelError, match=rf"'<new>' is {number} in {name}, but {size(backend)}") as refused:
        open_tokenizer(folder)
    assert refused.value.hint and "save_pretrained" in refused.value.hint


@pytest.mark.parametrize(
    "broken",
    [
        {"added_tokens_decoder": {"x": rules("a")}},
        {"added_tokens_decoder": {"7": {"special": True}}},
        {"added_tokens_decoder": {"7": {"content": 7}}},
        {"added_tokens_decoder": {"7": 7}},
        {"added_tokens_decoder": [1]},
    ],
)
def test_damaged_added_tokens_are_one_error(tmp_path: Path, broken: dict[str, Any]) -> None:
    folder = write(tmp_path / "m", byte_level(), {"tokenizer_config.json": broken})
    with pytest.raises(ModelError, match="added tokens cannot be read"):
        open_tokenizer(folder)


def test_the_definition_of_the_newest_version_is_read(tmp_path: Path) -> None:
    names = ["tokenizer.4.0.0.json", "tokenizer.5.1.0.json", "tokenizer.99.0.0.json", "tokenizer.json"]
    config = {"tokenizer_config.json": {**NAMED, "fast_tokenizer_files": names}}
    folder = write(tmp_path / "m", byte_level(), config)
    with_bos(byte_level()).save(str(folder / names[1]))
    byte_level(pre_tokenizers.Split(Regex("t"), "removed")).save(str(folder / names[0]))
    assert refuse_differences(folder).special.prefix == (264,)


@pytest.mark.parametrize(
    "files",
    [
        {"additional_chat_templates/rag.jinja": "R", "tokenizer_config.json": {"chat_template": TEMPLATE}},
        {"tokenizer_config.json": {"chat_template": [{"name": "rag", "template": "R"}]}},
    ],
)
def test_templates_without_a_default_are_refused(tmp_path: Path, files: dict[str, Any]) -> None:
    folder = write(tmp_path / "m", byte_level(), files)
    with pytest.raises(ValueError, match="multiple chat templates with no default"):
        AutoTokenizer.from_pretrained(folder).apply_chat_template(QUESTION, tokenize=False)
    with pytest.raises(ModelError, match="none of them called 'default'") as refused:
        open_tokenizer(folder)
    assert refused.value.hint and "chat_template.jinja" in refused.value.hint


def test_a_model_that_sees_images_has_its_processors_template(tmp_path: Path) -> None:
    files = {"chat_template.json": {"chat_template": "P"}, "tokenizer_config.json": {"chat_template": TEMPLATE}}
    assert open_tokenizer(write(tmp_path / "m", byte_level(), files, vision_config={})).chat_template == "P"


def test_stops_say_where_they_come_from(tmp_path: Path) -> None:
    files = {"tokenizer_config.json": NAMED, "generation_config.json": {"eos_token_id": [264, 265, 9]}}
    ours = open_tokenizer(write(tmp_path / "m", byte_level(), files, eos_token_id=7))
    assert ours.special.stop == (265, 264, 9, 7)
    assert ours.stop_sources == {
        265: "tokenizer_config.json: eos_token, generation_config.json: eos_token_id",
        264: "generation_config.json: eos_token_id",
        9: "generation_config.json: eos_token_id",
        7: "config.json: eos_token_id",
    }


def test_other_files_that_name_the_end_are_said(tmp_path: Path) -> None:
    older = {"special_tokens_map.json": {"eos_token": "</s>"}}
    ours = open_tokenizer(write(tmp_path / "m", byte_level(), older))
    assert ours.stop_sources == {265: "special_tokens_map.json: eos_token"}
    config = {"tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"}}
    ours = open_tokenizer(write(tmp_path / "n", marked(LLAMA), config))
    assert ours.stop_sources == {2: "the default of its class"}


def test_a_prefix_that_files_contradict_is_said(tmp_path: Path) -> None:
    files = {"tokenizer_config.json": {**NAMED, "add_bos_token": True}}
    (note,) = open_tokenizer(write(tmp_path / "m", byte_level(), files)).notes
    assert "add_bos_token: true" in note and "puts no <s>" in note
    assert not open_tokenizer(write(tmp_path / "n", with_bos(byte_level()), files)).notes


LLAMA = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
REBUILT: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "llama": (lambda: marked(LLAMA), {"tokenizer_class": "LlamaTokenizer"}, {}),
    "llama legacy": (lambda: marked(LLAMA), {"tokenizer_class": "LlamaTokenizerFast", "legacy": True}, {}),
    "llama no space": (lambda: marked(LLAMA), {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}, {}),
    "llama of mistral": (lambda: marked(LLAMA), {"tokenizer_class": "LlamaTokenizer"}, {"model_type": "mistral"}),
    "llama over bytes": (byte_level, {"tokenizer_class": "LlamaTokenizerFast", **NAMED}, {}),
    "gpt2": (
        lambda: byte_level(pre_tokenizers.Digits(individual_digits=True)),
        {"tokenizer_class": "GPT2Tokenizer", **NAMED, "unk_token": "</s>"},
        {},
    ),
    "gpt2 with a space": (
        byte_level,
        {"tokenizer_class": "GPT2Tokenizer", **NAMED, "unk_token": "</s>", "add_prefix_space": True},
        {"model_type": "gpt2"},
    ),
    "gpt_neox": (
        lambda: with_bos(byte_level()),
        {"tokenizer_class": "GPTNeoXTokenizer", **NAMED, "unk_token": "</s>", "pad_token": "</s>"},
        {"model_type": "gpt_neox"},
    ),
    "qwen2": (
        lambda: byte_level(ignore_merges=True),
        {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "unk_token": None, "pad_token": "</s>"},
        {"model_type": "qwen2"},
    ),
    "qwen3 by its type": (
        byte_level,
        {"eos_token": "<|im_end|>", "unk_token": None, "pad_token": "</s>"},
        {"model_type": "qwen3"},
    ),
    "qwen2 misnamed": (
        lambda: byte_level(pre_tokenizers.Split(Regex(r"\w"), "isolated")),
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "unk_token": None, "pad_token": None},
        {"model_type": "qwen2"},
    ),
    "qwen3 as the file": (
        lambda: byte_level(pre_tokenizers.Split(Regex(r"\w"), "isolated")),
        {"tokenizer_class": "PreTrainedTokenizerFast", **NAMED},
        {"model_type": "qwen3"},
    ),
}


@pytest.mark.parametrize("name", REBUILT)
def test_classes_that_build_their_own_steps(tmp_path: Path, name: str) -> None:
    backend, config, model = REBUILT[name]
    refuse_differences(write(tmp_path / "m", backend(), {"tokenizer_config.json": config}, **model))


def test_the_prefix_of_a_vocabulary_without_an_a(tmp_path: Path) -> None:
    backend = Backend(models.BPE({"\u0431": 0, "\u0432": 1}, []))
    backend.add_special_tokens(["<s>"])
    folder = write(tmp_path / "m", with_bos(backend), {"tokenizer_config.json": {"bos_token": "<s>"}})
    assert open_tokenizer(folder).special.prefix == (2,)


def test_an_end_behind_each_text_is_left_out_and_said(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "m")
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    tokens = [(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair=None, special_tokens=tokens)
    backend.save(str(folder / "tokenizer.json"))
    assert open_tokenizer(folder).added == ((256,), (257,)) and open_tokenizer(folder).special.prefix == (256,)
    remarks = [remark for remark in edgesdk.lint(folder, "linux-arm64") if remark.about == "tokenizer"]
    (remark,) = (remark for remark in remarks if remark.level == "warning")
    assert "writes </s> behind each text" in remark.text
    assert edgesdk.open_model(folder).tokenizer is not None


def test_other_ids_than_the_file_gives_are_said(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", marked(LLAMA), {"tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"}})
    (note,) = open_tokenizer(folder).notes
    assert "LlamaTokenizer" in note and "PreTrainedTokenizerFast" in note
    same = marked(None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False))
    folder = write(tmp_path / "n", same, {"tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer"}})
    tokenizer = open_tokenizer(folder)
    assert not tokenizer.notes and tokenizer.definition == (folder / "tokenizer.json").read_text()


def test_the_classes_are_those_of_the_installed_transformers() -> None:
    mapping = tokenization_auto.TOKENIZER_MAPPING_NAMES
    wrong = tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    kinds = [kind for name in FAMILIES.names() for kind in FAMILIES.get(name).model_types]
    assert {kind: mapping[kind] for kind in kinds if mapping.get(kind)} == REGISTERED
    assert {kind for kind in kinds if kind in wrong} == MISNAMED
    assert {name for name in REGISTERED.values() if name != "TokenizersBackend"} <= CLASSES.keys()


@pytest.mark.parametrize("pad", [None, "<pad>"])
def test_a_bundles_files_give_every_reader_the_same(tmp_path: Path, pad: str | None) -> None:
    config = {**NAMED, "chat_template": TEMPLATE, "image_token": "<image>", **({"pad_token": pad} if pad else {})}
    folder = write(tmp_path / "m", with_bos(byte_level()), {"tokenizer_config.json": config})
    ours = open_tokenizer(folder)
    out = tmp_path / "b"
    out.mkdir()
    (out / "tokenizer.json").write_text(ours.definition)
    (out / "tokenizer_config.json").write_text(ours.config_text())
    (out / "chat_template.jinja").write_text(TEMPLATE)
    theirs, plain = AutoTokenizer.from_pretrained(out), Backend.from_file(str(out / "tokenizer.json"))
    again = written_tokenizer(out, ours.special, 1000, template="chat_template.jinja")
    assert theirs.special_tokens_map == dict(ours.variables) == dict(again.variables)
    for text in TEXTS:
        ids = ours.encode(text, prefix=True)
        assert theirs(text).input_ids == plain.encode(text).ids == again.encode(text, prefix=True) == ids
    assert theirs.apply_chat_template(QUESTION, tokenize=False) == again.render(QUESTION, answering=False)


@pytest.mark.parametrize("beyond", [1, 64])
def test_added_tokens_beyond_the_embedding_are_refused_in_a_text(beyond: int, tmp_path: Path) -> None:
    backend = byte_level()
    rows = size(backend)
    backend.add_special_tokens([f"<image{index}>" for index in range(beyond)])
    folder = write(tmp_path / "m", backend, {"tokenizer_config.json": {**NAMED, "pad_token": "<image0>"}})
    ours = open_tokenizer(folder).within(rows)
    assert ours.size == rows and ours.encode("the <image x") and ours.special.pad is None
    with pytest.raises(ModelError, match=rf"<image0> \(id {rows}\), which this model does not have") as refused:
        ours.encode("the <image0> x")
    assert refused.value.hint
    assert AutoTokenizer.from_pretrained(folder)("<image0>").input_ids == [rows]  # other readers keep the token
    whole = open_tokenizer(folder).within(rows + beyond)
    assert whole.rows is None and whole.encode("<image0>") == [rows]


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    backend = byte_level()
    rows = size(backend)
    folder = write(tmp_path / "m", backend, {"tokenizer_config.json": NAMED}, eos_token_id=rows)
    with pytest.raises(ModelError, match=f"special token id {rows} lies outside"):
        open_tokenizer(folder).within(rows)
    with pytest.raises(ModelError, match="has ids up to"):
        open_tokenizer(folder).within(rows - 10)
    backend.add_special_tokens([f"<t{index}>" for index in range(65)])
    folder = write(tmp_path / "n", backend, {"tokenizer_config.json": NAMED})
    with pytest.raises(ModelError, match=f"has ids up to {rows + 64}, but the embedding has {rows} rows"):
        open_tokenizer(folder).within(rows)
