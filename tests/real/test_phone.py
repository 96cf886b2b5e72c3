"""The phone half of the main job on SmolLM2-135M: a bundle for ExecuTorch, in our session and in its own runner."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgesdk
from edgesdk.chat import answer_with_runner
from edgesdk.cli import run
from edgesdk.compress.base import Setting
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import CONVERTERS
from edgesdk.progress import SILENT
from edgesdk_converters.executorch.readback import read_packed

pytestmark = pytest.mark.real
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def model() -> edgesdk.Model:
    return edgesdk.open_model("smollm2-135m")


@pytest.fixture(scope="module")
def bundle(model: edgesdk.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phone") / "bundle"
    edgesdk.export(model, "android-arm64", out)
    return out


def test_it_answers_paris_and_carries_the_integers(model, bundle, tmp_path) -> None:
    with edgesdk.open_bundle(bundle) as opened:
        chat = edgesdk.Chat(opened)
        assert "Paris" in chat.ask(QUESTION, max_tokens=40)
        assert "Berlin" in chat.ask("And of Germany?", max_tokens=40)
        assert opened.manifest.quality.divergence["kl"] < 0.7
        assert [row["prompt"] for row in opened.manifest.parity] == [1, 31, 128, 600]
        assert all(row["top1"] > 0.85 for row in opened.manifest.parity)
        packed = read_packed(opened.main)
    setting = Setting(tmp_path, SILENT, CONVERTERS.get("executorch").limits())
    compressed, _ = open_recipe("w4g32")(model, setting)
    for name in ("layers.0.o", "layers.29.down", "embed"):
        wanted = compressed.weights.get(f"{name}.weight")
        assert (packed[name].values == wanted.values).all()
        assert (packed[name].scales == wanted.scales).all()


def test_executorchs_own_runner_gives_the_same_answer(bundle, capsys) -> None:
    pieces: list[str] = []
    with edgesdk.open_bundle(bundle) as opened:
        found = answer_with_runner(opened, QUESTION, pieces.append, max_tokens=40)
        wanted = edgesdk.Chat(opened).ask(QUESTION, max_tokens=40)
        stop = opened.manifest.tokenizer.stop
        assert stop
    assert "".join(pieces).startswith(wanted)
    assert "Paris" in wanted
    assert found.prompt_tokens > 20
    capsys.readouterr()
    assert run(["run", str(bundle), QUESTION, "--runner", "--top-k", "3"]) == 1
    assert "--runner answers one PROMPT" in capsys.readouterr().err


def test_a_context_of_8192_tokens_in_float_and_in_int8(model, tmp_path) -> None:
    ids = model.tokenizer.encode("The sea is blue. The sky is wide. " * 50)[:400]
    best, caches = [], []
    for recipe in ("w4g32", "w4g32-kv8"):
        out = tmp_path / recipe
        manifest = edgesdk.export(model, "host", out, context=8192, recipe=recipe, checks=edgesdk.Checks(skip=True))
        assert manifest.context == 8192
        caches.append(manifest.memory.kv_cache)
        with edgesdk.open_bundle(out) as opened:
            best.append(int(edgesdk.open_session(opened).prefill(ids).argmax()))
    assert best[0] == best[1]
    assert caches[1] < 0.3 * caches[0]
