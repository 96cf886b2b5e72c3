"""Encoders from checkpoint to answer: integers carried, bundles verified, the command line, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import edgesdk
from edgesdk.bundle import open_bundle
from edgesdk.cli import edgesdk as command
from edgesdk.compress.base import Setting
from edgesdk.compress.others import rounded
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import CONVERTERS
from edgesdk.encoders import Encoder
from edgesdk.errors import BundleError, EdgeError, ModelError, QualityError, RecipeError, TargetError
from edgesdk.exporting import Checks
from edgesdk.model.encoders.model import EncoderModel
from edgesdk.model.encoders.reference import EncoderReference
from edgesdk.model.opening import open_any
from edgesdk.package.packaging import package
from edgesdk.progress import SILENT
from edgesdk_converters.executorch.readback import read_packed as read_executorch
from edgesdk_converters.onnx.readback import read_packed as read_onnx

from ..integers import assert_carried
from .encoder_rows import LABELS, ROWS, save_encoder

TARGETS = {"onnx": "linux-x86_64", "executorch": "host"}
TEXT = "w5 w17 w33 w60 w8"


def saved(name: str, folder: Path) -> Path:
    save_encoder(next(row for row in ROWS if row.name == name), folder)
    return folder


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("bert-sentences", tmp_path_factory.mktemp("sentences"))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("distilbert-labels", tmp_path_factory.mktemp("labels"))


def export(model: Path, out: Path, runtime: str = "onnx", **options: object) -> edgesdk.Manifest:
    return edgesdk.export(model, TARGETS[runtime], out, **options)


@pytest.mark.parametrize("recipe", ["w8", "w4g32", "w4g32-e4"])
@pytest.mark.parametrize("name", ["bert", "modernbert", "mobilebert"])
def test_programs_carry_the_integers(tmp_path, name, recipe) -> None:
    model = open_any(saved(name, tmp_path / "model"))
    assert isinstance(model, EncoderModel)
    for runtime, target in TARGETS.items():
        folder, scratch = tmp_path / runtime, tmp_path / f"{runtime}-scratch"
        scratch.mkdir()
        edgesdk.export(model, target, folder, recipe=recipe, checks=Checks(skip=True))
        limits = CONVERTERS.get(runtime).limits()
        wanted = rounded(model, open_recipe(recipe), Setting(scratch, SILENT, limits))[0]
        main = folder / ("model.onnx" if runtime == "onnx" else "model.pte")
        packed = read_onnx(main) if runtime == "onnx" else read_executorch(main)
        assert_carried(wanted, packed)
        if runtime == "executorch":
            table = wanted.weights.get("embed.weight")
            assert (packed["embedding"].values == table.values).all()
            assert (packed["embedding"].scales == table.scales).all()


@pytest.mark.parametrize("runtime", TARGETS)
def test_a_bundle_gives_embeddings(sentences, tmp_path, runtime) -> None:
    manifest = export(sentences, tmp_path / "b", runtime, recipe="none")
    assert manifest.program.facts["kind"] == "encoder"
    assert [row["tokens"] for row in manifest.parity] == [1, 31, 64]
    assert all(row["max_difference"] < 1e-3 and row["cosine"] > 0.9999 for row in manifest.parity)
    assert manifest.quality.divergence["cosine_least"] > 0.9999
    model = open_any(sentences)
    with open_bundle(tmp_path / "b") as bundle:
        encoder = Encoder(bundle)
        found = encoder.embed([TEXT, "w9"])
        with pytest.raises(EdgeError, match="no labels"):
            encoder.classify([TEXT])
    wanted = EncoderReference(model).encode([[5, 17, 33, 60, 8], [9]])
    assert np.abs(found - wanted).max() < 1e-4
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-5


@pytest.mark.parametrize("runtime", TARGETS)
def test_a_bundle_gives_labels(labels, tmp_path, runtime) -> None:
    manifest = export(labels, tmp_path / "b.zip", runtime)
    assert manifest.recipe.name == "w8"
    assert manifest.quality.divergence["same_label"] > 0.9
    with open_bundle(tmp_path / "b.zip") as bundle:
        (scores,) = Encoder(bundle).classify([TEXT])
    logits = EncoderReference(open_any(labels)).encode([[5, 17, 33, 60, 8]])[0]
    wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert abs(sum(scores.values()) - 1) < 1e-6
    for label, score in zip(LABELS.values(), wanted, strict=True):
        assert abs(scores[label] - score) < 0.1


def test_exports_repeat_byte_for_byte(sentences, tmp_path) -> None:
    for runtime in TARGETS:
        first, second = (export(sentences, tmp_path / f"{runtime}{n}", runtime).digest for n in "ab")
        assert first == second


def run(*arguments: object):
    return CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False)


def test_the_command_line(sentences, labels, tmp_path) -> None:
    exported = run("export", sentences, "-t", "linux-x86_64", "-o", tmp_path / "e")
    assert exported.exit_code == 0, exported.output
    assert "cosine" in exported.output
    assert run("verify", tmp_path / "e").exit_code == 0
    assert "parity, 31" in run("inspect", tmp_path / "e").output
    assert "embedding of 64 values" in run("run", tmp_path / "e", TEXT).output
    answer = json.loads(run("run", tmp_path / "e", TEXT, "--json").output)
    assert (answer["size"], len(answer["embedding"]), answer["tokens"]) == (64, 64, 5)
    run("export", labels, "-t", "host", "-o", tmp_path / "l")
    answer = json.loads(run("run", tmp_path / "l", TEXT, "--json").output)
    assert answer["label"] == max(answer["scores"], key=answer["scores"].get)
    assert answer["label"] in run("run", tmp_path / "l", TEXT).output.splitlines()[0]


def test_long_texts_are_cut_and_keep_what_stands_behind(sentences, tmp_path) -> None:
    export(sentences, tmp_path / "b", recipe="none", context=8)
    with open_bundle(tmp_path / "b") as bundle:
        encoder = Encoder(bundle)
        long, short = " ".join(["w7"] * 50), " ".join(["w7"] * 8)
        assert encoder.count(long) == 8
        assert np.abs(encoder.embed([long]) - encoder.embed([short])).max() < 1e-6
        with pytest.raises(EdgeError, match="9 tokens exceed the context of 8"):
            encoder.session.encode([[7] * 9])
        with pytest.raises(EdgeError, match="no tokens"):
            encoder.session.encode([[]])
        with pytest.raises(EdgeError, match="0 to 95"):
            encoder.session.encode([[96]])


def test_what_is_for_decoders_alone_says_so(sentences, tmp_path) -> None:
    with pytest.raises(TargetError, match="bert is an encoder, which the tflite converter does not build"):
        edgesdk.export(sentences, "litert-arm64", tmp_path / "x")
    with pytest.raises(RecipeError, match="Gptq works on decoders alone"):
        export(sentences, tmp_path / "x", recipe="w4g32-gptq")
    with pytest.raises(RecipeError, match="no key-value cache"):
        export(sentences, tmp_path / "x", recipe="w8-kv8")
    with pytest.raises(EdgeError, match="--max-kl"):
        export(sentences, tmp_path / "x", checks=Checks(max_kl=0.1))
    with pytest.raises(EdgeError, match="--size"):
        export(sentences, tmp_path / "x", size="4bpw")
    with pytest.raises(ModelError, match="longer than the 64"):
        export(sentences, tmp_path / "x", context=65)
    with pytest.raises(ModelError, match="bert is no decoder"):
        edgesdk.open_model(sentences)
    export(sentences, tmp_path / "b")
    with open_bundle(tmp_path / "b") as bundle, pytest.raises(BundleError, match="built for decoders"):
        edgesdk.Chat(bundle)
    with pytest.raises(BundleError, match="deliverable of kind 'linux-service' is built for decoders"):
        package(tmp_path / "b", "linux-service", tmp_path / "service")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


def test_a_program_that_computes_something_else_is_no_bundle(sentences, tmp_path, monkeypatch) -> None:
    from edgesdk_converters.onnx.encoder_session import OnnxEncoderSession

    right = OnnxEncoderSession.encode
    monkeypatch.setattr(OnnxEncoderSession, "encode", lambda self, texts, types=None: -right(self, texts, types))
    with pytest.raises(QualityError, match="does not compute what the model says"):
        export(sentences, tmp_path / "b")
    assert not list(tmp_path.iterdir())


def changed(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_checkpoints_that_answer_something_else(tmp_path) -> None:
    folder = saved("bert-sentences", tmp_path / "m")
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*modules, {"type": "x.Dense", "path": "3_Dense"}]))
    with pytest.raises(ModelError, match="a module 'Dense' is not built"):
        open_any(folder)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(ModelError, match="pooling by max_tokens is not built"):
        open_any(folder)
    changed(folder, architectures=["BertForTokenClassification"])
    with pytest.raises(ModelError, match="BertForTokenClassification is not built"):
        open_any(folder)
    changed(folder, architectures=["BertModel"], num_attention_heads=5)
    (folder / "modules.json").unlink()
    with pytest.raises(ModelError, match="no multiple of 5 attention heads"):
        open_any(folder)
