"""Every family's tiny configuration through LiteRT and TFLite-Micro: the oracle is transformers' own implementation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgesdk.compress.base import Setting
from edgesdk.compress.calibration import Calibration
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import ProgramOptions
from edgesdk.doctor import tiny_model
from edgesdk.errors import TargetError
from edgesdk.model import Model
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.reference import ReferenceSession
from edgesdk.progress import SILENT
from edgesdk.targets import open_target
from edgesdk_converters.tflite import arena, calibrate
from edgesdk_converters.tflite.convert import CONVERTER
from edgesdk_converters.tflite.micro import TFLM

from .family_cells import IDS, chunked, fixture, float_cell
from .family_rows import CONTEXT, CORE, LAYER_NORMS, ROWS

FLOAT = ProgramOptions(CONTEXT, "float32", 32)


case = fixture(ROWS)
core = fixture(CORE + LAYER_NORMS)


@pytest.mark.parametrize("converter", [CONVERTER, TFLM], ids=["litert", "tflm"])
def test_float_program_equals_transformers(case, tmp_path, converter) -> None:
    float_cell(case, converter, tmp_path, "float32", 1e-4)


def test_tflm_and_litert_run_the_same_file_and_like_the_same_tokens(core, tmp_path) -> None:
    model = core.model
    program = CONVERTER.convert(model, FLOAT, tmp_path, SILENT)
    answers = []
    for converter in (CONVERTER, TFLM):
        session = converter.open(tmp_path / program.main, CONTEXT, threads=1)
        token = int(session.prefill(IDS[:5]).argmax())
        answer = [token]
        while len(answer) < 40:
            answer.append(token := int(session.decode(token).argmax()))
        answers.append(answer)
    assert answers[0] == answers[1]


def test_static_integers_stay_close(core, tmp_path, monkeypatch) -> None:
    """Against the float reference over the same integers; errors are shares of the logits' spread."""
    model = core.model
    (tmp_path / "scratch").mkdir()
    rounded, _ = open_recipe("w8")(model, Setting(tmp_path / "scratch", SILENT, TFLM.limits()))
    wanted = ReferenceSession(rounded, CONTEXT).score(IDS)
    ranges = calibrate.measure(rounded, CONTEXT, SILENT, Calibration(sequences=4, length=CONTEXT))
    monkeypatch.setattr(calibrate, "measure", lambda *_, **__: ranges)
    monkeypatch.setattr(arena, "arena_bytes", lambda _: 0)
    errors = {}
    for name, activations, kv_bits in (("a8", 8, None), ("a16", 16, None), ("a16-kv8", 16, 8)):
        folder = tmp_path / name
        folder.mkdir()
        program = TFLM.convert(rounded, ProgramOptions(CONTEXT, "float32", activations, kv_bits), folder, SILENT)
        found = chunked(TFLM.open(folder / program.main, CONTEXT), IDS)
        errors[name] = float(np.abs(found - wanted).mean() / wanted.std())
    assert 1e-6 < errors["a16"] < 0.015
    assert errors["a16"] < errors["a16-kv8"] < 0.06
    assert errors["a16"] < errors["a8"] < 0.1


def test_gelu_with_erf_is_refused_for_microcontrollers_and_runs_in_litert(tmp_path) -> None:
    model = tiny_model()
    layers = tuple(replace(layer, ffn=replace(layer.mlp, activation="gelu")) for layer in model.spec.layers)
    spec = replace(model.spec, layers=layers)
    model = Model(spec, RandomWeights(spec))
    with pytest.raises(TargetError, match=r"operator GELU \(erf\)"):
        TFLM.check(spec, open_recipe("none"), FLOAT, open_target("litert-arm64"))
    program = CONVERTER.convert(model, FLOAT, tmp_path, SILENT)
    ids = list(range(0, 60, 3))
    found = CONVERTER.open(tmp_path / program.main, CONTEXT).score(ids)
    assert np.abs(found - ReferenceSession(model, CONTEXT).score(ids)).max() < 1e-4
