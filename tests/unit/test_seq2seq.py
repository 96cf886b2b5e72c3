"""The oracle of encoder-decoders: transformers' own implementation, with tiny random configurations.

Every row must give the same logits in the reference model and in each runtime: several tokens at once, one by one,
after a second text; and the same greedy answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import edgesdk
from edgesdk.answering import Answerer
from edgesdk.cli import edgesdk as cli
from edgesdk.compress.base import Setting
from edgesdk.compress.others import rounded
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import CONVERTERS
from edgesdk.kinds import SEQ2SEQ
from edgesdk.model.opening import open_any
from edgesdk.model.seq2seq.model import Seq2SeqModel
from edgesdk.model.seq2seq.reference import Seq2SeqReference
from edgesdk.progress import SILENT
from edgesdk.session import Seq2SeqSession
from edgesdk_converters.executorch.readback import read_packed as read_executorch
from edgesdk_converters.onnx.readback import read_packed

from ..integers import assert_carried
from .cells import FLOATS, PACKED, TARGETS, Other
from .seq2seq_rows import CONTEXT, ROWS, VOCAB, Row, save_seq2seq

RUNTIMES = ["onnx", "executorch"]
_GREEDY = {"max_new_tokens": 12, "do_sample": False, "use_cache": False}  # its cache has too few decoder layers
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

    @property
    def other(self) -> Other:
        return Other(SEQ2SEQ, self.row.name, self.model, CONTEXT)


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
    case.other.reference(largest_difference(Seq2SeqReference(case.model, CONTEXT), case.wanted))


@pytest.mark.parametrize(("runtime", "float_type", "tolerance"), FLOATS)
def test_programs_equal_transformers(case, tmp_path, runtime, float_type, tolerance) -> None:
    case.other.float_cell(
        runtime, float_type, tolerance, tmp_path, lambda session: largest_difference(session, case.wanted)
    )


@pytest.mark.parametrize(("runtime", "scheme"), PACKED)
def test_programs_follow_their_integers(case, tmp_path, runtime, scheme) -> None:
    def answers(session: Seq2SeqSession) -> np.ndarray:
        session.encode(SOURCES[0])
        return np.concatenate([session.decode(ANSWER[:8]), *(session.decode([token]) for token in ANSWER[8:])])

    def error(model: Seq2SeqModel, session: Seq2SeqSession) -> float:
        wanted = answers(Seq2SeqReference(model, CONTEXT))
        return float(np.abs(answers(session) - wanted).mean() / wanted.std())

    case.other.packed_cell(runtime, scheme, tmp_path, error)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("recipe", ["none", "w8", "w4g32"])
def test_a_bundle_answers_as_transformers_does(case, tmp_path, runtime, recipe) -> None:
    if case.row.name != "flan-t5":
        return
    folder = case.model.origin.files[0].parent
    manifest = edgesdk.export(folder, TARGETS[runtime], tmp_path / "b", recipe=recipe, context=CONTEXT)
    assert manifest.program.facts["kind"] == SEQ2SEQ
    assert manifest.quality.divergence["kl"] < (1e-5 if recipe == "none" else 3)
    with torch.no_grad():
        wanted = case.network.generate(torch.tensor([SOURCES[0]]), **_GREEDY)[0].tolist()
    with edgesdk.open_bundle(tmp_path / "b") as bundle:
        answerer = Answerer(bundle, threads=2)
        answer = answerer.answer(" ".join(f"w{token}" for token in SOURCES[0]), max_tokens=12)
        if recipe == "none":
            assert answerer.last.tokens == wanted[1 : 1 + len(answerer.last.tokens)]
            assert len(answerer.last.tokens) == 12 or answerer.last.stopped
        if runtime == "onnx":
            packed = read_packed(bundle.main) | read_packed(bundle.folder / "encoder.onnx")
        else:
            packed = read_executorch(bundle.main)
    command = ["run", str(tmp_path / "b"), " ".join(f"w{token}" for token in SOURCES[0]), "--json"]
    shown = CliRunner().invoke(cli, [*command, "--max-tokens", "12"], catch_exceptions=False)
    assert json.loads(shown.output)["answer"] == answer
    if recipe != "none":
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        limits = CONVERTERS.get(runtime).limits()
        compressed, _ = rounded(case.model, open_recipe(recipe), Setting(scratch, SILENT, limits))
        assert_carried(compressed, packed)


def test_the_decoder_looks_at_the_text(case) -> None:
    assert np.abs(case.wanted[0] - case.wanted[1]).max() > 0.1
