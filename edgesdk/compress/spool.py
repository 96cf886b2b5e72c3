"""Weights written by a pass: one scratch file, read back a tensor at a time, so memory stays that of one tensor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..model.tensors import QuantizedTensor, pack_nibbles, unpack_nibbles
from ..model.weights import Weights

if TYPE_CHECKING:
    import torch

    from ..model.weights import Stored


class Spool:
    """Quantized tensors on top of other weights; what was not written comes from the base."""

    def __init__(self, path: Path, base: Weights) -> None:
        self._path, self._base = path, base
        self._index: dict[str, tuple[int, QuantizedLayout]] = {}
        self._end = 0

    def write(self, name: str, tensor: QuantizedTensor) -> None:
        """Append one tensor."""
        with self._path.open("ab") as file:
            self._index[name] = (self._end, QuantizedLayout.of(tensor))
            values = pack_nibbles(tensor.values) if tensor.bits == 4 else tensor.values
            for part in (values, tensor.scales, tensor.zero_points):
                if part is not None:
                    _write(file, part)
            self._end = file.tell()

    def get(self, name: str) -> Stored:
        found = self._index.get(name)
        if found is None:
            return self._base.get(name)
        offset, layout = found
        with self._path.open("rb") as file:
            file.seek(offset)
            return layout.read(file)


class QuantizedLayout:
    """The shape of one spooled tensor."""

    def __init__(self, rows: int, columns: int, bits: int, group: int, asymmetric: bool) -> None:
        self.rows, self.columns, self.bits, self.group, self.asymmetric = rows, columns, bits, group, asymmetric

    @classmethod
    def of(cls, tensor: QuantizedTensor) -> QuantizedLayout:
        rows, columns = tensor.shape
        return cls(rows, columns, tensor.bits, tensor.group, tensor.zero_points is not None)

    def read(self, file: BinaryIO) -> QuantizedTensor:
        packed = self.bits == 4
        values = _read(file, np.uint8 if packed else np.int8, (self.rows, self.columns // (2 if packed else 1)))
        groups = (self.rows, self.columns // self.group)
        scales = _read(file, np.float32, groups)
        zeros = _read(file, np.int8, groups) if self.asymmetric else None
        return QuantizedTensor(unpack_nibbles(values) if packed else values, scales, self.bits, self.group, zeros)


def _write(file: BinaryIO, tensor: torch.Tensor) -> None:
    file.write(tensor.contiguous().numpy().data)


def _read(file: BinaryIO, dtype: type[np.generic], shape: tuple[int, int]) -> torch.Tensor:
    import torch

    count = shape[0] * shape[1]
    return torch.from_numpy(np.fromfile(file, dtype=dtype, count=count).reshape(shape))
