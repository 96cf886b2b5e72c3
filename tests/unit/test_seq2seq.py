"""The oracle of encoder-decoders: transformers' own implementation, with tiny random configurations.

Every row must give the same logits in the reference model and in each runtime: several tokens at once, one by one,
after a second text; and the same greedy answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from edgesdk.converter import ProgramOptions, kind_converter
from edgesdk.kinds import SEQ2SEQ
from edgesdk.model.opening import open_any
from edgesdk.model.seq2seq.model import Seq2SeqModel
from edgesdk.model.seq2seq.reference import Seq2SeqReference
from edgesdk.progress import SILENT
from edgesdk.session import Seq2SeqSession

from .seq2seq_rows import CONTEXT, ROWS, VOCAB, Row, save_seq2seq

RUNTIMES = ["onnx"]
_RANDOM = np.random.default_rng(7)
SOURCES = [_RANDOM.integers(1, VOCAB, size).tolist() for size in (40, 3)]
ANSWER = [0, *_RANDOM.integers(1, VOCAB, 30).tolist()]


@dataclass(frozen=True)
class Case:
    """A checkpoint, opened by edgesdk, and transformers' logits of ANSWER for each of SOURCES."""

    row: Row
    network: Any
    model: Seq2SeqModel
    wanted: list[np.ndarray]


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    row: Row = request.param
    folder = tmp_path_factory.mktemp(row.name)
    network = save_seq2seq(row, folder)
    model = open_any(folder)
    assert isinstance(model, Seq2SeqModel)
    assert model.spec.tied == (not row.own_head)
    answer = torch.tensor([ANSWER])
    with torch.no_grad():
        found = [network(input_ids=torch.tensor([ids]), decoder_input_ids=answer).logits[0].numpy() for ids in SOURCES]
    return Case(row, network, model, found)


def largest_difference(session: Seq2SeqSession, wanted: list[np.ndarray]) -> float:
    """Over both sources: several tokens at once, then one by one."""
    worst = 0.0
    for ids, rows in zip(SOURCES, wanted, strict=True):
        session.encode(ids)
        found = [session.decode(ANSWER[:1]), session.decode(ANSWER[1:8])]
        found += [session.decode([token]) for token in ANSWER[8:]]
        assert session.position == len(ANSWER)
        worst = max(worst, float(np.abs(np.concatenate(found) - rows).max()))
        session.reset()
        again = session.decode(ANSWER[:4])
        worst = max(worst, float(np.abs(again - rows[:4]).max()))
    return worst


def test_reference_equals_transformers(case) -> None:
    assert largest_difference(Seq2SeqReference(case.model, CONTEXT), case.wanted) < 1e-4


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_program_equals_transformers(case, tmp_path, runtime) -> None:
    converter = kind_converter(runtime, SEQ2SEQ, "a test")
    program = converter.convert(case.model, ProgramOptions(CONTEXT, "float32", 32), tmp_path, SILENT)
    assert largest_difference(converter.open(tmp_path / program.main, CONTEXT, threads=2), case.wanted) < 1e-3


def test_the_decoder_looks_at_the_text(case) -> None:
    assert np.abs(case.wanted[0] - case.wanted[1]).max() > 0.1
