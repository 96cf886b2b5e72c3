"""The oracle: transformers' own implementation of each family, with tiny random configurations.

Every row must give the same logits in the reference model and in each runtime, for prefill in uneven chunks and for
decode, past the sliding window. A new family adds rows to ``tests/unit/family_rows.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import CONVERTERS, Converter, ProgramOptions
from edgesdk.errors import TargetError
from edgesdk.model import Model
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceSession
from edgesdk.progress import SILENT
from edgesdk.targets import open_target

from .family_rows import CONTEXT, ROWS, Row, save_checkpoint

IDS = np.random.default_rng(7).integers(0, 96, 40).tolist()
REFUSED = {"onnx": ("gpt2",), "executorch": ("gpt2",)}  # layer norms and learned positions are not built there yet
CHUNKS = (1, 7, 16, 13)  # then three tokens by decode


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Row, Model, np.ndarray]:
    """A saved tiny checkpoint, opened by edgesdk, and transformers' logits for all of IDS."""
    row: Row = request.param
    folder = tmp_path_factory.mktemp(row.name)
    network = save_checkpoint(row, folder)
    with torch.no_grad():
        wanted = network(torch.tensor([IDS])).logits[0].float().numpy()
    return row, open_model(folder), wanted


def chunked(session, ids) -> np.ndarray:
    """Logits of every position: uneven prefill chunks, a rewind, then decode."""
    found, at = [], 0
    for size in CHUNKS:
        found.append(session.score(ids[at : at + size]))
        at += size
    session.rewind(5)
    found[-1] = found[-1][:-5]
    at -= 5
    while at < len(ids):
        found.append(session.decode(ids[at])[None].copy())
        at += 1
    return np.concatenate(found)


def test_reference_equals_transformers(case) -> None:
    _, model, wanted = case
    found = chunked(ReferenceSession(model, CONTEXT), IDS)
    assert np.abs(found - wanted).max() < 1e-4


def converter_for(model: Model, runtime: str) -> Converter:
    """The runtime's converter; a family that it refuses is refused with the reason, and the test ends there."""
    converter = CONVERTERS.get(runtime)
    target = open_target({"onnx": "linux-x86_64", "executorch": "host"}[runtime])
    if model.spec.family in REFUSED[runtime]:
        with pytest.raises(TargetError, match=r"which the .* converter does not build"):
            converter.check(model.spec, open_recipe("none"), ProgramOptions(CONTEXT, "float32", 32), target)
        pytest.skip(f"{runtime} refuses {model.spec.family}, as it should")
    return converter


@pytest.mark.parametrize(
    ("runtime", "float_type", "tolerance"),
    [
        ("onnx", "float32", 1e-4),
        ("onnx", "float16", 2e-2),
        ("executorch", "float32", 1e-3),
        ("executorch", "float16", 2e-2),
    ],
)
def test_program_equals_transformers(case, tmp_path, runtime, float_type, tolerance) -> None:
    _, model, wanted = case
    converter = converter_for(model, runtime)
    program = converter.convert(model, ProgramOptions(CONTEXT, float_type, 32), tmp_path, SILENT)
    found = chunked(converter.open(tmp_path / program.main, CONTEXT, threads=2), IDS)
    assert np.abs(found - wanted).max() < tolerance


def test_executorch_caches_in_int8_stay_close(case, tmp_path, monkeypatch) -> None:
    from edgesdk_converters.executorch import sizes

    monkeypatch.setattr(sizes, "CHUNK", 8)
    _, model, wanted = case
    if any(layer.attention.softcap for layer in model.spec.layers):
        return
    converter = converter_for(model, "executorch")
    program = converter.convert(model, ProgramOptions(CONTEXT, "float32", 32, kv_bits=8), tmp_path, SILENT)
    found = chunked(converter.open(tmp_path / program.main, CONTEXT, threads=2), IDS)
    assert 1e-5 < np.abs(found - wanted).max() < 5e-2


def test_executorch_rings_wrap(case, tmp_path, monkeypatch) -> None:
    """With short steps a sliding window's cache is smaller than the text, and entries are used again."""
    from edgesdk_converters.executorch import sizes

    monkeypatch.setattr(sizes, "CHUNK", 8)
    _, model, wanted = case
    converter = converter_for(model, "executorch")
    program = converter.convert(model, ProgramOptions(CONTEXT, "float32", 32), tmp_path, SILENT)
    session = converter.open(tmp_path / program.main, CONTEXT, threads=2)
    found = chunked(session, IDS)
    assert np.abs(found - wanted).max() < 1e-3
    session.reset()
    assert np.abs(session.prefill(IDS) - wanted[-1]).max() < 1e-3
    session.rewind(20)  # further than a ring remembers
    assert np.abs(session.decode(IDS[20]) - wanted[20]).max() < 1e-3


@pytest.mark.parametrize("runtime", ["onnx", "executorch"])
def test_prefill_and_decode_give_the_last_row_of_score(case, tmp_path, runtime) -> None:
    _, model, wanted = case
    converter = converter_for(model, runtime)
    program = converter.convert(model, ProgramOptions(CONTEXT, "float32", 32), tmp_path, SILENT)
    session = converter.open(tmp_path / program.main, CONTEXT, threads=2)
    assert np.abs(session.prefill(IDS[:-2]) - wanted[-3]).max() < 1e-4
    assert np.abs(session.decode(IDS[-2]) - wanted[-2]).max() < 1e-4
    session.rewind(4)
    assert np.abs(session.prefill(IDS[-5:]) - wanted[-1]).max() < 1e-4
    assert session.position == len(IDS)


def test_spec_agrees_with_optimums_normalized_config(case) -> None:
    from optimum.utils import NormalizedConfigManager
    from transformers import AutoConfig

    _, model, _ = case
    config = AutoConfig.from_pretrained(model.origin.files[0].parent)
    if config.model_type == "gemma3_text":  # optimum 2.3 does not know it
        return
    normal = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    attention = model.spec.layers[0].attention
    assert (normal.vocab_size, normal.hidden_size, normal.num_layers, normal.num_attention_heads) == (
        model.spec.vocab,
        model.spec.hidden,
        len(model.spec.layers),
        attention.heads,
    )
