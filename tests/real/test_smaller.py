"""The real model with fewer tokens: a smaller bundle, the same tokens for kept text, and it still answers."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgesdk
from edgesdk.compress.calibration import Calibration

pytestmark = pytest.mark.real
QUESTION = "What is the capital of France?"


def test_a_vocabulary_for_one_domain_makes_a_bundle_that_still_answers(tmp_path) -> None:
    model = edgesdk.open_model("smollm2-135m")
    corpus = tmp_path / "corpus.txt"
    root = Path(__file__).parents[2]
    readme = "\n".join(
        path.read_text(encoding="utf-8") for path in (root / "README.md", *sorted(root.glob("edgesdk/*/README.md")))
    )
    corpus.write_text(f"{readme}\n{QUESTION} The capital of France is Paris, a city of art, culture and history.\n")
    text = Calibration(corpus, 4, 64)
    manifest = edgesdk.export(model, "linux-x86_64", tmp_path / "small", recipe="w4g32-vocab", calibration=text)
    assert manifest.model.spec["vocab"] < 8000
    assert manifest.quality.divergence["kl"] < 0.7
    whole = edgesdk.export(model, "linux-x86_64", tmp_path / "whole", checks=edgesdk.Checks(skip=True))
    assert manifest.memory.program < whole.memory.program - 20_000_000
    with edgesdk.open_bundle(tmp_path / "small") as opened:
        chat = edgesdk.Chat(opened)
        assert "Paris" in chat.ask(QUESTION, max_tokens=40)
        found = chat.tokenizer.encode(readme)
    names = [chat.tokenizer.token(index) for index in found]
    assert names == [model.tokenizer.token(index) for index in model.tokenizer.encode(readme)]
