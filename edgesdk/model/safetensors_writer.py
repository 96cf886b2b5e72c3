"""Writes a safetensors file tensor by tensor, so that memory stays that of the largest.

Source of the format: https://github.com/huggingface/safetensors (a length, a JSON header, the tensors' bytes).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import torch

#: Types by their names in the format, with the bytes of an element.
SIZES = {"U8": 1, "I8": 1, "F16": 2, "BF16": 2, "F32": 4}
_ALIGNMENT = 8


@dataclass(frozen=True)
class Header:
    """The shape of one tensor, and its type (a key of :data:`SIZES`)."""

    kind: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return SIZES[self.kind] * math.prod(self.shape)


class SafetensorsWriter:
    """A file whose tensors are known beforehand and then written in the same order."""

    def __init__(self, file: BinaryIO, headers: Mapping[str, Header]) -> None:
        self._file, self._left = file, list(headers.items())
        described, end = {}, 0
        for name, header in headers.items():
            described[name] = {
                "dtype": header.kind,
                "shape": list(header.shape),
                "data_offsets": [end, end + header.size],
            }
            end += header.size
        text = json.dumps(described, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        file.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """The next tensor, of the type and shape that its header says."""
        import torch

        expected, header = self._left.pop(0)
        if (name, tuple(tensor.shape), kind_of(tensor.dtype)) != (expected, header.shape, header.kind):
            raise ValueError(f"{name} is not the {header} of {expected}")
        self._file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


def kind_of(dtype: torch.dtype) -> str:
    """The format's name of a type."""
    return {
        "uint8": "U8",
        "int8": "I8",
        "float16": "F16",
        "bfloat16": "BF16",
        "float32": "F32",
    }[str(dtype).removeprefix("torch.")]
