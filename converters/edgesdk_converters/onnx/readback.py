"""Reads packed weights back out of a written program, to prove that they are the pass's own integers and scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from edgesdk.errors import BundleError
from edgesdk.model.tensors import QuantizedTensor

from .linear import SCALES, VALUES, ZEROS


def read_packed(path: Path) -> dict[str, QuantizedTensor]:
    """Every packed matrix of ``model.onnx`` by its name in the graph (``layers.0.qkv``, ``embed`` ...).

    Raises:
        BundleError: the file cannot be read.
    """
    try:
        graph = ir.load(path).graph
    except Exception as failure:  # onnx-ir and protobuf raise classes of their own
        raise BundleError(f"{path}: cannot be read ({failure})") from None
    stored = {name: value.const_value for name, value in graph.initializers.items()}
    found: dict[str, QuantizedTensor] = {}
    for node in graph:
        if node.op_type != "MatMulNBits":
            continue
        values = node.inputs[1]
        assert values is not None and values.name is not None
        name = values.name.removesuffix(VALUES)
        bits, block, columns = (node.attributes[key].as_int() for key in ("bits", "block_size", "K"))
        found[name] = _unpack(
            _array(stored[name + VALUES]),
            _scales(stored[name + SCALES]),
            _array(stored[name + ZEROS]) if name + ZEROS in stored else None,
            bits,
            block,
            columns,
        )
    return found


def _array(tensor: ir.TensorProtocol | None) -> np.ndarray:
    assert tensor is not None
    return tensor.numpy()


def _scales(tensor: ir.TensorProtocol | None) -> torch.Tensor:
    return torch.from_numpy(_array(tensor).astype(np.float32))


def _unpack(
    packed: np.ndarray, scales: torch.Tensor, zeros: np.ndarray | None, bits: int, block: int, columns: int
) -> QuantizedTensor:
    half = 1 << (bits - 1)
    rows = packed.shape[0]
    values = _lanes(packed.reshape(rows, -1), bits)[:, :columns].astype(np.int16) - half
    group = columns // scales.shape[1]
    points = None
    if zeros is not None:
        points = torch.from_numpy((_lanes(zeros, bits)[:, : scales.shape[1]].astype(np.int16) - half).astype(np.int8))
    return QuantizedTensor(torch.from_numpy(values.astype(np.int8)), scales, bits, group, points)


def _lanes(packed: np.ndarray, bits: int) -> np.ndarray:
    """Unpack the last axis of uint8, the first value in the low bits."""
    lanes = [(packed >> (bits * lane)) & ((1 << bits) - 1) for lane in range(8 // bits)]
    return np.stack(lanes, axis=-1).reshape(*packed.shape[:-1], -1)
