"""Vocabulary pruning: kept text gets the same tokens, other text can still be written, nothing special goes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

import edgesdk
from edgesdk.compress.base import Setting
from edgesdk.compress.calibration import Calibration
from edgesdk.compress.pruning.vocabulary import Vocabulary
from edgesdk.compressing import compress_model
from edgesdk.errors import EdgeError, ModelError, RecipeError
from edgesdk.exporting import Checks, export
from edgesdk.model import Model
from edgesdk.model.opening import open_model
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.reference import ReferenceModel
from edgesdk.model.tokenizer import SpecialTokens, Tokenizer
from edgesdk.model.vocabulary import closed, ids_in, in_vocabulary_of, required_ids, restricted, without_others
from edgesdk.progress import SILENT
from edgesdk.quality import compare_quality

WORDS = [
    "the quick brown fox jumps over the lazy dog and then the other foxes jumped over lazier dogs",
    "pruning a vocabulary keeps the words that a corpus needs; rarer ones are written with shorter pieces",
    "numbers 12345 and 67890, naïve café, Привет мир, 東京 and 🚀 appear in some texts but not in others",
    "an embedding of forty nine thousand rows is a fifth of a small language model and its head as well",
]
CORPUS = [f"{first} {second}" for first in WORDS for second in WORDS] * 4
KINDS = ("byte-level", "byte-fallback", "unigram", "wordpiece", "wordlevel")


def make(kind: str) -> Tokenizer:
    """A trained tokenizer of each kind, with three special tokens."""
    special = ["<unk>", "<s>", "</s>"]
    if kind == "byte-level":
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    elif kind == "byte-fallback":
        made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special + [f"<0x{i:02X}>" for i in range(256)])
    elif kind == "unigram":
        made = tokenizers.Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>")
    elif kind == "wordpiece":
        made = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    else:
        made = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.WordLevelTrainer(vocab_size=300, special_tokens=special)
    made.train_from_iterator(CORPUS, trainer)
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    definition = json.loads(made.to_str())
    definition["added_tokens"] = definition["added_tokens"][:3]  # bytes are tokens like others, as in Llama 2
    return Tokenizer(json.dumps(definition), SpecialTokens(bos=1, stop=(2,), prefix=(1,)))


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return make(request.param)


def pruned(tokenizer: Tokenizer, texts: list[str]) -> tuple[Tokenizer, list[int]]:
    needed = required_ids(tokenizer).union(*(tokenizer.encode(text) for text in texts))
    ids = sorted(closed(tokenizer, needed))
    return without_others(tokenizer, ids), ids


def test_text_in_the_kept_vocabulary_gets_the_same_tokens(tokenizer) -> None:
    small, ids = pruned(tokenizer, WORDS[:2])
    assert len(ids) < tokenizer.size
    for text in (*WORDS[:2], WORDS[0][4:30], f"{WORDS[1]} {WORDS[0]}"):
        wanted = tokenizer.encode(text, prefix=True)
        if set(wanted) <= set(ids):
            found = small.encode(text, prefix=True)
            assert [ids[index] for index in found] == wanted
            assert small.decode(found) == tokenizer.decode(wanted)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=12), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_any_text_of_kept_tokens_does(picks, seed) -> None:
    """Cuts of the corpus, over a vocabulary that another part of it chose."""
    tokenizer = BYTES
    small, ids = PRUNED[seed]
    text = "".join(CORPUS[pick % 16][pick % 50 : pick % 50 + pick % 23] for pick in picks)
    wanted = tokenizer.encode(text)
    if set(wanted) <= set(ids):
        assert [ids[index] for index in small.encode(text)] == wanted
    assert small.decode(small.encode(text)) == tokenizer.decode(wanted)


BYTES = make("byte-level")
PRUNED = [pruned(BYTES, [WORDS[index]]) for index in range(4)]


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback"])
def test_any_text_can_still_be_written(kind) -> None:
    whole = make(kind)
    small, _ = pruned(whole, [WORDS[0]])
    for text in ("Привет, 東京! 🚀 naïve", WORDS[2], "\x00\x01 zzz"):
        assert small.decode(small.encode(text)).strip() == whole.decode(whole.encode(text)).strip()
    assert len(small.encode(WORDS[2])) > len(whole.encode(WORDS[2]))


def test_special_tokens_keep_their_meaning(tokenizer) -> None:
    small, ids = pruned(tokenizer, [WORDS[0]])
    old, new = tokenizer.special, small.special
    assert small.token(new.bos) == tokenizer.token(old.bos) == "<s>"
    assert [small.token(index) for index in new.stop] == ["</s>"]
    assert [ids[index] for index in new.prefix] == list(old.prefix)
    assert [ids[i] for i in small.backend.encode("the").ids] == tokenizer.backend.encode("the").ids
    assert small.encode("</s>") == [new.stop[0]]
    assert ids_in(tokenizer, small) == ids


def test_special_and_byte_tokens_cannot_go(tokenizer) -> None:
    _, ids = pruned(tokenizer, WORDS)
    with pytest.raises(ModelError, match=r"end-of-sequence token '</s>' \(id 2\)"):
        without_others(tokenizer, [index for index in ids if index != 2])
    byte = next((index for index in sorted(required_ids(tokenizer)) if index > 2), None)
    if byte is not None:
        with pytest.raises(ModelError, match="without which"):
            without_others(tokenizer, [index for index in ids if index != byte])


def model_of(tokenizer: Tokenizer) -> Model:
    from edgesdk.doctor import tiny_model

    spec = replace(tiny_model().spec, vocab=tokenizer.size + 5, tied=True, context=256)
    return Model(spec, RandomWeights(spec), tokenizer)


def test_a_restricted_model_predicts_as_before(tokenizer) -> None:
    model = model_of(tokenizer)
    small, ids = pruned(tokenizer, [WORDS[0]])
    part = restricted(model, ids, small)
    text = torch.tensor([small.encode(WORDS[0])])
    whole, some = ReferenceModel(model), ReferenceModel(part)
    wanted = whole.logits(whole.hidden([torch.tensor(ids)[text]])[0])[..., ids]
    assert torch.equal(some.logits(some.hidden([text])[0]), wanted)
    assert in_vocabulary_of(model, part).spec.vocab == len(ids)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "corpus.txt").write_text("\n".join(WORDS[:2] * 40))
    (folder / "test.txt").write_text("\n".join(WORDS[3:] * 40))
    return folder


def test_the_pass_keeps_what_the_corpus_needs(texts, tmp_path) -> None:
    model = model_of(BYTES)
    setting = Setting(tmp_path, SILENT, calibration=Calibration(texts / "corpus.txt", 4, 24))
    result = Vocabulary()(model, setting)
    assert result.model.tokenizer is not None
    assert result.model.spec.vocab == result.model.tokenizer.size < model.spec.vocab
    assert f"of {model.spec.vocab} tokens {result.model.spec.vocab} are left" in result.report.notes[0]
    (again := tmp_path / "again").mkdir()
    sized = Vocabulary(size=280)(model, replace(setting, scratch=again)).model
    assert 270 <= sized.spec.vocab <= 280


@pytest.mark.parametrize("size", [1, 100])
def test_a_vocabulary_that_would_lose_the_end_of_sequence_is_refused(texts, tmp_path, size) -> None:
    setting = Setting(tmp_path, SILENT, calibration=Calibration(texts / "corpus.txt", 4, 24))
    with pytest.raises(RecipeError, match=r"no room .*end-of-sequence among them: '</s>'") as failure:
        Vocabulary(size=size)(model_of(BYTES), setting)
    assert "at least" in (failure.value.hint or "")


def test_a_corpus_must_be_named(tmp_path) -> None:
    with pytest.raises(RecipeError, match="corpus"):
        Vocabulary()(model_of(BYTES), Setting(tmp_path, SILENT))
    with pytest.raises(ModelError, match="tokenizer"):
        Vocabulary()(replace(model_of(BYTES), tokenizer=None), Setting(tmp_path, SILENT))


@pytest.mark.parametrize("target", ["linux-x86_64", "host"])
def test_the_bundle_has_the_new_ids(texts, tmp_path, target) -> None:
    model = model_of(BYTES)
    calibration = Calibration(texts / "corpus.txt", 4, 24)
    checks = Checks(eval_text=texts / "test.txt", eval_windows=2)
    manifest = export(
        model, target, tmp_path / "out", recipe="w8-vocab", context=128, calibration=calibration, checks=checks
    )
    vocab = manifest.model.spec["vocab"]
    assert vocab < model.spec.vocab
    definition = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert len(definition["model"]["vocab"]) == vocab
    assert manifest.tokenizer.stop == (2,)
    assert manifest.quality.divergence["kl"] < 0.01
    assert manifest.quality.perplexity is not None
    with edgesdk.open_bundle(tmp_path / "out") as bundle:  # checks every file
        assert bundle.manifest == manifest


def test_rows_that_no_token_has_do_not_matter() -> None:
    """Padded tables of different sizes over the same tokens, as in Qwen 2.5."""
    model = model_of(BYTES)
    padded = replace(model, spec=replace(model.spec, vocab=model.spec.vocab + 64))
    assert in_vocabulary_of(padded, model).spec.vocab == model.spec.vocab


def test_a_checkpoint_is_compared_with_its_original(texts, tmp_path) -> None:
    model = model_of(BYTES)
    calibration = Calibration(texts / "corpus.txt", 4, 24)
    compress_model(model, tmp_path / "out", recipe="w8-vocab", calibration=calibration)
    report = compare_quality(model, tmp_path / "out", eval_text=texts / "test.txt", eval_windows=2)
    assert report.own_text.summary.kl < 0.01
    other = make("byte-fallback")
    with pytest.raises(EdgeError, match="vocabulary"):
        compare_quality(model_of(other), open_model(tmp_path / "out"))


def test_tokens_that_the_model_lacks_go() -> None:
    whole = make("byte-level")
    rows = whole.size
    definition = json.loads(whole.definition)
    definition["added_tokens"].append({**definition["added_tokens"][0], "id": rows, "content": "<image>"})
    names = {"bos_token": "<s>", "image_token": "<image>"}
    sources = {2: "somewhere"}
    seeing = replace(whole, definition=json.dumps(definition), names=names, stop_sources=sources).within(rows)
    smaller, ids = pruned(seeing, ["the cat"])
    assert max(ids) < rows and smaller.rows is None and smaller.backend.token_to_id("<image>") is None
    assert smaller.variables == {"bos_token": "<s>"} and smaller.stop_sources == {ids.index(2): "somewhere"}
    assert [ids[index] for index in smaller.encode("the cat")] == whole.encode("the cat")
