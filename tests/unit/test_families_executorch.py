"""Every family's tiny configuration in ExecuTorch: the oracle is transformers' own implementation."""

from __future__ import annotations

import numpy as np
import pytest

from edgesdk.converter import CONVERTERS, ProgramOptions
from edgesdk.progress import SILENT

from .family_cells import IDS, chunked, fixture, float_cell, packed_cell
from .family_rows import CONTEXT, CORE, ROWS

case = fixture(ROWS)
core = fixture(CORE)
CONVERTER = CONVERTERS.get("executorch")
FLOAT = ProgramOptions(CONTEXT, "float32", 32)


@pytest.mark.parametrize(("float_type", "tolerance"), [("float32", 1e-3), ("float16", 2e-2)])
def test_executorch_equals_transformers(case, tmp_path, float_type, tolerance) -> None:
    float_cell(case, CONVERTER, tmp_path, float_type, tolerance)


@pytest.mark.parametrize("scheme", ["w8", "w4g32"])
def test_executorch_follows_its_integers(case, tmp_path, scheme) -> None:
    packed_cell(case, CONVERTER, tmp_path, scheme, 0.2)


def test_caches_in_int8_stay_close(core, tmp_path, monkeypatch) -> None:
    from edgesdk_converters.executorch import sizes

    monkeypatch.setattr(sizes, "CHUNK", 8)
    if any(layer.attention.softcap for layer in core.model.spec.layers):
        return
    program = CONVERTER.convert(core.model, ProgramOptions(CONTEXT, "float32", 32, kv_bits=8), tmp_path, SILENT)
    found = chunked(CONVERTER.open(tmp_path / program.main, CONTEXT, threads=2), IDS)
    assert 1e-5 < np.abs(found - core.wanted).max() < 5e-2


def test_rings_wrap(core, tmp_path, monkeypatch) -> None:
    """With short steps a sliding window's cache is smaller than the text, and entries are used again."""
    from edgesdk_converters.executorch import sizes

    monkeypatch.setattr(sizes, "CHUNK", 8)
    program = CONVERTER.convert(core.model, FLOAT, tmp_path, SILENT)
    session = CONVERTER.open(tmp_path / program.main, CONTEXT, threads=2)
    assert np.abs(chunked(session, IDS) - core.wanted).max() < 1e-3
    session.reset()
    assert np.abs(session.prefill(IDS) - core.wanted[-1]).max() < 1e-3
    session.rewind(20)  # further than a ring remembers
    assert np.abs(session.decode(IDS[20]) - core.wanted[20]).max() < 1e-3


def test_prefill_and_decode_give_the_last_row_of_score(core, tmp_path) -> None:
    program = CONVERTER.convert(core.model, FLOAT, tmp_path, SILENT)
    session = CONVERTER.open(tmp_path / program.main, CONTEXT, threads=2)
    assert np.abs(session.prefill(IDS[:-2]) - core.wanted[-3]).max() < 1e-4
    assert np.abs(session.decode(IDS[-2]) - core.wanted[-2]).max() < 1e-4
    session.rewind(4)
    assert np.abs(session.prefill(IDS[-5:]) - core.wanted[-1]).max() < 1e-4
    assert session.position == len(IDS)
