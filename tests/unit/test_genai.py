"""The bundle's folder loads unchanged in onnxruntime-genai and gives the same greedy tokens."""

from __future__ import annotations

import numpy as np
import onnxruntime_genai as og
import pytest

import edgesdk

from .family_rows import ROWS, save_checkpoint

IDS = [5, 80, 20, 3, 90, 17, 44]


@pytest.mark.parametrize("name", ["llama", "mistral-window", "qwen2", "qwen3", "gemma3"])
def test_greedy_tokens_are_the_same(tmp_path, name) -> None:
    (row,) = [row for row in ROWS if row.name == name]
    save_checkpoint(row, tmp_path / "model")
    # word-level tokens are of no family's own class, so transformers would make others of them
    edgesdk.export(tmp_path / "model", "linux-x86_64", tmp_path / "bundle", recipe="none", context=64, oracle="off")
    with edgesdk.open_bundle(tmp_path / "bundle") as bundle:
        session = edgesdk.open_session(bundle)
        logits, wanted = session.prefill(IDS), []
        for _ in range(20):
            wanted.append(int(logits.argmax()))
            logits = session.decode(wanted[-1])
    model = og.Model(str(tmp_path / "bundle"))
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=len(IDS) + 20, min_length=len(IDS) + 20, do_sample=False)
    generator = og.Generator(model, parameters)
    generator.append_tokens(np.array(IDS, dtype=np.int32))
    found = []
    while len(found) < 20 and not generator.is_done():
        generator.generate_next_token()
        found.append(int(generator.get_next_tokens()[0]))
    stop = next((index for index, token in enumerate(wanted) if token == 2), 20)  # min_length bars the stop token
    assert found[:stop] == wanted[:stop]
    assert stop > 3


def test_the_chat_bundle_tokenizes_and_answers(bundle) -> None:
    model = og.Model(str(bundle))
    tokenizer = og.Tokenizer(model)
    with edgesdk.open_bundle(bundle) as opened:
        ours = edgesdk.Chat(opened).tokenizer
    for text in ("hello world", "a\nb", "Grüße, 世界"):
        assert list(tokenizer.encode(text)) == ours.encode(text)
