"""The portable grid: packing and scales, by property."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.compress.rtn import round_to_nearest
from edgesdk.compress.spool import Spool
from edgesdk.model.safetensors_file import SafetensorsFolder
from edgesdk.model.tensors import (
    QuantizedTensor,
    pack_bits,
    pack_nibbles,
    packed_columns,
    portable_scales,
    scale_storage,
    unpack_bits,
    unpack_nibbles,
)
from edgesdk_converters.onnx.linear import pack

floats = st.floats(-1e5, 1e5, width=32)


@given(st.lists(st.integers(-8, 7), min_size=2, max_size=64).filter(lambda values: len(values) % 2 == 0))
def test_nibbles_come_back(values: list[int]) -> None:
    tensor = torch.tensor(values, dtype=torch.int8)
    packed = pack_nibbles(tensor)
    assert packed.dtype == torch.uint8
    assert packed.numel() * 2 == tensor.numel()
    assert torch.equal(unpack_nibbles(packed), tensor)


@given(st.sampled_from([2, 3, 4, 8]), st.integers(1, 5), st.integers(1, 70), st.randoms(use_true_random=False))
def test_bits_come_back(bits: int, rows: int, columns: int, random: Random) -> None:
    half = 1 << (bits - 1)
    values = [[random.randrange(-half, half) for _ in range(columns)] for _ in range(rows)]
    tensor = torch.tensor(values, dtype=torch.int8)
    packed = pack_bits(tensor, bits)
    assert packed.shape == (rows, packed_columns(columns, bits))
    assert torch.equal(unpack_bits(packed, bits, columns), tensor)
    number = int.from_bytes(bytes(packed[0].tolist()), "little")  # a row is one number, the first value in its low bits
    assert [(number >> (bits * at)) % (1 << bits) for at in range(columns)] == [
        value % 256 if bits == 8 else value + half for value in values[0]
    ]


@given(st.lists(floats, min_size=1, max_size=50))
def test_portable_scales_are_exact_in_both_half_types(values: list[float]) -> None:
    scales = portable_scales(torch.tensor(values))
    assert torch.equal(scales.to(torch.bfloat16).float(), scales)
    assert torch.equal(scales.to(torch.float16).float(), scales)
    assert torch.equal(scales.sign(), torch.tensor(values).sign())


@given(st.floats(2.0**-13, 60000, width=32), st.booleans())
def test_portable_scales_are_the_nearest_bfloat16(value: float, negative: bool) -> None:
    value = -value if negative else value
    found = float(portable_scales(torch.tensor([value]))[0])
    assert abs(found - value) <= abs(value) * 2**-8


def test_scale_storage_takes_the_smallest_exact_type() -> None:
    assert scale_storage(torch.tensor([0.5, -3.0])) == torch.bfloat16
    assert scale_storage(torch.tensor([1 + 2**-9])) == torch.float16
    assert scale_storage(torch.tensor([1 + 2**-20])) == torch.float32


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [32, 64])
@given(seed=st.integers(0, 1000), spread=st.sampled_from([1e-6, 0.02, 1.0, 300.0]))
def test_rounding_stays_within_the_grid_and_its_error_is_bounded(
    bits: int, group: int, seed: int, spread: float
) -> None:
    weight = spread * torch.randn((6, 128), generator=torch.Generator().manual_seed(seed))
    rounded, error = round_to_nearest(weight, bits, group)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    assert int(rounded.values.min()) >= low
    assert int(rounded.values.max()) <= high
    assert torch.equal(portable_scales(rounded.scales), rounded.scales)
    back = rounded.dequantize()
    assert error == pytest.approx(float((back - weight).square().sum() / weight.square().sum()), rel=1e-3)
    peaks = weight.view(6, -1, group).abs().amax(-1)
    worst = (back - weight).view(6, -1, group).abs().amax(-1)
    step = torch.maximum(peaks / high, torch.tensor(2.0**-14))
    # at worst one step, where the end opposite the peak is clipped, and what bfloat16 adds to the scale on the way
    assert bool((worst <= (1 + (high + 1) * 2.0**-9) * step).all())


def test_rounding_zeros_gives_zeros() -> None:
    rounded, error = round_to_nearest(torch.zeros(3, 32), 4, 32)
    assert error == 0.0
    assert torch.equal(rounded.dequantize(), torch.zeros(3, 32))


def test_rounding_beats_one_fixed_end_of_the_grid() -> None:
    weight = torch.randn((64, 256), generator=torch.Generator().manual_seed(1))
    _, error = round_to_nearest(weight, 4, 32)
    groups = weight.view(-1, 32)
    peak = groups.gather(1, groups.abs().argmax(1, keepdim=True))
    for end in (-8, 7):
        scale = portable_scales(peak / end)
        fixed = ((groups / scale).round().clamp(-8, 7) * scale - groups).square().sum() / groups.square().sum()
        assert error < float(fixed)


@pytest.mark.parametrize("bits", [2, 4, 8])
@given(seed=st.integers(0, 1000))
def test_onnx_packing_puts_the_first_value_in_the_low_bits(bits: int, seed: int) -> None:
    low, high = -(1 << (bits - 1)), 1 << (bits - 1)
    values = torch.randint(low, high, (3, 64), generator=torch.Generator().manual_seed(seed), dtype=torch.int8)
    packed = pack(QuantizedTensor(values, torch.ones(3, 2), bits, 32), 32)
    assert packed.shape == (3, 2, 32 * bits // 8)
    lanes = [(packed.reshape(3, -1).int() >> (bits * lane)) & ((1 << bits) - 1) for lane in range(8 // bits)]
    assert torch.equal(torch.stack(lanes, -1).reshape(3, 64) + low, values.int())


def test_quantized_tensor_refuses_wrong_shapes() -> None:
    values = torch.zeros((2, 64), dtype=torch.int8)
    with pytest.raises(ValueError, match="do not divide"):
        QuantizedTensor(values, torch.ones(2, 2), 4, 48)
    with pytest.raises(ValueError, match="scales are"):
        QuantizedTensor(values, torch.ones(2, 1), 4, 32)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_spool_gives_back_what_was_written(tmp_path, bits: int, asymmetric: bool) -> None:
    class Base:
        def get(self, name: str) -> torch.Tensor:
            return torch.tensor([3.0])

    spool = Spool(tmp_path / "spool", Base())
    written = {}
    for seed in range(3):
        random = torch.Generator().manual_seed(seed)
        half = 1 << (bits - 1)
        values = torch.randint(-half, half, (5, 64), generator=random, dtype=torch.int8)
        zeros = torch.randint(-half, half, (5, 2), generator=random, dtype=torch.int8) if asymmetric else None
        written[f"t{seed}"] = QuantizedTensor(values, torch.randn((5, 2), generator=random), bits, 32, zeros)
        spool.write(f"t{seed}", written[f"t{seed}"])
    for name, tensor in written.items():
        found = spool.get(name)
        assert isinstance(found, QuantizedTensor)
        assert torch.equal(found.values, tensor.values)
        assert torch.equal(found.scales, tensor.scales)
        assert torch.equal(found.dequantize(), tensor.dequantize())
    assert torch.equal(spool.get("other"), torch.tensor([3.0]))


def test_a_part_of_a_tensor_is_read_by_its_number(tmp_path) -> None:
    from safetensors.torch import save_file

    whole = torch.arange(24.0).view(3, 2, 4)
    save_file({"x.weight": whole, "y": torch.tensor(1.0)}, tmp_path / "model.safetensors")
    folder = SafetensorsFolder(tmp_path)
    assert folder.shape("x[2].weight") == (2, 4)
    assert torch.equal(folder.read("x[2].weight"), whole[2])
    assert folder.shape("x[3].weight") is None
    assert folder.shape("y[0]") is None
