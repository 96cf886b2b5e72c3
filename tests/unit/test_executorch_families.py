"""What families ask of XNNPACK beyond Llama's decoder, with packed integers: read back, computed with, and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgesdk.compress.base import Setting
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import CONVERTERS, ProgramOptions
from edgesdk.errors import EdgeError
from edgesdk.model import Model
from edgesdk.model import layers as torch_layers
from edgesdk.model.features import RECURRENT, features
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceSession
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.progress import SILENT
from edgesdk.targets import open_target
from edgesdk_converters.executorch.operators import operator_times
from edgesdk_converters.executorch.readback import read_packed

from .family_rows import CONTEXT, ROWS, save_checkpoint

CONVERTER = CONVERTERS.get("executorch")
IDS = np.random.default_rng(11).integers(0, 96, 24).tolist()
PACKED = ["bitnet", "bloom", "falcon", "gpt2", "olmo2", "olmoe", "phi", "phimoe", "qwen2_moe", "smollm3"]
PACKED += ["jamba", "lfm2", "mamba", "mamba2", "rwkv"]
ROW = {row.name: row for row in ROWS}


def compressed(name: str, recipe: str, folder: Path) -> Model:
    (folder / "scratch").mkdir()
    save_checkpoint(ROW[name], folder)
    return open_recipe(recipe)(open_model(folder), Setting(folder / "scratch", SILENT, CONVERTER.limits()))[0]


def program(model: Model, folder: Path, float_type: str = "float32", context: int = CONTEXT) -> Path:
    made = CONVERTER.convert(model, ProgramOptions(context, float_type, 8), folder, SILENT)
    return folder / made.main


def parts(name: str) -> list[str]:
    """Canonical names of the tensors of a packed matrix of a program."""
    prefix, _, last = name.rpartition(".")
    if not prefix:
        return ["embed.weight" if name == "embedding" else f"{name}.weight"]
    return [f"{prefix}.{part}.weight" for part in (["q", "k", "v"] if last == "qkv" else [last])]


@pytest.mark.parametrize("recipe", ["w4g32", "w8"])
@pytest.mark.parametrize("name", PACKED)
def test_integers_read_back_equal_and_are_what_is_computed_with(tmp_path, name, recipe) -> None:
    model = compressed(name, recipe, tmp_path)
    path = program(model, tmp_path)
    seen = set()
    for packed, tensor in read_packed(path).items():
        wanted = [model.weights.get(each) for each in parts(packed)]
        assert torch.equal(tensor.values, torch.cat([each.values for each in wanted]))
        assert torch.equal(tensor.scales, torch.cat([each.scales for each in wanted]))
        seen.update(parts(packed))
    assert seen == {each for each in model.spec.tensors() if isinstance(model.weights.get(each), QuantizedTensor)}
    wanted = ReferenceSession(model, CONTEXT).score(IDS)
    difference = np.abs(CONVERTER.open(path, CONTEXT, threads=2).score(IDS) - wanted).max(axis=1)
    # Activations are int8: a token that two experts are nearly equal for may go to the other one; states gather errors.
    loose = features(model.spec) & {"moe", *RECURRENT}
    assert (np.median(difference) / wanted.std() if loose else difference.max()) < 0.15


@pytest.mark.parametrize(("float_type", "tolerance"), [("float32", 1e-4), ("float16", 2e-2)])
def test_biases_of_far_positions_are_exact(tmp_path, float_type, tolerance) -> None:
    """Positions lie in the keys as absolute numbers: they must not lose digits as they grow."""
    row, context = ROW["bloom"], 1024
    save_checkpoint(replace(row, changes=row.changes | {"seq_length": context}), tmp_path)
    model = open_model(tmp_path)
    ids = np.random.default_rng(5).integers(0, 96, context).tolist()
    session = CONVERTER.open(program(model, tmp_path, float_type, context), context, threads=2)
    session.prefill(ids[:-60])
    wanted = ReferenceSession(model, context)
    wanted.prefill(ids[:-60])
    assert np.abs(session.score(ids[-60:]) - wanted.score(ids[-60:])).max() < tolerance


def test_what_the_kernels_cannot_do_is_refused_by_name(tmp_path) -> None:
    save_checkpoint(ROW["bloom"], tmp_path)
    spec = open_model(tmp_path).spec
    options, target = ProgramOptions(CONTEXT, "float32", 8, kv_bits=8), open_target("host")
    with pytest.raises(EdgeError, match="without a soft cap or ALiBi"):
        CONVERTER.check(spec, open_recipe("w8-kv8"), options, target)
    attention = replace(spec.layers[0].attention, softcap=3.0)
    capped = replace(spec, layers=(replace(spec.layers[0], mixer=attention),))
    with pytest.raises(EdgeError, match="both ALiBi and a soft cap"):
        CONVERTER.check(capped, open_recipe("w8"), replace(options, kv_bits=None), target)


def test_only_experts_that_tokens_go_to_are_run(tmp_path) -> None:
    """One token goes to two of six experts in two layers; each has three matrices, and so has the shared one."""
    save_checkpoint(ROW["qwen2_moe"], tmp_path)
    model = open_model(tmp_path)
    rows = operator_times(program(model, tmp_path), CONTEXT, 2, IDS[:8], 4)
    products = [row for row in rows if "Fully Connected" in row["operator"] and row["phase"] == "decode"]
    layers, means = 3, 7
    routed, shared, dense = 2 * 2 * 3, 2 * (3 + 2), 3  # matrices of experts; of shared ones, and routers; of the others
    assert sum(row["calls"] for row in products) == layers * 2 + routed + shared + dense + means + 1
    remarks = CONVERTER.remarks(model.spec, ProgramOptions(CONTEXT, "float32", 8))
    assert any("12 experts are XNNPACK subgraphs of their own" in remark for remark in remarks)
    plan = CONVERTER.plan(model.spec, open_recipe("none"), ProgramOptions(CONTEXT, "float32", 8))
    assert plan.weights > 4 * 12 * 3 * 64 * 48


@pytest.mark.parametrize("name", ["mixtral", "phimoe"])
def test_experts_behind_int8_caches_are_those_of_rounded_keys(tmp_path, monkeypatch, name) -> None:
    """Rounding sends some tokens to other experts, so the reference rounds queries, keys and values as well."""
    update, attend = torch_layers.LayerCache.update, torch_layers.attend
    monkeypatch.setattr(
        torch_layers.LayerCache, "update", lambda self, start, k, v: update(self, start, rounded(k), rounded(v))
    )
    monkeypatch.setattr(torch_layers, "attend", lambda q, k, v, attention: attend(rounded(q), k, v, attention))
    save_checkpoint(ROW[name], tmp_path)
    model = open_model(tmp_path)
    made = CONVERTER.convert(model, ProgramOptions(CONTEXT, "float32", 32, kv_bits=8), tmp_path, SILENT)
    found = CONVERTER.open(tmp_path / made.main, CONTEXT, threads=2).score(IDS)
    assert np.abs(found - ReferenceSession(model, CONTEXT).score(IDS)).max() < 1e-2


def rounded(x: torch.Tensor) -> torch.Tensor:
    """Each row in int8, with a scale and a zero point, and back."""
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = ((high - low) / 255).clamp(min=1e-8)
    zero = (-128 - low / scale).round().clamp(-128, 127)
    return ((x / scale + zero).round().clamp(-128, 127) - zero) * scale
