"""How each tool stores one matrix, packed here from the description of its format, and tiny folders made of such."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from edgesdk.model.config import Config
from edgesdk.model.quantized import open_quantized
from edgesdk.model.safetensors_file import SafetensorsFolder
from edgesdk.model.tensors import QuantizedTensor

from ..conftest import make_checkpoint

Tensors = dict[str, torch.Tensor]
Settings = dict[str, Any]
Packer = Callable[[str, int, int, int], tuple[Tensors, str | None]]


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
