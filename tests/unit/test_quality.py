"""Quality: known figures on constructed logits, a model against itself, against its bundle, and every refusal."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import edgesdk
from edgesdk.compress.quality import Differences
from edgesdk.errors import BundleError, EdgeError, ModelError, QualityError
from edgesdk.model.reference import ReferenceModel
from edgesdk.passages.own import own_text
from edgesdk.passages.passage import Passage
from edgesdk.passages.reference import ReferenceWriter, worthwhile_threads
from edgesdk.progress import SILENT
from edgesdk.quality import Gates, QualityReport, enforce
from edgesdk.quality import answers as answers_module
from edgesdk.quality.texts import perplexity

from ..conftest import edgesdk_process, make_checkpoint

WORDS = "The quick brown fox jumps over the lazy dog; 12 x 12 = 144. "


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from threads, and lose much where others use the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(WORDS * 12, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def report(checkpoint, compressed, tmp_path_factory) -> QualityReport:
    """The tiny model against its 4-bit weights."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(WORDS * 12, encoding="utf-8")
    return edgesdk.compare_quality(checkpoint, compressed, eval_text=path, eval_windows=3, window=64, samples=1)


def changed(checkpoint: Path, folder: Path, change) -> Path:
    """A copy of the tiny model with other tensors."""
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def logits(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


def test_divergence_and_agreement_of_constructed_logits() -> None:
    differences = Differences()
    a = logits([0.40, 0.20, 0.15, 0.10, 0.08, 0.05, 0.02], [0.40, 0.20, 0.15, 0.10, 0.08, 0.05, 0.02])
    b = logits([0.40, 0.20, 0.15, 0.10, 0.08, 0.05, 0.02], [0.02, 0.40, 0.15, 0.10, 0.08, 0.05, 0.20])
    differences.add(a[:1] + 7, b[:1])  # a constant on all logits changes nothing
    differences.add(a[1:], b[1:])
    kl = 0.4 * math.log(0.4 / 0.02) + 0.2 * math.log(0.2 / 0.4) + 0.02 * math.log(0.02 / 0.2)
    assert differences.kl.tolist() == pytest.approx([0, kl], abs=1e-6)
    found = differences.summary("made up")
    assert found.kl == pytest.approx(kl / 2, rel=1e-3)
    assert found.kl_p99 == pytest.approx(0.99 * kl, rel=1e-3)
    assert (found.top1, found.top5, found.tokens) == (0.5, 0.9, 2)


def test_perplexity_of_a_uniform_model_is_its_vocabulary(checkpoint, tmp_path, text) -> None:
    uniform = changed(checkpoint, tmp_path / "m", lambda tensors: tensors["model.embed_tokens.weight"].zero_())
    found = edgesdk.compare_quality(uniform, uniform, eval_text=text, window=50, samples=0)
    vocab = edgesdk.open_model(uniform).spec.vocab
    assert found.perplexity.summary.before == found.perplexity.summary.after == vocab
    assert set(found.perplexity.before) == {vocab}
    assert perplexity([2 * math.log(9)], [Passage([1, 2, 3])]) == 9
    assert perplexity([1e6], [Passage([1, 2])]) == math.inf


def test_a_model_against_itself_has_lost_nothing(checkpoint, text) -> None:
    found = edgesdk.compare_quality(checkpoint, checkpoint, eval_text=text, window=64, samples=2)
    for each in (found.own_text, found.eval_text):
        assert set(each.kl) == {0}
        assert (each.summary.kl, each.summary.kl_p99, each.summary.top1, each.summary.top5) == (0, 0, 1, 1)
    assert found.perplexity.summary.increase == 0
    assert [(each.output, each.alone) for each in found.layers] == [(0, 0), (0, 0)]
    assert [pair.first_divergence for pair in found.answers] == [None, None]
    enforce(found, Gates(max_kl=0, max_ppl_increase=0, min_top1=1))


def test_layers_show_where_the_error_arises(checkpoint, tmp_path) -> None:
    def change(tensors) -> None:
        tensors["model.layers.1.mlp.down_proj.weight"] *= 1.5

    found = edgesdk.compare_quality(checkpoint, changed(checkpoint, tmp_path / "m", change), samples=0)
    first, second = found.layers
    assert (first.output, first.alone) == (0, 0)
    assert second.output == second.alone > 0

    def change_first(tensors) -> None:
        tensors["model.layers.0.mlp.down_proj.weight"] *= 1.5

    found = edgesdk.compare_quality(checkpoint, changed(checkpoint, tmp_path / "n", change_first), samples=0)
    first, second = found.layers
    assert first.output == first.alone > 0
    assert second.output > second.alone == 0


def test_the_error_of_a_layer_is_the_one_in_its_definition(checkpoint, compressed, report) -> None:
    """Against hidden states that the reference model gives without a final norm."""
    model = edgesdk.open_model(checkpoint)
    own = own_text(ReferenceWriter(ReferenceModel(model)), model.tokenizer, model.spec.context, SILENT)
    errors = []
    with torch.inference_mode():
        for passage in own.passages:
            outputs = []
            for side in (model, compressed):
                reference = ReferenceModel(side)
                (state,) = reference.through(reference.layer(0), reference.embed([torch.tensor([passage.ids])]))
                outputs.append(state[0, passage.first :].double())
            errors.append((outputs[1] - outputs[0]).square().sum(-1) / outputs[0].square().sum(-1))
    assert report.layers[0].output == pytest.approx(float(torch.cat(errors).mean()), rel=1e-3)


def test_threads_are_worth_having_for_large_matrices_alone(checkpoint, monkeypatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    spec = edgesdk.open_model(checkpoint).spec
    wide = replace(spec, hidden=1024, layers=(replace(spec.layers[0], ffn=replace(spec.layers[0].mlp, size=4096)),))
    assert worthwhile_threads(spec) == 1
    assert worthwhile_threads(wide) == 4
    assert worthwhile_threads(replace(wide, hidden=8192)) == 8


def test_a_compressed_model_has_lost_something(report) -> None:
    assert 0 < report.own_text.summary.kl < report.own_text.summary.kl_p99
    assert report.own_text.summary.text == "self: answers" and 256 < len(report.own_text.kl) <= 512
    assert len(report.eval_text.kl) == 3 * 64
    assert report.perplexity.summary.windows == len(report.perplexity.after) == 3
    assert report.perplexity.summary.before != report.perplexity.summary.after
    assert all(each.output > 0 for each in report.layers)
    assert report.tasks is None
    assert report.tasks_reason == "no --tasks were given"


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        (Gates(max_kl=1e-6), r"KL divergence on A's own text is 0\.\d+, over the limit of 1e-06; .*evaluation text"),
        (Gates(min_top1=1), r"same best token on A's own text is \d+\.\d%, under the limit of 100\.0%"),
        (Gates(max_ppl_increase=-99), r"perplexity rises from .* over the limit of -99 %"),
    ],
)
def test_a_limit_that_is_not_met_is_an_error_with_the_figure(report, gates, message) -> None:
    enforce(report, Gates())
    with pytest.raises(QualityError, match=message):
        enforce(report, gates)


def test_limits_that_make_no_sense_are_refused(checkpoint, report) -> None:
    with pytest.raises(EdgeError, match="no fraction"):
        Gates(min_top1=90)
    without = edgesdk.compare_quality(checkpoint, checkpoint, samples=0)
    assert without.perplexity is None
    with pytest.raises(EdgeError, match="needs a text"):
        enforce(without, Gates(max_ppl_increase=5))


def test_a_bundle_runs_in_its_runtime_and_says_what_its_manifest_says(checkpoint, bundle) -> None:
    found = edgesdk.compare_quality(checkpoint, bundle, samples=1)
    with edgesdk.open_bundle(bundle) as opened:
        record = opened.manifest.quality.divergence
    assert found.b.kind == "bundle"
    assert found.b.runtime.startswith("onnxruntime ")
    assert found.own_text.summary.kl == pytest.approx(record["kl"], rel=2e-3)
    assert found.own_text.summary.top5 == pytest.approx(record["top5"], abs=0.01)
    assert found.layers is None
    assert "does not show what comes out of its layers" in found.layers_reason


def test_a_bundle_may_be_the_reference(checkpoint, bundle, tmp_path) -> None:
    out = tmp_path / "float.zip"
    edgesdk.export(checkpoint, "linux-x86_64", out, recipe="none", context=64, checks=edgesdk.Checks(skip=True))
    same = edgesdk.compare_quality(out, checkpoint, samples=1)
    assert same.own_text.summary.kl < 1e-6
    assert same.own_text.summary.top1 > 0.99
    assert same.answers[0].first_divergence is None
    other = edgesdk.compare_quality(out, bundle, samples=0)
    assert other.own_text.summary.kl > 1e-3


def test_the_index_of_the_first_token_that_differs() -> None:
    part = answers_module._part
    assert part([1, 2, 3], [1, 2, 3]) is None
    assert part([], []) is None
    assert part([1, 2, 3], [1, 9, 3]) == 1
    assert part([1, 2], [1, 2, 3]) == 2
    assert part([], [4]) == 0


def test_a_model_too_large_to_stay_gives_the_same_answers(checkpoint, monkeypatch) -> None:
    prompts = ["Hello", "A longer question, with more tokens?"]
    resident = edgesdk.compare_quality(checkpoint, checkpoint, prompts=prompts)
    monkeypatch.setattr("edgesdk.quality.sides.may_stay", lambda model: False)
    streamed = edgesdk.compare_quality(checkpoint, checkpoint, prompts=prompts)
    assert resident.answers == streamed.answers
    assert [pair.tokens_a for pair in streamed.answers] == [48, 48]
    assert resident.own_text == streamed.own_text


def retokenized(checkpoint: Path, folder: Path, change) -> Path:
    shutil.copytree(checkpoint, folder)
    data = json.loads((folder / "tokenizer.json").read_text())
    change(data)
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return folder


def test_tokenizers_that_part_are_one_error_with_text_and_position(checkpoint, tmp_path, text) -> None:
    def swap(data) -> None:
        vocab = data["model"]["vocab"]
        vocab["w"], vocab["q"] = vocab["q"], vocab["w"]

    other = retokenized(checkpoint, tmp_path / "m", swap)
    with pytest.raises(ModelError, match=r"part in the text 'Hello world' at token 6: \d+ against \d+") as failure:
        edgesdk.compare_quality(checkpoint, other)
    assert "tokens cannot be compared" in failure.value.hint

    def forget(data) -> None:
        data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] != "<pad>"]

    other = retokenized(checkpoint, tmp_path / "n", forget)
    config = other / "tokenizer_config.json"  # which would add it again
    config.write_text(config.read_text().replace('"pad_token"', '"other"'))
    with pytest.raises(ModelError, match=r"part in the special token '<pad>' at token 1"):
        edgesdk.compare_quality(checkpoint, other)

    def swap_rare(data) -> None:
        vocab = data["model"]["vocab"]
        vocab["\u0110"], vocab["\u0111"] = vocab["\u0111"], vocab["\u0110"]  # bytes 16 and 17

    text.write_text(WORDS * 12 + "\x10", encoding="utf-8")
    other = retokenized(checkpoint, tmp_path / "o", swap_rare)
    edgesdk.compare_quality(checkpoint, other, samples=0)
    with pytest.raises(ModelError, match=r"part in the evaluation text .*text\.txt at token \d+"):
        edgesdk.compare_quality(checkpoint, other, eval_text=text)


def test_vocabularies_of_different_sizes_are_one_error(checkpoint, tmp_path) -> None:
    other = make_checkpoint(tmp_path / "m", vocab_size=300)
    with pytest.raises(ModelError, match=r"vocabulary of 260 tokens, .* one of 300"):
        edgesdk.compare_quality(checkpoint, other)


def test_models_of_different_depth_have_no_layers_to_compare(checkpoint, tmp_path) -> None:
    other = make_checkpoint(tmp_path / "m", num_hidden_layers=3)
    found = edgesdk.compare_quality(checkpoint, other, samples=0)
    assert found.layers is None
    assert found.layers_reason == "2 layers against 3"


@pytest.mark.parametrize("prepare", ["missing", "bytes", "short", "documents"])
def test_bad_texts_are_one_error(checkpoint, text, prepare) -> None:
    if prepare == "missing":
        text.unlink()
    elif prepare == "bytes":
        text.write_bytes(b"fine until \xff here")
    elif prepare == "documents":
        text.write_text("<|endoftext|>\n<|endoftext|>")
    else:
        text.write_text("too short")
    messages = {
        "missing": "No such file",
        "bytes": r"not UTF-8 text \(byte 11\)",
        "short": "9 tokens are less than one window of 512",
        "documents": "no document in it has two tokens",
    }
    with pytest.raises(ModelError, match=messages[prepare]):
        edgesdk.compare_quality(checkpoint, checkpoint, eval_text=text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 99}, "built-in prompts"),
        ({"window": 1}, "two tokens or more"),
        ({"window": 5000}, "windows of 5000 tokens exceed the context of 1024"),
        ({"prompts": ["x" * 3000]}, r"tokens, in a context of 1024"),
        ({"tasks": ["nowhere.jsonl"]}, "nowhere.jsonl: No such file"),
    ],
)
def test_bad_options_are_one_error(checkpoint, text, options, message) -> None:
    with pytest.raises(EdgeError, match=message):
        edgesdk.compare_quality(checkpoint, checkpoint, eval_text=text, **options)


@pytest.mark.parametrize("order", [1, -1])
def test_logits_that_are_not_finite_are_refused_with_the_name(checkpoint, tmp_path, order) -> None:
    def overflow(tensors) -> None:
        tensors["model.layers.1.mlp.down_proj.weight"] *= 1e30
        tensors["model.layers.1.mlp.up_proj.weight"] *= 1e30

    pair = [checkpoint, changed(checkpoint, tmp_path / "broken", overflow)][::order]
    with pytest.raises(QualityError, match=r"logits of .*broken are NaN or infinite"):
        edgesdk.compare_quality(*pair, samples=0)


def test_a_damaged_bundle_and_one_that_cannot_run_are_one_error(checkpoint, bundle, tmp_path, monkeypatch) -> None:
    copy = tmp_path / "b"
    shutil.copytree(bundle, copy)
    (copy / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="the manifest says"):
        edgesdk.compare_quality(checkpoint, copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="not valid JSON"):
        edgesdk.compare_quality(checkpoint, copy)

    def refuse(*arguments: object) -> None:
        raise BundleError("no such backend")

    monkeypatch.setattr("edgesdk.quality.sides.open_session", refuse)
    with pytest.raises(EdgeError, match=r"cannot run here: no such backend"):
        edgesdk.compare_quality(checkpoint, bundle)


def test_a_figure_is_written_whole_and_again_the_same(report, tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="the extra 'quality' is not installed")
    from edgesdk.quality.plot import draw

    for name, start in (("p.png", b"\x89PNG"), ("p.svg", b"<?xml")):
        draw(report, tmp_path / name)
        first = (tmp_path / name).read_bytes()
        assert first.startswith(start)
        draw(report, tmp_path / name)
        assert (tmp_path / name).read_bytes() == first
    svg = (tmp_path / "p.svg").read_text()
    assert svg.count('id="axes_') == 3
    with pytest.raises(EdgeError, match=r"written as \.png or \.svg"):
        draw(report, tmp_path / "p.jpg")
    with pytest.raises(EdgeError, match="no such folder"):
        draw(report, tmp_path / "nowhere" / "p.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.png", "p.svg"]


def test_the_command_prints_and_then_fails_at_its_limit(checkpoint, bundle, tmp_path) -> None:
    arguments = ["quality", checkpoint, bundle, "--samples", 0]
    done = edgesdk_process(*arguments, "--max-kl", 1e-6, TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert "same best token" in done.stdout
    assert "layers      not compared" in done.stdout
    assert "Error: the mean KL divergence on A's own text" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("edgesdk*")) == []  # no logits left
    done = edgesdk_process(*arguments, "--json", "--max-kl", 100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 256 < found["own_text"]["summary"]["tokens"] == len(found["own_text"]["kl"]) <= 512
    assert found["perplexity"] is None
    assert found["eval_text_reason"] == "no --eval-text was given"
    done = edgesdk_process(*arguments, "--max-ppl-increase", 3)
    assert done.returncode == 1
    assert "needs a text" in done.stderr
