"""The oracle of encoders: transformers' own implementation of each family, with tiny random configurations.

Every row must give the same states and the same embedding or logits in the reference model and in each runtime, for
texts of different lengths in one batch, longer than a local window. A new family adds rows to
``tests/unit/encoder_rows.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgesdk.kinds import ENCODER
from edgesdk.model.encoder_spec import Classification
from edgesdk.model.encoders.model import EncoderModel
from edgesdk.model.encoders.reference import EncoderReference
from edgesdk.model.opening import open_any
from edgesdk.session import EncoderSession, padded

from .cells import FLOATS, PACKED, Other
from .encoder_rows import CONTEXT, LABELS, ROWS, VOCAB, Row, save_encoder

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

    @property
    def other(self) -> Other:
        return Other(ENCODER, self.row.name, self.model, CONTEXT)


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


def difference(session: EncoderSession, case: Case) -> float:
    """Of the states of a text and of all answers, without segments and, where the family has them, with."""
    found = [np.abs(session.states(TEXTS[0]) - case.states).max(), np.abs(session.encode(TEXTS) - case.answers).max()]
    if case.model.spec.embedding.types > 1:
        states, answers = wanted(case.row, case.network, TYPES)
        found.append(np.abs(session.states(TEXTS[0], TYPES[0]) - states).max())
        found.append(np.abs(session.encode(TEXTS, TYPES) - answers).max())
    return float(max(found))


def test_reference_equals_transformers(case) -> None:
    session = EncoderReference(case.model, CONTEXT)
    assert session.size == case.answers.shape[1]
    case.other.reference(difference(session, case))


def test_segments_count(case) -> None:
    if (case.model.spec.embedding.types or 0) < 2:  # a family without segments, or with one for every token
        assert getattr(case.network.config, "type_vocab_size", 0) < 2
        return
    states, _ = wanted(case.row, case.network, TYPES)
    assert np.abs(states - case.states).max() > 1e-2


def test_a_text_alone_is_the_same_as_in_a_batch(case) -> None:
    session = EncoderReference(case.model, CONTEXT)
    alone = np.concatenate([session.encode([text]) for text in TEXTS])
    assert np.abs(alone - case.answers).max() < 1e-4


@pytest.mark.parametrize(("runtime", "float_type", "tolerance"), FLOATS)
def test_programs_equal_transformers(case, tmp_path, runtime, float_type, tolerance) -> None:
    case.other.float_cell(runtime, float_type, tolerance, tmp_path, lambda session: difference(session, case))


@pytest.mark.parametrize(("runtime", "scheme"), PACKED)
def test_programs_follow_their_integers(case, tmp_path, runtime, scheme) -> None:
    def error(model: EncoderModel, session: EncoderSession) -> float:
        states = EncoderReference(model, CONTEXT).states(TEXTS[0])
        return float(np.abs(session.states(TEXTS[0]) - states).mean() / states.std())

    case.other.packed_cell(runtime, scheme, tmp_path, error)


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
