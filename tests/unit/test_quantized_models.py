"""Whole models that another tool quantized: exported with their integers, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import edgesdk
from edgesdk.errors import ModelError
from edgesdk.model import Model
from edgesdk.model.opening import open_model
from edgesdk.model.tensors import QuantizedTensor

from ..conftest import make_checkpoint
from .quantized_formats import (
    AWQ,
    BITNET,
    GPTQ,
    INT8_TOKENS,
    TORCHAO,
    W8A8,
    Packer,
    Settings,
    Tensors,
    awq,
    compressed,
    gptq,
    int_quantized,
    open_one,
    pack_quantized,
    packer,
    quantize_folder,
    random_grid,
    ternary,
    torchao_described,
    torchao_intx,
)

FORMATS: dict[str, tuple[Settings, Packer, tuple[int, int], int | None]] = {
    "gptq": (GPTQ, packer(gptq, 4, 32), (4, 32), None),
    "gptq-w8": (GPTQ | {"bits": 8, "group_size": -1}, packer(gptq, 8, 0, True), (8, 0), None),
    "awq": (AWQ, packer(awq, 4, 32), (4, 32), None),
    "pack-quantized": (compressed(), packer(pack_quantized, 4, 32, True), (4, 32), None),
    "int-quantized": (W8A8, packer(int_quantized, 8, 0, True), (8, 0), 8),
    "torchao": (TORCHAO, packer(torchao_intx, 4, 32), (4, 32), 8),
}


@pytest.mark.parametrize("name", FORMATS)
def test_an_exported_program_holds_the_checkpoints_integers(tmp_path, name) -> None:
    from edgesdk_converters.onnx.readback import read_packed

    config, pack, grid, activations = FORMATS[name]
    folder = quantize_folder(tmp_path / "model", config, pack)
    model = open_model(folder)
    linear = [
        each for each in model.spec.tensors() if each.split(".")[-2] in ("q", "k", "v", "o", "gate", "up", "down")
    ]
    assert model.compression is not None
    assert model.compression.grids == dict.fromkeys(linear, grid)
    assert model.compression.activations == activations
    assert model.compression.passes[0]["use"] == f"{config['quant_method']} checkpoint"

    edgesdk.export(folder, "linux-x86_64", tmp_path / "bundle", context=64)
    (program,) = (tmp_path / "bundle").rglob("*.onnx")
    found = read_packed(program)
    for layer in range(2):
        for row, parts in {"qkv": "qkv", "o": "o"}.items():
            assert_same(found, f"layers.{layer}.{row}", model, [f"layers.{layer}.{part}.weight" for part in parts])
        for part in ("gate", "up", "down"):
            assert_same(found, f"layers.{layer}.{part}", model, [f"layers.{layer}.{part}.weight"])


def assert_same(found: dict[str, Any], stacked: str, model: Model, names: list[str]) -> None:
    """One program tensor, or the parts where the converter did not stack them, holds these weights."""
    wanted = [model.weights.get(name) for name in names]
    apart = [name.removesuffix(".weight") for name in names]
    got = [found[name] for name in ([stacked] if stacked in found else apart)]
    for attribute in ("values", "scales", "zero_points"):
        parts = [getattr(each, attribute) for each in wanted]
        has = [getattr(each, attribute) for each in got]
        if any(part is None for part in parts):
            assert all(part is None for part in (*parts, *has))
        else:
            assert torch.equal(torch.cat(has), torch.cat(parts))


def test_a_ternary_folder_opens_as_it_is(tmp_path) -> None:
    model = open_model(quantize_folder(tmp_path / "model", BITNET, ternary))
    assert model.compression is not None
    assert set(model.compression.grids.values()) == {(2, 0)}
    assert model.compression.activations == 8
    stored = model.weights.get("layers.1.down.weight")
    assert isinstance(stored, QuantizedTensor)
    assert sorted(stored.values.unique().tolist()) == [-1, 0, 1]
    assert bool((stored.scales == 0.125).all())
    assert isinstance(model.weights.get("embed.weight"), torch.Tensor)


def test_the_report_says_which_matrices_became_floats(tmp_path) -> None:
    def scattered(name: str, seed: int, outputs: int, inputs: int) -> tuple[Tensors, None]:
        grid = random_grid(seed, outputs, inputs, 4, 32)
        index = np.arange(inputs) // 32
        if "down_proj" in name:
            index = np.random.default_rng(seed).permutation(index)
        return gptq(grid, name, index=index), None

    model = open_model(quantize_folder(tmp_path / "model", GPTQ | {"desc_act": True}, scattered))
    assert model.compression is not None
    assert "layers.0.down.weight" not in model.compression.grids
    assert len(model.compression.grids) == 12
    report = model.compression.reports[0]
    assert report["tensors"] == {"w4g32": 12}
    assert "2 of 14 quantized matrices become floats: inputs that share a scale do not lie" in report["notes"][0]


def test_a_family_with_transposed_matrices_is_refused(tmp_path) -> None:
    make_checkpoint(tmp_path)
    config = {
        "model_type": "gpt2",
        "vocab_size": 260,
        "n_embd": 64,
        "n_head": 4,
        "n_layer": 1,
        "n_positions": 64,
        "quantization_config": GPTQ,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(gptq(random_grid(0, 64, 64, 4, 32), "transformer.h.0.attn.c_proj"), tmp_path / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"c_proj.weight' is quantized, and this family keeps its matrices as \[in, out"
    ):
        open_model(tmp_path)


# --- refusals ---------------------------------------------------------------------------------------------------------

DOWN = "model.layers.1.mlp.down_proj"


def changed(folder: Path, change: Callable[[Tensors], None]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def cut(name: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = tensors[name][:-1].clone()

    return change


def without(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.__delitem__(name)


def filled(name: str, value: float) -> Callable[[Tensors], None]:
    return lambda tensors: tensors[name].view(-1)[:1].fill_(value)  # type: ignore[return-value]


def as_floats(name: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[name] = tensors[name].float()

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gptq", filled(f"{DOWN}.scales", float("nan")), r"down_proj.weight' holds 1 values that are NaN"),
        ("gptq", cut(f"{DOWN}.qweight"), r"down_proj.qweight' has 15 rows, which 4 bits of 128 inputs do not fill"),
        ("gptq", cut(f"{DOWN}.qzeros"), r"down_proj.qzeros' is I32 \[3 x 8\].*asks for I32 \[4 x 8\]"),
        ("gptq", without(f"{DOWN}.scales"), r"down_proj.scales' is missing"),
        ("gptq", as_floats(f"{DOWN}.qweight"), r"down_proj.qweight' is F32 \[16 x 64\].*asks for I32"),
        ("gptq", filled(f"{DOWN}.g_idx", 9), r"down_proj.g_idx' names groups outside of 0 to 3"),
        ("awq", cut(f"{DOWN}.qweight"), r"down_proj.scales' has 4 rows, which do not divide 127 inputs"),
        ("awq", without(f"{DOWN}.qzeros"), r"down_proj.qzeros' is missing"),
        ("pack-quantized", cut(f"{DOWN}.weight_scale"), r"down_proj.weight_scale' is F16 \[63 x 4\].*\[64 x 4\]"),
        ("pack-quantized", filled(f"{DOWN}.weight_shape", 60), r"which do not hold 60 x 128 values of 4 bits"),
        ("pack-quantized", filled(f"{DOWN}.weight_scale", float("inf")), r"NaN or infinite"),
        ("int-quantized", as_floats(f"{DOWN}.weight"), r"down_proj.weight' is F32 .*asks for I8"),
        ("bitnet", filled(f"{DOWN}.weight", 0xFF), r"holds values that are not -1, 0 or 1"),
        ("bitnet", cut(f"{DOWN}.weight"), r"is 60 x 128, but the configuration asks for 64 x 128"),
        ("bitnet", as_floats(f"{DOWN}.weight"), r"down_proj.weight' is F32 .*asks for U8"),
    ],
)
def test_damaged_tensors_give_one_clear_error(tmp_path, name, change, message) -> None:
    config, pack = (BITNET, ternary) if name == "bitnet" else FORMATS[name][:2]
    folder = quantize_folder(tmp_path / "model", config, pack)
    changed(folder, change)
    with pytest.raises(ModelError, match=message) as failure:
        open_model(folder).weights.get("layers.1.down.weight")
    assert failure.value.hint or "the configuration asks for" in failure.value.message


SPARSE = compressed() | {"sparsity_config": {"format": "sparse-24-bitmask"}}
ROTATED = compressed() | {"transform_config": {"config_groups": {"u": {"type": "hadamard"}}}}
FP8 = compressed("float-quantized", type="float", num_bits=8, strategy="channel", group_size=None)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "gptx"}, r"no quantization method 'gptx' \(did you mean 'gptq'\?\); there are: awq, bitnet"),
        ({"bits": 4}, "no quantization method 'None'"),
        (GPTQ | {"checkpoint_format": "marlin"}, "the GPTQ layout 'marlin'"),
        (AWQ | {"version": "gemv_fast"}, "the AWQ layout 'gemv_fast' cannot be read"),
        (AWQ | {"bits": 8}, "AWQ with 8 bits"),
        (FP8, r"format 'float-quantized' \(float8 weights\) is not one of integers"),
        (compressed("nvfp4-pack-quantized", type="float"), r"format 'nvfp4-pack-quantized' \(float4 weights\)"),
        (compressed("dense"), "format 'dense'"),
        (SPARSE, "the sparse format 'sparse-24-bitmask' cannot be read"),
        (ROTATED, "transform_config rotates activations"),
        (compressed(num_bits=6), r"6 bits; \(2, 3, 4, 8\) can be carried"),
        (compressed(strategy="block"), "scales by 'block' cannot be carried"),
        (TORCHAO, "hold no tensors with metadata of torchao"),
        (BITNET | {"quantization_mode": "online"}, "'online' stores float weights and rounds them at every step"),
        (BITNET | {"use_rms_norm": True}, "use_rms_norm puts a norm inside of each linear layer"),
        (BITNET | {"linear_class": "trilinear"}, "'linear_class' is 'trilinear'"),
        (BITNET, r"already quantized \(bitnet\) says config.json, but no tensor's name ends with '.weight_scale'"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(checkpoint, tmp_path, config, message) -> None:
    whole = json.loads((checkpoint / "config.json").read_text()) | {"quantization_config": config}
    for path in checkpoint.iterdir():
        if path.name != "config.json":
            shutil.copy(path, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(whole))
    with pytest.raises(ModelError, match=message):
        open_model(tmp_path)


@pytest.mark.parametrize(
    ("kind", "attributes", "extra", "message"),
    [
        ("Float8Tensor", {}, {}, r"is a torchao Float8Tensor, which cannot be carried; Int8Tensor"),
        ("IntxUnpackedToInt8Tensor", {"target_dtype": {"_data": "int6"}}, {}, r"has values of int6; int2, int3"),
        ("Int8Tensor", {"block_size": [1, 48]}, {}, r"gives the block \[1, 48\]"),
        ("Int8Tensor", {}, {"act_pre_scale": torch.ones(64)}, r"scales its input first \(act_pre_scale\)"),
        ("Int8Tensor", {}, {"zero_point": torch.zeros(32, 1)}, r"_weight_zero_point' is F32"),
    ],
)
def test_torchao_classes_that_cannot_be_carried(tmp_path, kind, attributes, extra, message) -> None:
    grid = random_grid(0, 32, 64, 8, 64, kind=torch.float32)
    tensors = torchao_intx(grid, "m") | {f"m._weight_{name}": tensor for name, tensor in extra.items()}
    metadata = {"m.weight": torchao_described(kind, attributes.get("block_size", (1, 64)), **attributes)}
    with pytest.raises(ModelError, match=message):
        open_one(tmp_path, tensors, TORCHAO, metadata)


@pytest.mark.parametrize(
    ("bits", "message"), [(5, r"GPTQ with 5 bits; \(2, 3, 4, 8\) can be"), ("four", "'bits' must be a positive whole")]
)
def test_gptq_bits_that_cannot_be_carried(tmp_path, bits, message) -> None:
    with pytest.raises(ModelError, match=message):
        open_one(tmp_path, gptq(random_grid(0, 32, 64, 4, 32), "m"), GPTQ | {"bits": bits})


def test_values_beyond_their_bits_are_refused(tmp_path) -> None:
    tensors = int_quantized(random_grid(1, 32, 64, 8, 32), "m")
    file = open_one(tmp_path, tensors, compressed("naive-quantized"))
    with pytest.raises(ModelError, match=r"holds integers from -128 to 127, not 4 bits"):
        file.read("m.weight")


def test_integers_that_no_configuration_explains(tmp_path) -> None:
    folder = make_checkpoint(tmp_path)
    changed(folder, lambda tensors: tensors.update({f"{DOWN}.weight": torch.zeros(64, 128, dtype=torch.int8)}))
    with pytest.raises(ModelError, match=r"down_proj.weight' holds I8 values, and config.json does not say how"):
        open_model(folder)


def test_a_fixed_activation_scale_is_said_to_be_unused(tmp_path) -> None:
    config = compressed("int-quantized", INT8_TOKENS | {"dynamic": False, "strategy": "tensor"}, num_bits=8)
    file = open_one(tmp_path, int_quantized(random_grid(1, 32, 64, 8, 32), "m"), config)
    assert file.activations == 8
    assert "fixed scales of int8 activations are not used" in file.compression({}).reports[0]["notes"][0]
