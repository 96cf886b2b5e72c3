"""Matrices that another tool quantized open to its own integers and scales, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.model.tensors import QuantizedTensor

from .quantized_formats import (
    AWQ,
    BITNET,
    GPTQ,
    INT8_TOKENS,
    TORCHAO,
    Grid,
    assert_holds,
    awq,
    bitnet,
    compressed,
    gptq,
    int_quantized,
    intx_described,
    open_one,
    pack_quantized,
    random_grid,
    torchao_described,
    torchao_intx,
)

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
