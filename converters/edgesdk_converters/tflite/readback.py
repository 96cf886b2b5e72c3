"""Reads weights back out of a written program, to prove that they are the pass's own integers and scales."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgesdk.model.tensors import QuantizedTensor

from .decode import OPERATOR as DECODE
from .decode import decoded
from .format import Contents, read_file, scales_of
from .linear import SCALES


def read_packed(path: Path) -> dict[str, QuantizedTensor]:
    """Every packed matrix of a program by the name of its weight (``layers.0.q.weight``, ``embed.weight`` ...).

    A tied head is ``head.weight`` where the program has a tensor of its own for it.

    Raises:
        BundleError: the file cannot be read.
    """
    file = read_file(path)
    named = {tensor.name.decode(): tensor for tensor in file.graph.tensors}
    found = {}
    for operator in file.graph.operators:
        if file.code(operator) == DECODE:
            tensor, scales = file.graph.tensors[operator.outputs[0]], _scales(file, named, operator.outputs[0])
            indices, header = (file.data(file.graph.tensors[index]) for index in operator.inputs)
            assert indices is not None and header is not None
            values = decoded(indices, header, tensor.shape, len(scales_of(tensor)))
            found[tensor.name.decode()] = QuantizedTensor(torch.from_numpy(values), scales, 4, int(tensor.shape[1]))
    for index, tensor in enumerate(file.graph.tensors):
        name = tensor.name.decode()
        data = file.data(tensor)
        if data is None or file.kind(tensor) not in ("INT8", "INT4") or not name.endswith(".weight"):
            continue
        rows, columns = map(int, tensor.shape)
        if file.kind(tensor) == "INT4":
            halves = file.data(file.graph.tensors[tensor.quantization.details.scales])
            assert halves is not None
            blocks = torch.from_numpy(halves.view(np.float16).astype(np.float32).reshape(rows, -1))
            found[name] = QuantizedTensor(_lanes(data, rows), blocks, 4, tensor.quantization.details.blockSize)
            continue
        values = data.view(np.int8).reshape(rows, columns).copy()
        found[name] = QuantizedTensor(torch.from_numpy(values), _scales(file, named, index), 8, columns)
    return found


def _scales(file: Contents, named: Mapping[str, Any], index: int) -> torch.Tensor:
    """The scale of each row of a tensor: [rows, 1]."""
    tensor = file.graph.tensors[index]
    rows, scales, apart = int(tensor.shape[0]), scales_of(tensor), tensor.name.decode() + SCALES
    if apart in named:  # the integers are declared with the scale 1
        assert scales.tolist() == [1.0]
        stored = file.data(named[apart])
        assert stored is not None
        scales = stored.view(np.float32)
    return torch.from_numpy(np.broadcast_to(scales.astype(np.float32), rows).copy().reshape(rows, 1))


def _lanes(packed: np.ndarray, rows: int) -> torch.Tensor:
    """Signed 4-bit values, the first of a pair in the low half: int8 [rows, columns]."""
    wide = packed.view(np.int8).reshape(rows, -1, 1)
    return torch.from_numpy(np.concatenate([wide << 4 >> 4, wide >> 4], axis=2).reshape(rows, -1))
