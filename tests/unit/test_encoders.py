"""The oracle of encoders: transformers' own implementation of each family, with tiny random configurations.

Every row must give the same states and the same embedding or logits in the reference model and in each runtime, for
texts of different lengths in one batch, longer than a local window. A new family adds rows to
``tests/unit/encoder_rows.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgesdk.converter import ProgramOptions, encoder_converter
from edgesdk.model.encoder_spec import Classification
from edgesdk.model.encoders.model import EncoderModel
from edgesdk.model.encoders.reference import EncoderReference
from edgesdk.model.opening import open_any
from edgesdk.progress import SILENT
from edgesdk.session import EncoderSession, padded

from .encoder_rows import CONTEXT, LABELS, ROWS, VOCAB, Row, save_encoder

RUNTIMES = ["onnx", "executorch"]
_RANDOM = np.random.default_rng(7)
TEXTS = [_RANDOM.integers(2, VOCAB, size).tolist() for size in (40, 1, 17)]
TYPES = [[int(place > size // 2) for place in range(size)] for size in (40, 1, 17)]


@dataclass(frozen=True)
class Case:
    """A checkpoint, opened by edgesdk, and what transformers says about TEXTS."""

    row: Row
    network: Any
    model: EncoderModel
    states: np.ndarray
    answers: np.ndarray


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    row: Row = request.param
    folder = tmp_path_factory.mktemp(row.name)
    network = save_encoder(row, folder)
    model = open_any(folder)
    assert isinstance(model, EncoderModel)
    states, answers = wanted(row, network, None)
    return Case(row, network, model, states, answers)


def wanted(row: Row, network: Any, types: Any) -> tuple[np.ndarray, np.ndarray]:
    """transformers' states of the first text, and its embeddings or logits of all, from one padded batch."""
    ids, kinds, mask = (torch.from_numpy(part) for part in padded(TEXTS, types))
    more = {} if types is None else {"token_type_ids": kinds}
    with torch.no_grad():
        body = network.base_model(input_ids=ids, attention_mask=mask, **more)
        states = body.last_hidden_state
        if row.auto != "AutoModel":
            logits = network(input_ids=ids, attention_mask=mask, **more).logits
            return states[0].numpy(), logits.numpy()
    pooling, unit = row.modules or ("mean", False)
    vectors = states[:, 0] if pooling == "cls" else (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return states[0].numpy(), (F.normalize(vectors) if unit else vectors).numpy()


def test_reference_equals_transformers(case) -> None:
    session = EncoderReference(case.model, CONTEXT)
    assert np.abs(session.states(TEXTS[0]) - case.states).max() < 1e-4
    assert np.abs(session.encode(TEXTS) - case.answers).max() < 1e-4
    assert session.size == case.answers.shape[1]


def test_segments_count(case) -> None:
    if (case.model.spec.embedding.types or 0) < 2:  # a family without segments, or with one for every token
        assert getattr(case.network.config, "type_vocab_size", 0) < 2
        return
    states, answers = wanted(case.row, case.network, TYPES)
    session = EncoderReference(case.model, CONTEXT)
    assert np.abs(session.states(TEXTS[0], TYPES[0]) - states).max() < 1e-4
    assert np.abs(session.encode(TEXTS, TYPES) - answers).max() < 1e-4
    assert np.abs(states - case.states).max() > 1e-2


def test_a_text_alone_is_the_same_as_in_a_batch(case) -> None:
    session = EncoderReference(case.model, CONTEXT)
    alone = np.concatenate([session.encode([text]) for text in TEXTS])
    assert np.abs(alone - case.answers).max() < 1e-4


def opened(case: Case, runtime: str, folder: Path) -> EncoderSession:
    """A session over the case's program, in float."""
    converter = encoder_converter(runtime, "a test")
    program = converter.convert(case.model, ProgramOptions(CONTEXT, "float32", 32), folder, SILENT)
    return converter.open(folder / program.main, CONTEXT, threads=2)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_program_equals_transformers(case, tmp_path, runtime) -> None:
    session = opened(case, runtime, tmp_path)
    assert np.abs(session.states(TEXTS[0]) - case.states).max() < 1e-3
    assert np.abs(session.encode(TEXTS) - case.answers).max() < 1e-3
    assert session.size == case.answers.shape[1]
    if case.model.spec.embedding.types > 1:
        states, answers = wanted(case.row, case.network, TYPES)
        assert np.abs(session.states(TEXTS[0], TYPES[0]) - states).max() < 1e-3
        assert np.abs(session.encode(TEXTS, TYPES) - answers).max() < 1e-3


def test_spec_agrees_with_optimum(case) -> None:
    """optimum's view of the configuration and of the task: a second oracle for how a checkpoint is read."""
    from optimum.utils import NormalizedConfigManager

    config, spec = case.network.config, case.model.spec
    if config.model_type in ("modernbert", "mobilebert"):
        normal = NormalizedConfigManager.get_normalized_config_class("bert")(config)
    else:
        normal = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    heads = spec.layers[0].attention.heads
    found = (normal.vocab_size, normal.hidden_size, normal.num_layers, normal.num_attention_heads)
    assert found == (spec.vocab, spec.hidden, len(spec.layers), heads)
    if isinstance(spec.head, Classification):
        assert spec.head.labels == tuple(LABELS.values())
