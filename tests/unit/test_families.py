"""The oracle: transformers' own implementation of each family, with tiny random configurations.

Every row must give the same logits in the reference model and in ONNX Runtime (in ExecuTorch:
``test_families_executorch``), for prefill in uneven chunks, rewind and decode, past the sliding window. A new family
adds rows to ``tests/unit/family_rows.py``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from edgesdk.converter import CONVERTERS, ProgramOptions
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceSession
from edgesdk.progress import SILENT

from .family_cells import IDS, chunked, fixture, float_cell, packed_cell
from .family_disguises import fused_experts
from .family_rows import CONTEXT, CORE, ROWS, save_checkpoint

case = fixture(ROWS)
core = fixture(CORE)
ONNX = CONVERTERS.get("onnx")
EXPERTS = ("num_experts", "num_local_experts")


def test_reference_equals_transformers(case) -> None:
    found = chunked(ReferenceSession(case.model, CONTEXT), IDS)
    difference = float(np.abs(found - case.wanted).max())
    case.record("reference", "float32", difference=difference, passed=difference < 1e-4)
    assert difference < 1e-4


@pytest.mark.parametrize(("float_type", "tolerance"), [("float32", 1e-4), ("float16", 2e-2)])
def test_onnx_equals_transformers(case, tmp_path, float_type, tolerance) -> None:
    float_cell(case, ONNX, tmp_path, float_type, tolerance)


@pytest.mark.parametrize("scheme", ["w8", "w4g32"])
def test_onnx_follows_its_integers(case, tmp_path, scheme) -> None:
    packed_cell(case, ONNX, tmp_path, scheme, 0.2)


def test_prefill_and_decode_give_the_last_row_of_score(core, tmp_path) -> None:
    wanted = core.wanted
    program = ONNX.convert(core.model, ProgramOptions(CONTEXT, "float32", 32), tmp_path, SILENT)
    session = ONNX.open(tmp_path / program.main, CONTEXT, threads=2)
    assert np.abs(session.prefill(IDS[:-2]) - wanted[-3]).max() < 1e-4
    assert np.abs(session.decode(IDS[-2]) - wanted[-2]).max() < 1e-4
    session.rewind(4)
    assert np.abs(session.prefill(IDS[-5:]) - wanted[-1]).max() < 1e-4
    assert session.position == len(IDS)


@pytest.mark.parametrize(
    "row",
    [row for row in ROWS if row.disguise is None and any(row.changes.get(key) for key in EXPERTS)],
    ids=lambda row: row.name,
)
def test_fused_experts_are_the_same_tensors(row, tmp_path) -> None:
    """transformers takes experts apart when it saves, or leaves those of a layer in one tensor."""
    found = []
    for name, disguise in (("apart", None), ("fused", fused_experts)):
        save_checkpoint(replace(row, disguise=disguise), tmp_path / name)
        found.append(open_model(tmp_path / name))
    apart, fused = found
    for name in apart.spec.tensors():
        assert torch.equal(apart.weights.get(name), fused.weights.get(name))
    with safe_open(tmp_path / "fused" / "model.safetensors", "pt") as handle:
        assert any(name.endswith("experts.gate_up_proj") for name in handle.keys())  # noqa: SIM118


def test_spec_agrees_with_optimums_normalized_config(case) -> None:
    from optimum.utils import NormalizedConfigManager
    from transformers import AutoConfig

    if case.row.disguise is not None:  # a configuration that neither transformers nor optimum knows
        return
    config = AutoConfig.from_pretrained(case.model.origin.files[0].parent)
    if config.model_type not in NormalizedConfigManager._conf:
        return
    normal = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    spec = case.model.spec
    assert (normal.vocab_size, normal.hidden_size, normal.num_layers, normal.num_attention_heads) == (
        spec.vocab,
        spec.hidden,
        len(spec.layers),
        spec.layers[0].attention.heads,
    )
