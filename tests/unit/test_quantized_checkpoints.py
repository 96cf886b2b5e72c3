"""Checkpoints that other tools quantized open to their own integers; packing here follows each format's description."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import edgesdk
from edgesdk.errors import ModelError
from edgesdk.model import Model
from edgesdk.model.config import Config
from edgesdk.model.opening import open_model
from edgesdk.model.quantized import open_quantized
from edgesdk.model.safetensors_file import SafetensorsFolder
from edgesdk.model.tensors import QuantizedTensor

from ..conftest import make_checkpoint

Tensors = dict[str, torch.Tensor]
Settings = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """A random matrix: unsigned integers [out, in], zero points and scales [out, groups]."""

    fields: np.ndarray
    zeros: np.ndarray
    scales: torch.Tensor
    bits: int

    @property
    def half(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def group(self) -> int:
        return self.fields.shape[1] // self.zeros.shape[1]

    def floats(self, index: np.ndarray | None = None) -> torch.Tensor:
        """(field - zero point) * scale in float32; ``index`` is the group of each input."""
        index = np.arange(self.fields.shape[1]) // self.group if index is None else index
        steps = torch.from_numpy(self.fields - self.zeros[:, index]).float()
        return steps * self.scales.float()[:, torch.from_numpy(index)]


def random_grid(
    seed: int, outputs: int, inputs: int, bits: int, group: int, symmetric: bool = False, kind: Any = torch.float16
) -> Grid:
    random = np.random.default_rng(seed)
    groups = inputs // group
    zeros = random.integers(0, 1 << bits, (outputs, groups))
    if symmetric:
        zeros[:] = 1 << (bits - 1)
    scales = torch.from_numpy(random.standard_normal((outputs, groups)) * 0.02).to(kind)
    return Grid(random.integers(0, 1 << bits, (outputs, inputs)), zeros, scales, bits)


def stream(fields: np.ndarray, bits: int) -> torch.Tensor:
    """Each row as one number, the first field lowest, cut into little-endian words: int32 [rows, words]."""
    words = -(-fields.shape[1] * bits // 32)
    rows = [sum(int(field) << (bits * i) for i, field in enumerate(row)) for row in fields]
    raw = b"".join(row.to_bytes(4 * words, "little") for row in rows)
    return torch.from_numpy(np.frombuffer(raw, "<i4").reshape(len(rows), words).copy())


# --- how each tool stores one matrix ---------------------------------------------------------------------------------


def gptq(grid: Grid, name: str, v2: bool = False, index: np.ndarray | None = None) -> Tensors:
    zeros = stream(grid.zeros.T, grid.bits)
    if not v2 and grid.bits == 3:
        zeros = stream((grid.zeros.T - 1) % 8, 3)
    elif not v2:  # one is taken off whole words, as GPTQModel does
        one = sum(1 << shift for shift in range(0, 32, grid.bits))
        zeros = ((zeros.long() - one + 2**31) % 2**32 - 2**31).int()
    index = np.arange(grid.fields.shape[1]) // grid.group if index is None else index
    return {
        f"{name}.qweight": stream(grid.fields, grid.bits).T.contiguous(),
        f"{name}.qzeros": zeros.contiguous(),
        f"{name}.scales": grid.scales.T.contiguous(),
        f"{name}.g_idx": torch.from_numpy(index).int(),
    }


def awq(grid: Grid, name: str) -> Tensors:
    def words(fields: np.ndarray) -> torch.Tensor:
        eights = fields.reshape(len(fields), -1, 8)[..., [0, 2, 4, 6, 1, 3, 5, 7]]
        return stream(eights.reshape(fields.shape), 4)

    return {
        f"{name}.qweight": words(grid.fields.T),
        f"{name}.qzeros": words(grid.zeros.T),
        f"{name}.scales": grid.scales.T.contiguous(),
    }


def pack_quantized(grid: Grid, name: str) -> Tensors:
    tensors = {
        f"{name}.weight_packed": stream(grid.fields, grid.bits),
        f"{name}.weight_scale": grid.scales,
        f"{name}.weight_shape": torch.tensor(grid.fields.shape),
    }
    if (grid.zeros != grid.half).any():
        tensors[f"{name}.weight_zero_point"] = stream(grid.zeros.T, grid.bits).T.contiguous()
    return tensors


def int_quantized(grid: Grid, name: str) -> Tensors:
    return {
        f"{name}.weight": torch.from_numpy(grid.fields - grid.half).to(torch.int8),
        f"{name}.weight_scale": grid.scales,
        f"{name}.weight_zero_point": torch.from_numpy(grid.zeros - grid.half).to(torch.int8),
    }


def torchao_intx(grid: Grid, name: str) -> Tensors:
    return {
        f"{name}._weight_qdata": torch.from_numpy(grid.fields - grid.half).to(torch.int8),
        f"{name}._weight_scale": grid.scales,
        f"{name}._weight_zero_point": torch.from_numpy(grid.zeros - grid.half).to(torch.int8),
    }


def torchao_described(kind: str, block: Sequence[int], **attributes: object) -> str:
    data = {"block_size": list(block), "dtype": {"_type": "torch.dtype", "_data": "bfloat16"}, **attributes}
    return json.dumps({"_type": kind, "_data": data, "_tensor_data_names": ["qdata", "scale", "zero_point"]})


def intx_described(grid: Grid, activations: str | None = "int8_asym_per_token") -> str:
    target = {"_type": "torch.dtype", "_data": f"int{grid.bits}"}
    block = (1, grid.group)
    return torchao_described(
        "IntxUnpackedToInt8Tensor", block, target_dtype=target, activation_quantization=activations
    )


def bitnet(ternary: np.ndarray, scale: float, name: str, kind: Any = torch.bfloat16) -> Tensors:
    quarters = (ternary + 1).reshape(4, -1, ternary.shape[1])
    packed = sum(quarter << (2 * i) for i, quarter in enumerate(quarters))
    return {
        f"{name}.weight": torch.from_numpy(packed).to(torch.uint8),
        f"{name}.weight_scale": torch.tensor([scale], dtype=kind),
    }


GPTQ: Settings = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
AWQ: Settings = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
TORCHAO: Settings = {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}
BITNET: Settings = {"quant_method": "bitnet", "modules_to_not_convert": None}
INT8_TOKENS: Settings = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True, "symmetric": True}


def compressed(layout: str = "pack-quantized", inputs: Settings | None = None, **weights: object) -> Settings:
    args = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "dynamic": False}
    group = {"targets": ["Linear"], "weights": args | weights, "input_activations": inputs, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


def open_one(folder: Path, tensors: Tensors, config: Settings, metadata: dict[str, str] | None = None) -> Any:
    """The only matrix, ``m.weight``, of a folder that holds just that."""
    save_file(tensors, folder / "model.safetensors", metadata)
    return open_quantized(SafetensorsFolder(folder), Config(config, "config.json: quantization_config"))


def assert_holds(stored: object, grid: Grid) -> None:
    assert isinstance(stored, QuantizedTensor)
    assert torch.equal(stored.values, torch.from_numpy(grid.fields - grid.half).to(torch.int8))
    assert torch.equal(stored.scales, grid.scales.float())
    assert (stored.bits, stored.group) == (grid.bits, grid.group)
    zeros = torch.from_numpy(grid.zeros - grid.half).to(torch.int8)
    if bool(zeros.any()):
        assert stored.zero_points is not None
        assert torch.equal(stored.zero_points, zeros)
    else:
        assert stored.zero_points is None
    assert torch.equal(stored.dequantize(), grid.floats())


grids = st.builds(
    random_grid,
    seed=st.integers(0, 2**32 - 1),
    outputs=st.sampled_from([8, 32, 40, 96]),
    inputs=st.sampled_from([64, 128, 192]),
    bits=st.sampled_from([2, 3, 4, 8]),
    group=st.sampled_from([16, 32, 64]),
    symmetric=st.booleans(),
    kind=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
)
few = settings(max_examples=25, deadline=None)


@few
@given(grid=grids, v2=st.booleans())
def test_gptq_opens_bit_for_bit(tmp_path_factory, grid: Grid, v2: bool) -> None:
    config = GPTQ | {"bits": grid.bits, "group_size": grid.group, "checkpoint_format": "gptq_v2" if v2 else "gptq"}
    file = open_one(tmp_path_factory.mktemp("one"), gptq(grid, "m", v2), config)
    assert file.shape("m.weight") == grid.fields.shape
    assert_holds(file.read("m.weight"), grid)


@few
@given(grid=grids.filter(lambda grid: grid.bits == 4))
def test_awq_opens_bit_for_bit(tmp_path_factory, grid: Grid) -> None:
    file = open_one(tmp_path_factory.mktemp("one"), awq(grid, "m"), AWQ | {"group_size": grid.group})
    assert file.shape("m.weight") == grid.fields.shape
    assert_holds(file.read("m.weight"), grid)


@few
@given(grid=grids, packed=st.booleans())
def test_compressed_tensors_open_bit_for_bit(tmp_path_factory, grid: Grid, packed: bool) -> None:
    layout, pack = ("pack-quantized", pack_quantized) if packed else ("naive-quantized", int_quantized)
    config = compressed(layout, num_bits=grid.bits, group_size=grid.group, symmetric=False)
    file = open_one(tmp_path_factory.mktemp("one"), pack(grid, "m"), config)
    assert file.shape("m.weight") == grid.fields.shape
    assert_holds(file.read("m.weight"), grid)


@few
@given(grid=grids)
def test_torchao_opens_bit_for_bit(tmp_path_factory, grid: Grid) -> None:
    metadata = {"m.weight": intx_described(grid), "tensor_names": '["m.weight"]'}
    file = open_one(tmp_path_factory.mktemp("one"), torchao_intx(grid, "m"), TORCHAO, metadata)
    assert file.shape("m.weight") == grid.fields.shape
    assert_holds(file.read("m.weight"), grid)
    assert file.activations == 8


@few
@given(seed=st.integers(0, 2**32 - 1), rows=st.sampled_from([4, 12, 64]), scale=st.floats(0.01, 100))
@pytest.mark.parametrize("kind", ["bitlinear", "autobitlinear"])
def test_bitnet_opens_bit_for_bit(tmp_path_factory, seed: int, rows: int, scale: float, kind: str) -> None:
    ternary = np.random.default_rng(seed).integers(-1, 2, (rows, 24))
    tensors = bitnet(ternary, scale, "m")
    stored = open_one(tmp_path_factory.mktemp("one"), tensors, BITNET | {"linear_class": kind}).read("m.weight")
    assert torch.equal(stored.values, torch.from_numpy(ternary).to(torch.int8))
    weight_scale = tensors["m.weight_scale"].float()
    step = 1 / weight_scale if kind == "bitlinear" else weight_scale
    assert torch.equal(stored.dequantize(), torch.from_numpy(ternary).float() * step)
    assert (stored.bits, stored.group, stored.zero_points) == (2, 24, None)


# --- the tools' own code ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bitlinear", "autobitlinear"])
def test_a_ternary_matrix_computes_what_transformers_layers_do(tmp_path, kind) -> None:
    from transformers.integrations import bitnet as peer

    ternary = torch.randint(-1, 2, (32, 16), generator=torch.Generator().manual_seed(1))
    packed = peer.pack_weights(ternary.clone())
    scale = torch.tensor([3.25])
    config = BITNET | {"linear_class": kind}
    stored = open_one(tmp_path, {"m.weight": packed, "m.weight_scale": scale}, config).read("m.weight")
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(2))
    with torch.compiler.set_stance("force_eager"):
        assert torch.equal(stored.values.float(), peer.unpack_weights(packed, torch.float32))
        if kind == "bitlinear":
            layer = peer.BitLinear(16, 32, bias=False, dtype=torch.float32)
            layer.weight, layer.weight_scale = packed, scale
        else:
            layer = peer.AutoBitLinear(16, 32, bias=False, dtype=torch.float32)
            layer.weight.data, layer.weight_scale = peer.unpack_weights(packed, torch.float32), scale
        steps = 127 / x.abs().amax(-1, keepdim=True)
        wanted = (x * steps).round() / steps @ stored.dequantize().T
        assert torch.allclose(layer(x), wanted, rtol=1e-5, atol=1e-6)


def test_torchao_tensors_dequantize_the_same(tmp_path) -> None:
    pytest.importorskip("torchao")
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8DynamicActivationIntxWeightConfig,
        Int8WeightOnlyConfig,
        IntxWeightOnlyConfig,
        MappingType,
        quantize_,
    )
    from torchao.quantization.granularity import PerAxis, PerGroup, PerTensor

    asymmetric = MappingType.ASYMMETRIC
    cases = {
        (8, 0): Int8WeightOnlyConfig(),
        (8, 0, "whole"): Int8WeightOnlyConfig(granularity=PerTensor()),
        (8, 0, "tokens"): Int8DynamicActivationInt8WeightConfig(),
        (4, 32, "tokens"): Int8DynamicActivationIntxWeightConfig(
            weight_dtype=torch.int4, weight_granularity=PerGroup(32), weight_mapping_type=asymmetric
        ),
        (4, 32): IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(32)),
        (3, 0): IntxWeightOnlyConfig(weight_dtype=torch.int3, granularity=PerAxis(0)),
        (2, 16): IntxWeightOnlyConfig(weight_dtype=torch.int2, granularity=PerGroup(16), mapping_type=asymmetric),
    }
    for grid, config in cases.items():
        torch.manual_seed(0)
        module = torch.nn.Sequential()
        module.m = torch.nn.Linear(64, 48, bias=False)
        quantize_(module, config)
        weight = module.m.weight
        tensors, metadata = flatten_tensor_state_dict({"m.weight": weight.data})
        folder = tmp_path / "-".join(map(str, grid))
        folder.mkdir()
        file = open_one(folder, tensors, TORCHAO, metadata)
        stored = file.read("m.weight")
        assert isinstance(stored, QuantizedTensor)
        assert torch.equal(stored.dequantize(), weight.dequantize())
        assert (stored.bits, stored.group) == (grid[0], grid[1] or 64)
        assert file.activations == (8 if grid[-1] == "tokens" else None)


# --- variants ---------------------------------------------------------------------------------------------------------


def test_gptq_groups_in_another_order_stay_on_the_grid(tmp_path) -> None:
    """Group-aware reordering permutes whole groups."""
    grid = random_grid(3, 32, 128, 4, 32)
    index = np.repeat([2, 0, 3, 1], 32)
    file = open_one(tmp_path, gptq(grid, "m", index=index), GPTQ | {"desc_act": True})
    stored = file.read("m.weight")
    assert isinstance(stored, QuantizedTensor)
    assert torch.equal(stored.dequantize(), grid.floats(index))


@pytest.mark.parametrize("pack", [gptq, pack_quantized])
def test_scattered_groups_become_exact_floats(tmp_path, pack) -> None:
    grid = random_grid(4, 32, 128, 4, 32)
    index = np.random.default_rng(5).permutation(np.arange(128) // 32)
    if pack is gptq:
        tensors, config = gptq(grid, "m", index=index), GPTQ | {"desc_act": True}
    else:
        tensors, config = pack_quantized(grid, "m"), compressed(symmetric=False, actorder="group")
        tensors["m.weight_g_idx"] = torch.from_numpy(index).int()
    stored = open_one(tmp_path, tensors, config).read("m.weight")
    assert isinstance(stored, torch.Tensor)
    assert torch.equal(stored, grid.floats(index))


def test_gptq_without_an_index_and_with_a_short_last_group(tmp_path) -> None:
    grid = random_grid(6, 32, 96, 4, 48)
    tensors = gptq(grid, "m")
    del tensors["m.g_idx"]
    index = np.arange(96) // 64
    stored = open_one(tmp_path, tensors, GPTQ | {"group_size": 64}).read("m.weight")
    assert isinstance(stored, torch.Tensor)
    assert torch.equal(stored, grid.floats(index))


def test_gptq_bits_of_their_own(tmp_path) -> None:
    """GPTQModel's ``dynamic`` gives single modules other bits than the configuration names."""
    grid = random_grid(7, 32, 64, 8, 32)
    file = open_one(tmp_path, gptq(grid, "m"), GPTQ | {"dynamic": {"+:m": {"bits": 8}}})
    assert_holds(file.read("m.weight"), grid)


@pytest.mark.parametrize("strategy", ["channel", "tensor"])
@pytest.mark.parametrize("layout", ["int-quantized", "pack-quantized"])
def test_compressed_tensors_of_one_scale(tmp_path, strategy, layout) -> None:
    grid = random_grid(8, 32, 64, 8, 64, symmetric=True, kind=torch.bfloat16)
    if strategy == "tensor":
        grid = Grid(grid.fields, grid.zeros, grid.scales[:1].expand(32, 1).contiguous(), 8)
    tensors = (pack_quantized if layout == "pack-quantized" else int_quantized)(grid, "m")
    tensors.pop("m.weight_zero_point", None)
    if strategy == "tensor":
        tensors["m.weight_scale"] = tensors["m.weight_scale"][0].clone()
    config = compressed(layout, INT8_TOKENS, num_bits=8, strategy=strategy, group_size=None)
    file = open_one(tmp_path, tensors, config)
    assert_holds(file.read("m.weight"), grid)
    assert file.activations == 8


def test_older_compressed_tensors_left_bits_of_a_word_empty(tmp_path) -> None:
    grid = random_grid(9, 32, 64, 3, 32)

    def aligned(fields: np.ndarray) -> torch.Tensor:
        padded = np.pad(fields, ((0, 0), (0, -fields.shape[1] % 10))).reshape(len(fields), -1, 10)
        return torch.from_numpy((padded << (3 * np.arange(10))).sum(-1)).int()

    tensors = pack_quantized(grid, "m") | {
        "m.weight_packed": aligned(grid.fields),
        "m.weight_zero_point": aligned(grid.zeros.T).T.contiguous(),
    }
    assert_holds(open_one(tmp_path, tensors, compressed(num_bits=3, symmetric=False)).read("m.weight"), grid)


def test_compressed_tensors_schemes_by_name_pattern_and_class(tmp_path) -> None:
    wide, narrow = random_grid(10, 32, 64, 8, 64, symmetric=True), random_grid(11, 32, 64, 4, 32, symmetric=True)
    config = compressed()
    eight = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    config["config_groups"]["group_1"] = {"targets": ["re:.*down"], "weights": eight}
    tensors = pack_quantized(wide, "a.down") | pack_quantized(narrow, "a.up")
    file = open_one(tmp_path, tensors, config)
    assert_holds(file.read("a.down.weight"), wide)
    assert_holds(file.read("a.up.weight"), narrow)


def test_torchao_int4_with_float_zero_points_becomes_floats(tmp_path) -> None:
    random = torch.Generator().manual_seed(12)
    values = torch.randint(-8, 8, (32, 64), generator=random)
    scales, zeros = (torch.randn(2, 32, generator=random).bfloat16() for _ in range(2))
    tensors = {
        "m._weight_qdata": (values[:, 1::2] << 4 | values[:, ::2] & 15).to(torch.int8),
        "m._weight_scale": scales,
        "m._weight_zero_point": zeros,
    }
    metadata = {"m.weight": torchao_described("Int4Tensor", (1, 32), shape=[32, 64])}
    stored = open_one(tmp_path, tensors, TORCHAO, metadata).read("m.weight")
    wide = [each.double().T.repeat_interleave(32, 1) for each in (scales, zeros)]
    assert torch.equal(stored, (values.double() * wide[0] + wide[1]).float())


# --- whole models -----------------------------------------------------------------------------------------------------

Packer = Callable[[str, int, int, int], tuple[Tensors, str | None]]


def quantize_folder(folder: Path, config: Settings, pack: Packer) -> Path:
    """A tiny Llama whose linear layers are replaced by random matrices of a format."""
    make_checkpoint(folder)
    path = folder / "model.safetensors"
    tensors, metadata = load_file(path), {"format": "pt"}
    for seed, name in enumerate(sorted(name for name in tensors if name.endswith("_proj.weight"))):
        outputs, inputs = tensors.pop(name).shape
        packed, described = pack(name.removesuffix(".weight"), seed, outputs, inputs)
        tensors |= packed
        if described is not None:
            metadata[name] = described
    save_file(tensors, path, metadata)
    whole = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(whole | {"quantization_config": config}))
    return folder


def packer(pack: Callable[..., Tensors], bits: int, group: int, symmetric: bool = False) -> Packer:
    def packed(name: str, seed: int, outputs: int, inputs: int) -> tuple[Tensors, str | None]:
        grid = random_grid(seed, outputs, inputs, bits, group or inputs, symmetric)
        return pack(grid, name), intx_described(grid) if pack is torchao_intx else None

    return packed


def ternary(name: str, seed: int, outputs: int, inputs: int) -> tuple[Tensors, None]:
    return bitnet(np.random.default_rng(seed).integers(-1, 2, (outputs, inputs)), 8.0, name), None


W8A8 = compressed("int-quantized", INT8_TOKENS, num_bits=8, strategy="channel", group_size=None)
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
            (tmp_path / path.name).symlink_to(path)
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
