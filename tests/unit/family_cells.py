"""Decoders' cells of the support matrix (:mod:`cells`): one row of :mod:`family_rows` in one runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from edgesdk.compress.base import Setting
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import Converter, ProgramOptions
from edgesdk.errors import EdgeError
from edgesdk.kinds import DECODER
from edgesdk.model import Model
from edgesdk.model.features import RECURRENT, features
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceSession
from edgesdk.progress import SILENT
from edgesdk.session import Session
from edgesdk.targets import FloatType, open_target

from .cells import TARGETS, record
from .family_rows import CONTEXT, Row, save_checkpoint

IDS = np.random.default_rng(7).integers(0, 96, 40).tolist()
CHUNKS = (1, 7, 16, 13)  # then three tokens by decode


@dataclass(frozen=True)
class Case:
    """A saved tiny checkpoint, opened by edgesdk, and transformers' logits for all of IDS, [tokens, vocab]."""

    row: Row
    model: Model
    wanted: np.ndarray

    def record(self, runtime: str, scheme: str, **result: object) -> None:
        record(DECODER, self.model.spec.family, self.row.name, runtime, scheme, **result)


def opened(row: Row, folder: Path) -> Case:
    """The case of a row, its checkpoint in ``folder``."""
    network = save_checkpoint(row, folder)
    with torch.no_grad():
        wanted = network(torch.tensor([IDS])).logits[0].float().numpy()
    return Case(row, open_model(folder), wanted)


def chunked(session: Session, ids: list[int]) -> np.ndarray:
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


def refusal(converter: Converter, model: Model, scheme: str, options: ProgramOptions) -> str | None:
    """Why a converter refuses a model before any work, or None."""
    try:
        converter.check(model.spec, open_recipe(scheme), options, open_target(TARGETS[converter.name]))
    except EdgeError as failure:
        return str(failure)
    return None


def float_cell(case: Case, converter: Converter, folder: Path, float_type: FloatType, tolerance: float) -> None:
    """The runtime gives transformers' logits with float weights, or refuses the family by name."""
    options = ProgramOptions(CONTEXT, float_type, 32)
    reason = refusal(converter, case.model, "none", options)
    if reason is not None:
        _refused(case, converter, float_type, reason)
        return
    program = converter.convert(case.model, options, folder, SILENT)
    found = chunked(converter.open(folder / program.main, CONTEXT, threads=2), IDS)
    if float_type == "float16" and features(case.model.spec) & {"moe", "relu2", *RECURRENT}:
        # In half precision a token may go to another of two experts that are about as good, and states gather what is
        # rounded (transformers' Mamba in float16 is off by 0.08): that is no wrong graph. Squares double what is
        # rounded, and processors with AVX512-FP16 add in half precision too.
        error = float(np.abs(found - case.wanted).mean() / case.wanted.std())
        case.record(converter.name, float_type, error=error, passed=error < tolerance)
        assert error < tolerance
        return
    difference = float(np.abs(found - case.wanted).max())
    case.record(converter.name, float_type, difference=difference, passed=difference < tolerance)
    assert difference < tolerance


def packed_cell(case: Case, converter: Converter, folder: Path, scheme: str, bound: float) -> None:
    """The runtime, with int8 activations, follows the float reference over the same integers.

    The error is a share of the logits' spread.
    """
    options = ProgramOptions(CONTEXT, "float32", 8)
    reason = refusal(converter, case.model, scheme, options)
    if reason is not None:
        _refused(case, converter, scheme, reason)
        return
    (folder / "scratch").mkdir()
    limits = converter.limits()
    rounded, _ = open_recipe(scheme)(case.model, Setting(folder / "scratch", SILENT, limits))
    wanted = ReferenceSession(rounded, CONTEXT).score(IDS)
    program = converter.convert(rounded, options, folder, SILENT)
    found = chunked(converter.open(folder / program.main, CONTEXT, threads=2), IDS)
    error = float(np.abs(found - wanted).mean() / wanted.std())
    case.record(converter.name, scheme, error=error, passed=error < bound)
    assert error < bound


def _refused(case: Case, converter: Converter, scheme: str, reason: str) -> None:
    """A refusal is a result of its own; it names what the converter does not build, or the kernel that is not there."""
    case.record(converter.name, scheme, refused=reason)
    assert "does not build" in reason or "CPU kernels carry states in" in reason or "does not have" in reason, reason


def fixture(rows: list[Row]) -> object:
    """A fixture, once a module, that goes through the cases of ``rows``."""

    @pytest.fixture(scope="module", params=rows, ids=lambda row: row.name)
    def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
        return opened(request.param, tmp_path_factory.mktemp(request.param.name))

    return case
