"""Passes on families beside Llama's: what a pass takes is compressed and runs, what it does not take is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgesdk.compress.base import Setting
from edgesdk.compress.calibration import Calibration
from edgesdk.compress.layerwise import Inputs
from edgesdk.compress.recipe import open_recipe
from edgesdk.errors import RecipeError
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceModel, ReferenceSession
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.progress import SILENT

from .family_cells import IDS
from .family_rows import CONTEXT, ROWS, save_checkpoint

CALIBRATION = Calibration(sequences=4, length=32)
NAMED = {row.name: row for row in ROWS}


def opened(name, folder):
    save_checkpoint(NAMED[name], folder)
    return open_model(folder)


@pytest.mark.parametrize(
    "name",
    [
        "mixtral",
        "qwen2_moe",
        "jamba",
        "rwkv",
        "mamba2",
        "zamba",
        "zamba2",
        "qwen3_5",
        "qwen3_next",
        "lfm2",
        "phi",
        "bloom",
        "olmo-clip",
        "stablelm-qk-norms",
        "opt-350m",
    ],
)
def test_gptq_rounds_every_matrix_about_as_well_as_plain_rounding(tmp_path, name) -> None:
    model = opened(name, tmp_path)
    wanted, errors = ReferenceSession(model, CONTEXT).score(IDS), {}
    for recipe in ("w4g32", "w4g32-gptq"):
        (tmp_path / recipe).mkdir()
        rounded, _ = open_recipe(recipe)(model, Setting(tmp_path / recipe, SILENT, calibration=CALIBRATION))
        found = ReferenceSession(rounded, CONTEXT).score(IDS)
        errors[recipe] = float(np.abs(found - wanted).mean())
        kinds = {type(rounded.weights.get(tensor)) for tensor in model.spec.tensors() if tensor.endswith("down.weight")}
        assert kinds <= {QuantizedTensor}
    assert 0 < errors["w4g32-gptq"] < 2 * errors["w4g32"]  # random weights and random text leave little to gain


def test_sums_of_inputs_are_each_matrix_its_own(tmp_path) -> None:
    """Experts see the tokens that go to them; RWKV's matrices see three blends of one stream; Llama's share theirs."""
    for name, alike, apart in (
        ("mixtral", ("experts.0.up", "experts.0.gate"), ("experts.0.up", "experts.1.up")),
        ("rwkv", ("k", "k"), ("k", "v")),
        ("llama", ("q", "v"), ("q", "up")),
    ):
        (tmp_path / name).mkdir()
        reference = ReferenceModel(opened(name, tmp_path / name))
        layer, inputs = reference.layer(1), Inputs(reference.spec, 1)
        layer.observe = inputs
        reference.through(layer, reference.embed([torch.tensor([IDS])]))
        assert inputs.of(alike[0]).products is inputs.of(alike[1]).products
        assert not torch.equal(inputs.of(apart[0]).products, inputs.of(apart[1]).products)
    assert inputs.of("layers.1.down").rows == len(IDS)


@pytest.mark.parametrize(
    ("name", "recipe", "what"),
    [
        ("mixtral", "w4g32-awq", "awq does not know what to do with a mixture of experts"),
        ("phi", "w4g32-smooth", "attention and MLP side by side"),
        ("mamba", "w4g32-rotv", "rotation does not know what to do with Mamba's state spaces"),
        ("olmo2", "w4g32-keys-kv8", "norms over all queries and keys"),
        ("bitnet", "w4g32-awq", "norms inside its blocks"),
        ("rwkv", "w4g32-qat", "RWKV's time mixing"),
        ("zamba2", "w4g32-depth75", "depth does not know what to do with transformer blocks beside the stream"),
        ("zamba", "w4g32-qat", "Mamba's state spaces in heads"),
        ("qwen3_5", "w4g32-awq", "gated delta networks and gates on what attention gives"),
        ("phi", "w4g32-vocab", "a bias on the logits"),
        ("olmo-clip", "w4g32-awq", "clamped queries, keys and values"),
        ("stablelm-qk-norms", "w4g32-keys-kv8", "layer norms on each head of queries and keys"),
        ("opt-350m", "w4g32-smooth", "matrices between embedding, head and stream and norms behind its residual sums"),
        ("opt-350m", "w4g32-depth75", "norms behind its residual sums"),
    ],
)
def test_a_pass_refuses_what_it_does_not_take(tmp_path, name, recipe, what) -> None:
    model = opened(name, tmp_path)
    with pytest.raises(RecipeError, match=what):
        open_recipe(recipe).spec(model.spec)
