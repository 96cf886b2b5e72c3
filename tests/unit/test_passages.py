"""Text for measuring and calibrating: behind the tokenizer's prefix wherever it comes from, and no loop."""

from __future__ import annotations

import ast
import itertools
import json
import math
import sys
import types
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import edgesdk
import edgesdk_converters
from edgesdk.compress.base import Setting
from edgesdk.compress.calibration import Calibration
from edgesdk.compress.quality import perplexity_of, reference_loss
from edgesdk.compress.recipe import open_recipe
from edgesdk.compress.recording import counted, window_loss
from edgesdk.compress.recovery import Recovery
from edgesdk.errors import EdgeError
from edgesdk.model.checkpoint import Description
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceModel, ReferenceSession
from edgesdk.model.tokenizer import SpecialTokens, Tokenizer, open_tokenizer
from edgesdk.passages import own, sampling
from edgesdk.passages.cutting import DOCUMENT_END, file_windows, rows, windows
from edgesdk.passages.loops import DegenerateTextError, is_loop, repeats_itself
from edgesdk.passages.own import own_rows, own_text
from edgesdk.passages.passage import Passage, batches, counted_states
from edgesdk.passages.prompts import prompts
from edgesdk.passages.reference import ReferenceWriter
from edgesdk.progress import SILENT
from edgesdk_converters.tflite import calibrate

from ..conftest import TEMPLATE, make_checkpoint, make_tokenizer

BOS, EOS = 256, 257
PROSE = " ".join(
    f"The {animal} of {place} was seen {number} times in the {season}, and nobody there knows where it went."
    for number, (animal, place, season) in enumerate(
        itertools.product(
            ("fox", "heron", "otter", "moth"), ("Kent", "Lima", "Oslo", "Pune"), ("spring", "summer", "autumn")
        )
    )
)


def with_bos(folder: Path, *, template: bool) -> Path:
    """The tiny model with a tokenizer that puts a BOS in front of texts, as a base model or as a chat model."""
    make_checkpoint(folder, num_hidden_layers=4)
    path = folder / "tokenizer.json"
    start, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    step = {
        "type": "TemplateProcessing",
        "single": [start, text],
        "pair": [start, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": step}))
    if not template:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "chat_template"}))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_bos(tmp_path_factory.mktemp("models") / "base", template=False)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_bos(tmp_path_factory.mktemp("models") / "chat", template=True)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text, documents, and chats beside texts as JSON lines."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "text.txt").write_text(PROSE)
    (folder / "documents.txt").write_text(DOCUMENT_END.join(f"\n{part}.\n" for part in PROSE.split(".")))
    entries: list[dict[str, Any]] = [{"text": part} for part in PROSE.split(".") if part]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, entries)))
    entries += [{"messages": [{"role": "user", "content": entry["text"]}]} for entry in entries]
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, entries)))
    return folder


# Every consumer, and what its model reads first


@dataclass
class Watch:
    """What began in an empty cache: the first two tokens of every text, in the reference and in programs."""

    begun: list[list[int]] = field(default_factory=list)
    programs: int = 0

    def see(self, ids: Sequence[int]) -> None:
        self.begun.append(list(ids[:2]))


class WatchedSession:
    """A session that tells what runs first."""

    def __init__(self, session: Any, watch: Watch) -> None:
        self._session, self._watch = session, watch
        watch.programs += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        return self._seen(ids, self._session.prefill)

    def score(self, ids: Sequence[int]) -> np.ndarray:
        return self._seen(ids, self._session.score)

    def decode(self, token: int) -> np.ndarray:
        if self._session.position == 0:
            self._watch.see([token])
        return self._session.decode(token)

    def _seen(self, ids: Sequence[int], run: Any) -> np.ndarray:
        if self._session.position == 0:
            self._watch.see(ids)
        return run(ids)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Every text that the reference embeds, or a program runs, from its beginning; all must begin with the BOS."""
    found = Watch()
    embed = ReferenceModel.embed

    def watched(self: ReferenceModel, runs: Sequence[torch.Tensor], start: int = 0) -> list[torch.Tensor]:
        for ids in runs if start == 0 else ():
            for row in ids.tolist():
                found.see(row)
        return embed(self, runs, start)

    monkeypatch.setattr(ReferenceModel, "embed", watched)
    for where, name in (("edgesdk.exporting", "open_program"), ("edgesdk.quality.sides", "open_session")):
        opener = getattr(__import__(where, fromlist=[name]), name)
        opened = lambda *given, _open=opener, **more: WatchedSession(_open(*given, **more), found)  # noqa: E731
        monkeypatch.setattr(f"{where}.{name}", opened)
    yield found
    assert found.begun
    assert {first[0] for first in found.begun} == {BOS}


RECIPES = (
    *("w4g32-gptq", "w4g32-awq", "w4g32-smooth", "w4g32-rec", "w4g32-qat", "w4g32-keys", "w4g32-rotv-gptq"),
    *("w4g32-wanda50", "w4g32-admm50", "w4g32-sparsegpt50", "w4g32-depth75", "w4g32-width75", "w4g32-hidden75"),
    *("w4g32-heal", "w4g32@7bpw"),
)
SOURCES = ("self", "text.txt", "documents.txt", "texts.jsonl")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_pass_reads_text_behind_the_prefix(base, texts, tmp_path, watch, recipe) -> None:
    _compress(base, recipe, Calibration(texts / "text.txt", 4, 48), tmp_path)


@pytest.mark.parametrize(("kind", "source"), [*itertools.product(("base", "chat"), SOURCES), ("chat", "chats.jsonl")])
def test_every_kind_of_calibration_text_stands_behind_the_prefix(
    base, chat, texts, tmp_path, watch, source, kind
) -> None:
    text = Calibration(None if source == "self" else texts / source, 4, 48)
    for recipe in ("w4g32-gptq", "w4g32@7bpw"):
        (folder := tmp_path / recipe).mkdir()
        described = _compress(chat if kind == "chat" else base, recipe, text, folder)
        assert described.calibration["text"] == ("self: prefix" if source == "self" else source)
    if source != "self":  # what a model writes may be anything
        assert all(second != BOS for _, second in watch.begun)


def _compress(checkpoint: Path, recipe: str, text: Calibration, folder: Path) -> Description:
    chosen = open_recipe(recipe)
    steps = (replace(step, steps=1) if isinstance(step, Recovery) else step for step in chosen.passes)
    return edgesdk.compress_model(
        checkpoint,
        folder / "out",
        recipe=replace(chosen, passes=tuple(steps)),
        calibration=text,
        checks=edgesdk.Checks(skip=True),
    )


@pytest.mark.parametrize("text", ["text.txt", "documents.txt"])
def test_export_compress_and_quality_measure_behind_the_prefix(base, texts, tmp_path, watch, text) -> None:
    checks = edgesdk.Checks(eval_text=texts / text, eval_windows=2)
    manifest = edgesdk.export(base, "linux-x86_64", tmp_path / "bundle", context=256, checks=checks)
    assert manifest.quality.divergence["text"] == "self: prefix"
    described = edgesdk.compress_model(base, tmp_path / "made", checks=checks)
    assert described.quality["own_text"]["text"] == "self: prefix"
    for sides in itertools.permutations((base, tmp_path / "bundle", tmp_path / "made"), 2):
        found = edgesdk.compare_quality(*sides, eval_text=texts / text, eval_windows=2, samples=1)
        assert found.own_text.summary.text == "self: prefix"
    assert watch.programs >= 5


def test_a_question_that_is_cut_keeps_the_prefix(base, watch, monkeypatch) -> None:
    """In choice tasks, whose harness need not be installed for it."""
    for name in ("lm_eval", "lm_eval.api", "lm_eval.api.model"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["lm_eval.api.model"], "LM", object, raising=False)
    monkeypatch.delitem(sys.modules, "edgesdk.quality.harness_model", raising=False)
    from edgesdk.quality.harness_model import HarnessModel
    from edgesdk.quality.sides import open_side

    request = types.SimpleNamespace(args=("open " * 300, " lid"), task_name="task")
    with open_side(base, SILENT) as side:
        model = HarnessModel(side, SILENT, sys.stderr)
        assert len(model.loglikelihood([request])) == 1
        assert model.cut["task"] == 1
    monkeypatch.delitem(sys.modules, "edgesdk.quality.harness_model")


def test_integers_of_microcontrollers_are_calibrated_behind_the_prefix(base, watch, monkeypatch) -> None:
    model, begun = open_model(base), list[int]()
    tokens = Calibration.tokens
    monkeypatch.setattr(
        Calibration, "tokens", lambda *given: begun.extend((ids := tokens(*given))[:, 0].tolist()) or ids
    )
    calibrate.measure(model, 32, SILENT, Calibration(sequences=2, length=32))
    assert begun == [BOS, BOS]


def test_a_chat_model_is_compared_on_its_answers(chat, tmp_path) -> None:
    model = open_model(chat)
    text = own_text(ReferenceWriter(ReferenceModel(model)), model.tokenizer, 512, SILENT)
    assert text.name == "self: answers" and text.loops is None
    questions = [model.tokenizer.chat([{"role": "user", "content": prompt.text}]) for prompt in prompts()]
    short = sorted(map(len, questions))[len(questions) // 2 - 1]
    for number, passage in enumerate(text.passages):
        question = [ids for ids in questions if len(ids) <= short][number]
        assert passage.ids[: passage.front] == question and passage.first == len(question) - 1
        assert passage.rows <= 32 and passage.ids.count(BOS) == 2 + passage.text.count(BOS)
    assert text.hidden is not None and len(text.hidden) == sum(passage.rows for passage in text.passages)


def test_what_was_kept_while_writing_is_what_the_text_gives(chat, base) -> None:
    for checkpoint in (chat, base):
        model = open_model(checkpoint)
        reference = ReferenceModel(model)
        text = own_text(ReferenceWriter(reference), model.tokenizer, 512, SILENT)
        runs = batches(text.passages)
        again = counted_states(reference.hidden([run.ids for run in runs]), runs)
        assert torch.allclose(again, text.hidden, atol=1e-4)


# What is scored


def test_with_and_without_a_prefix_the_same_tokens_are_scored(base, checkpoint, texts) -> None:
    for folder, prefix in ((base, [BOS]), (checkpoint, [])):
        model = open_model(folder)
        reference = ReferenceModel(model)
        ids = model.tokenizer.encode((texts / "text.txt").read_text())
        loss = 0.0
        for at in (0, 64, 128):
            run = [*prefix, *ids[at : at + 64]]
            logits = reference.logits(reference.hidden([torch.tensor([run])])[0])[0, len(prefix) : -1]
            loss += float(F.cross_entropy(logits, torch.tensor(ids[at + 1 : at + 64]), reduction="sum"))
        found = file_windows(model.tokenizer, texts / "text.txt", 3, context=256, length=64)
        assert [window.scored for window in found] == [ids[at + 1 : at + 64] for at in (0, 64, 128)]
        assert perplexity_of(reference_loss(reference, found, SILENT), found) == pytest.approx(
            math.exp(loss / 189), rel=1e-5
        )
        session = ReferenceSession(model, 256)
        assert sum(window_loss(session, window) for window in found) == pytest.approx(loss, rel=1e-5)


def test_a_missing_prefix_shows(base, texts) -> None:
    """The tiny model's predictions depend on its BOS, as Gemma's do."""
    model = open_model(base)
    reference = ReferenceModel(model)
    (window,) = file_windows(model.tokenizer, texts / "text.txt", 1, context=64)
    without = Passage(window.ids[1:])
    assert window.scored == without.scored
    losses = [reference_loss(reference, [text], SILENT) for text in (window, without)]
    assert abs(losses[0] - losses[1]) > 0.1


def test_a_prefix_counts_in_the_context(base, texts) -> None:
    tokenizer = open_model(base).tokenizer
    (window,) = file_windows(tokenizer, texts / "text.txt", 1, context=64)
    assert len(window.ids) == 64 and len(window.text) == 63
    with pytest.raises(EdgeError, match="windows of 64 tokens and a prefix of 1 exceed the context of 64"):
        file_windows(tokenizer, texts / "text.txt", 1, context=64, length=64)


def test_the_rows_before_the_text_are_not_compared(base) -> None:
    session = ReferenceSession(open_model(base), 512)
    ids = [BOS, *range(300 - 1)]
    whole = list(counted(session, Passage([token % 256 for token in ids], 0, 0)))
    for first in (1, 127, 128, 129, 299):
        part = np.concatenate(list(counted(session, Passage([token % 256 for token in ids], 1, first))))
        assert np.allclose(part, np.concatenate(whole)[first:], atol=1e-5)


# Cutting, on any text


def tokenizer_with(folder: Path, prefix: tuple[int, ...], template: str | None) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    make_tokenizer(folder)
    return Tokenizer(open_tokenizer(folder).definition, SpecialTokens(BOS, (EOS,), None, prefix), template)


prefixes = st.sampled_from([(), (BOS,), (BOS, 65)])
bits = st.lists(st.text("abc é\n", min_size=1, max_size=40).filter(str.strip), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(prefixes, st.text("abcdef é\n", min_size=1, max_size=300), st.integers(2, 40), st.integers(1, 4))
def test_windows_are_the_text(tmp_path_factory, prefix, text, length, count) -> None:
    tokenizer = tokenizer_with(tmp_path_factory.getbasetemp() / "t", prefix, None)
    ids = tokenizer.encode(text)
    if len(ids) < length:
        with pytest.raises(EdgeError, match="less than one window"):
            windows(tokenizer, text, "text", count, context=64, length=length)
        return
    found = windows(tokenizer, text, "text", count, context=64, length=length)
    assert len(found) == min(count, len(ids) // length)
    assert all(tuple(window.ids[: len(prefix)]) == prefix for window in found)
    assert [token for window in found for token in window.text] == ids[: len(found) * length]
    assert all(window.scored == window.text[1:] for window in found)


@settings(max_examples=60, deadline=None)
@given(prefixes, bits, st.integers(4, 40))
def test_documents_stand_behind_their_own_prefix(tmp_path_factory, prefix, parts, length) -> None:
    tokenizer = tokenizer_with(tmp_path_factory.getbasetemp() / "t", prefix, None)
    text = DOCUMENT_END.join(parts)
    if len(parts) == 1:
        return
    wanted = [[*prefix, *tokenizer.encode(part.strip())][:length] for part in parts]
    wanted = [ids for ids in wanted if len(ids) > max(1, len(prefix))]
    if not wanted:
        return
    found = windows(tokenizer, text, "text", 99, context=40, length=length)
    assert [window.ids for window in found] == wanted
    assert all(window.scored == (window.text if prefix else window.text[1:]) for window in found)


@settings(max_examples=60, deadline=None)
@given(prefixes, bits, st.integers(4, 40), st.sampled_from(["txt", "jsonl", "chats"]))
def test_rows_to_calibrate_on_lose_nothing_and_begin_with_the_prefix(
    tmp_path_factory, prefix, parts, length, form
) -> None:
    """Whatever is cut, and wherever documents begin: without prefixes the rows are the documents in their order."""
    folder = tmp_path_factory.getbasetemp() / "t"
    tokenizer = tokenizer_with(folder, prefix, TEMPLATE)
    parts = [part.strip() for part in parts]
    file, expected = folder / ("x.txt" if form == "txt" else "x.jsonl"), list[int]()
    if form == "txt":
        file.write_text(DOCUMENT_END.join(parts))
    elif form == "jsonl":
        file.write_text("\n".join(json.dumps({"text": part}) for part in parts))
    else:
        chats = [[{"role": "user", "content": part}] for part in parts]
        file.write_text("\n".join(json.dumps({"messages": messages}) for messages in chats))
        parts = [tokenizer.render(messages, answering=False) for messages in chats]
    for part in parts:
        expected += tokenizer.encode(part)
    try:
        found = list(rows(tokenizer, file, length))
    except EdgeError as failure:
        assert "less than one calibration sequence" in failure.message
        return
    assert all(len(row) == length for row in found)
    front = (BOS,) if form == "chats" else ()
    assert all(tuple(row[: len(prefix)]) == prefix or tuple(row[:1]) == front for row in found)
    if form != "chats":
        flat = [token for row in found for token in row if token not in prefix or token == 65]
        if 65 not in prefix:
            assert flat == expected[: len(flat)]


def test_a_prefix_that_the_text_writes_is_not_doubled(base, tmp_path) -> None:
    tokenizer = open_model(base).tokenizer
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"text": f"<s>{PROSE[at : at + 90]}"}) for at in range(9)))
    for row in rows(tokenizer, tmp_path / "x.jsonl", 30):
        assert row[0] == BOS != row[1]
    found = windows(tokenizer, f"<s>{PROSE}", "text", 3, context=64, length=20)
    assert [window.ids.count(BOS) for window in found] == [1, 1, 1]


# Sampling


class Hashed:
    """A writer whose predictions follow from all tokens of a text: they do not depend on what runs beside it."""

    def __init__(self, together: int, vocab: int = 260, sharp: float = 1.0) -> None:
        self.together, self.vocab, self._sharp = together, vocab, sharp

    def start(self, texts: int, length: int) -> None:
        self._texts: list[list[int]] = [[] for _ in range(texts)]
        self.length = length

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        logits = []
        for text, more in zip(self._texts, ids.tolist(), strict=True):
            text += more
            assert len(text) <= self.length
            seed = zlib.crc32(bytes(str(text), "ascii"))
            logits.append(self._sharp * np.random.default_rng(seed).standard_normal(self.vocab))
        return torch.from_numpy(np.array(logits)).float()


class Looping(Hashed):
    """Writes token 5 for ever, in some of its texts."""

    def __init__(self, share: float) -> None:
        super().__init__(16)
        self._share, self._started, self._loops = share, 0, list[bool]()

    def start(self, texts: int, length: int) -> None:
        super().start(texts, length)
        self._loops = [(number * 7 % 16) / 16 < self._share for number in range(self._started, self._started + texts)]
        self._started += texts

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        logits = super().run(ids)
        logits[torch.tensor(self._loops), 5] = 100
        return logits


@pytest.fixture(scope="module")
def with_template(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_with(tmp_path_factory.mktemp("t"), (BOS,), TEMPLATE)


@pytest.mark.parametrize("kind", ["answers", "prefix", "bos", "first token", "no tokenizer"])
def test_a_text_does_not_depend_on_its_batch(with_template, kind) -> None:
    special = {"prefix": (BOS, (EOS,), None, (BOS,)), "bos": (BOS, (EOS,)), "first token": (None, (EOS,))}
    tokenizer: Tokenizer | None = with_template
    if kind in special:
        tokenizer = Tokenizer(with_template.definition, SpecialTokens(*special[kind]))
    tokenizer = None if kind == "no tokenizer" else tokenizer
    found = [own_text(Hashed(together), tokenizer, 300, SILENT) for together in (1, 5, 16)]
    assert found[0].passages == found[1].passages == found[2].passages
    name = {"bos": "prefix", "no tokenizer": "first token"}.get(kind, kind)
    assert {text.name for text in found} == {f"self: {name}"}
    other = own_text(Hashed(16), tokenizer, 300, SILENT, seed=1)
    assert other.passages != found[0].passages
    for passage in found[0].passages:
        assert 0 < passage.rows <= (32 if name == "answers" else 40) and (tokenizer is None or EOS not in passage.text)
        if name == "prefix":
            assert passage.ids[0] == BOS and passage.first == 1
        if name == "first token":
            assert passage.first == 0


def test_rows_of_own_text_go_on_behind_a_stop_token(base, chat) -> None:
    for checkpoint in (base, chat):
        model = open_model(checkpoint)
        found = own_rows(ReferenceModel(model), model.tokenizer, 6, 500, 0, SILENT)
        assert [len(row) for row in found] == [500] * 6
        ends = [(row, at) for row in found for at, token in enumerate(row[:-1]) if token == EOS]
        behind = [row[at + 1] for row, at in ends]
        assert ends and (checkpoint == chat or set(behind) == {BOS})


def test_a_loop_is_drawn_again_and_a_model_that_loops_is_refused(with_template, base, monkeypatch) -> None:
    some = own_text(Looping(0.15), with_template, 300, SILENT)
    assert some.loops is None and not any(is_loop(passage.text) for passage in some.passages)
    lost = own_text(Looping(0.9), with_template, 300, SILENT)
    assert lost.loops is not None and "over and over" in lost.loops and len(lost.passages) == 16
    model = open_model(base)
    monkeypatch.setattr(own, "ReferenceWriter", lambda reference: Looping(0.9))
    with pytest.raises(DegenerateTextError, match="nothing can be learned") as refused:
        own_rows(ReferenceModel(model), model.tokenizer, 8, 64, 0, SILENT)
    assert "--calibration" in (refused.value.hint or "")


def test_figures_on_a_loop_are_none_with_the_reason(base, texts, tmp_path, monkeypatch) -> None:
    def peaked(self: ReferenceModel, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*hidden.shape[:-1], self.spec.vocab)
        logits[..., 5] = 50
        return logits

    bundle = tmp_path / "bundle"
    with monkeypatch.context() as patch:
        patch.setattr(ReferenceModel, "logits", peaked)
        patch.setattr("edgesdk.exporting._enforce", lambda *_: None)
        manifest = edgesdk.export(base, "linux-x86_64", bundle, context=256, oracle="off")
        assert manifest.quality.divergence is None and "over and over" in (manifest.quality.divergence_reason or "")
        found = edgesdk.compare_quality(base, base, eval_text=texts / "text.txt", eval_windows=1, samples=0)
        assert found.own_text is None and "over and over" in (found.own_text_reason or "")
        assert found.layers is None and found.eval_text is not None
        described = edgesdk.compress_model(base, tmp_path / "made", oracle="off")
        assert described.quality["own_text"] is None and "over and over" in described.quality["own_text_reason"]
    with monkeypatch.context() as patch:
        patch.setattr(ReferenceModel, "logits", peaked)
        with pytest.raises(EdgeError, match=r"no KL divergence to hold against the limit|agrees with the reference"):
            checks = edgesdk.Checks(max_kl=1.0)
            edgesdk.export(base, "linux-x86_64", tmp_path / "other", checks=checks, oracle="off")


@pytest.mark.parametrize("text", ["some words ", "One line of a file that is longer than most lines are.\n", "a"])
def test_calibration_text_that_repeats_itself_is_refused(base, tmp_path, text) -> None:
    file, model = tmp_path / "loop.txt", open_model(base)
    file.write_text(text * (40_000 // len(text)))
    with pytest.raises(DegenerateTextError, match="the same over and over"):
        Calibration(file).tokens(model, SILENT)
    with pytest.raises(DegenerateTextError, match=r"loop\.txt"):
        open_recipe("w4g32-gptq")(model, Setting(tmp_path, SILENT, calibration=Calibration(file, 8, 256)))


def test_an_evaluation_text_that_repeats_itself_is_noted(base, tmp_path) -> None:
    file, notes = tmp_path / "loop.txt", list[str]()
    file.write_text("some words " * 400)

    class Told:
        stage, note = SILENT.stage, staticmethod(notes.append)

    checks = edgesdk.Checks(eval_text=file, eval_windows=2)
    manifest = edgesdk.export(base, "linux-x86_64", tmp_path / "out", context=256, checks=checks, progress=Told())
    assert any("over and over" in note for note in manifest.notes)
    edgesdk.compare_quality(base, base, eval_text=file, eval_windows=2, samples=0, progress=Told())
    assert sum("over and over" in note for note in notes) == 2


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 3))
def test_a_repeated_line_is_a_loop_and_random_tokens_are_none(line, seed) -> None:
    assert is_loop(line * (96 // len(line)))
    assert repeats_itself([line * (96 // len(line))] * 3)
    random = np.random.default_rng(seed).integers(0, 64, 512).tolist()
    assert not is_loop(random) and not repeats_itself([random])


def test_text_of_people_is_no_loop() -> None:
    root = Path(edgesdk.__file__).parents[1]
    for file in ("README.md", "edgesdk/exporting.py", "edgesdk/passages/prompts.toml", "LICENSE"):
        ids = list((root / file).read_bytes())
        assert not repeats_itself([ids[at : at + 256] for at in range(0, len(ids), 256)]), file


# The prompts, and the place


def test_prompts_are_of_several_domains_and_languages() -> None:
    import tomllib

    data = tomllib.loads((Path(sampling.__file__).parent / "prompts.toml").read_text(encoding="utf-8"))
    assert set(data) >= {"everyday", "code", "maths", "science", "writing", "extraction"}
    found = prompts()
    assert len(found) == len({prompt.text for prompt in found}) == sum(map(len, data.values())) >= 48
    assert len({prompt.language for prompt in found}) >= 8
    assert len({prompt.language for prompt in found[:16]}) >= 4  # what predictions are compared on
    assert {prompt.text for prompt in found[:6]} == {entries[0]["text"] for entries in data.values()}


#: Modules that turn text into ids or conversations into text, and why it is not to measure or to calibrate.
_READERS = {
    "edgesdk/chat.py": "answers",
    "edgesdk/devices/chat.py": "answers",
    "edgesdk/seeing.py": "answers",
    "edgesdk/serve/decoding.py": "answers",
    "edgesdk/serve/prompts.py": "answers",
    "edgesdk/compress/pruning/vocabulary.py": "counts tokens",
    "edgesdk/quality/tokens.py": "compares tokenizers",
    "edgesdk/oracle/texts.py": "compares tokenizers",
    "edgesdk_converters/executorch/runner.py": "compares tokenizers",
    "edgesdk/quality/sides.py": "compares tokenizers",
    "edgesdk/quality/harness_model.py": "scores choices after a question, whole and behind the prefix",
    "edgesdk/passages/cutting.py": "the place",
    "edgesdk/passages/prompts.py": "the place",
}


def test_no_other_module_makes_tokens_of_text() -> None:
    roots = (Path(edgesdk.__file__).parent, Path(edgesdk_converters.__file__).parent)
    found = set()
    for root in roots:
        for path in root.rglob("*.py"):
            name = path.relative_to(root.parent).as_posix()
            if name.startswith(("edgesdk/model/", "edgesdk/package/", "edgesdk/linting.py")):
                continue  # the tokenizer itself, and what an app's own runtime makes of text
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                called = node.func if isinstance(node, ast.Call) else None
                if isinstance(called, ast.Attribute) and called.attr in ("encode", "chat", "render"):
                    owner = ast.unparse(called.value).rpartition(".")[2]
                    if owner.lstrip("_") in ("tokenizer", "whole", "part", "side", "given"):
                        found.add(name)
    assert found == set(_READERS)
