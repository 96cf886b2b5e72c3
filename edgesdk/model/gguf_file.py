"""Tensors and metadata of a GGUF file (format: ggml-org/ggml, docs/gguf.md, versions 2 and 3).

The header is parsed here (the ``gguf`` package's reader takes seconds on a large vocabulary); values are dequantized by
the ``gguf`` package. Types that lie on a symmetric grid (Q8_0, Q4_0) come out as :class:`QuantizedTensor`, so that a
converter can carry the file's own integers.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bounds.amounts import METADATA, METADATA_KEYS, METADATA_VALUES, TENSORS
from ..errors import ModelError
from .config import short
from .tensors import QuantizedTensor, unpack_nibbles

if TYPE_CHECKING:
    import torch

    from .weights import Stored

Metadata = dict[str, Any]

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_FLOAT32, _STRING, _ARRAY = 6, 8, 9
_BLOCK = 32
_PAIR_BYTES, _TENSOR_BYTES = 13, 32  # the least that a key and its value, and a tensor's entry, take
_DIMENSIONS = 4  # the most of ggml's tensors


@dataclass(frozen=True)
class _Entry:
    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int


class GgufFile:
    """One GGUF file: ``metadata`` as Python values, tensors by their name in the file."""

    def __init__(self, path: Path) -> None:
        """Parse the header and check that every tensor lies inside the file.

        Raises:
            ModelError: not GGUF, truncated, big-endian, or with a tensor type that cannot be read.
        """
        self.where = str(path)
        self.path = path
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                header = _Header(view, self.where)
                self.metadata: Metadata = header.metadata
                self._entries = header.entries
                self._asked: set[str] = set()
        except (struct.error, ValueError, TypeError, ArithmeticError, LookupError, RecursionError) as failure:
            raise ModelError(
                f"{path}: not a whole GGUF file ({failure})", hint="it may be truncated: download it again"
            ) from None

    def shape(self, name: str) -> tuple[int, ...] | None:
        self._asked.add(name)
        entry = self._entries.get(name)
        return entry.shape if entry else None

    def unread(self) -> list[str]:
        """Tensors that nothing asked for so far, sorted."""
        return sorted(set(self._entries) - self._asked)

    def read(self, name: str) -> Stored:
        import torch

        self._asked.add(name)
        entry = self._entries[name]
        raw = np.fromfile(self.path, dtype=np.uint8, count=entry.size, offset=entry.offset)
        kind = _type_name(entry.kind)
        if kind == "BF16":
            return torch.from_numpy(raw).view(torch.bfloat16).view(entry.shape)
        if kind in _PLAIN:
            return torch.from_numpy(raw.view(_PLAIN[kind])).view(entry.shape)
        if kind in _SYMMETRIC and len(entry.shape) == 2:
            return _SYMMETRIC[kind](torch.from_numpy(raw), entry.shape)
        return torch.from_numpy(self.dequantized(name))

    def dequantized(self, name: str) -> np.ndarray:
        """One tensor as the ``gguf`` package dequantizes it, float32, whatever its type.

        Raises:
            ModelError: it is of a type that the package only names.
        """
        from gguf import GGMLQuantizationType, quants

        self._asked.add(name)
        entry = self._entries[name]
        raw = np.fromfile(self.path, dtype=np.uint8, count=entry.size, offset=entry.offset)
        rows = raw.reshape(*entry.shape[:-1], -1)
        try:
            found = quants.dequantize(rows, GGMLQuantizationType(entry.kind))
        except NotImplementedError:
            raise ModelError(
                f"{self.path}: tensor '{name}' is of type {_type_name(entry.kind)}, which gguf only names",
                hint="give a GGUF file of another quantization, or the original checkpoint",
            ) from None
        return np.asarray(found, dtype=np.float32).reshape(entry.shape)


_PLAIN = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}


def _q8_0(raw: torch.Tensor, shape: tuple[int, ...]) -> QuantizedTensor:
    """Blocks of 32: one float16 scale, then 32 int8."""
    import torch

    blocks, scales = _split_blocks(raw, _BLOCK)
    return QuantizedTensor(blocks.view(torch.int8).view(shape), scales.view(shape[0], -1), bits=8, group=_BLOCK)


def _q4_0(raw: torch.Tensor, shape: tuple[int, ...]) -> QuantizedTensor:
    """Blocks of 32: one float16 scale, then 16 bytes; element i is in the low half of byte i, i + 16 in the high."""
    blocks, scales = _split_blocks(raw, _BLOCK // 2)
    pairs = unpack_nibbles(blocks).view(-1, 16, 2)
    values = pairs.transpose(1, 2).reshape(shape)
    return QuantizedTensor(values, scales.view(shape[0], -1), bits=4, group=_BLOCK)


def _split_blocks(raw: torch.Tensor, block_bytes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Separate the payload of each block from the float16 scale in front of it (returned as float32)."""
    import torch

    blocks = raw.view(-1, 2 + block_bytes)
    return blocks[:, 2:].contiguous(), blocks[:, :2].contiguous().view(torch.float16).float()


_SYMMETRIC: dict[str, Callable[[torch.Tensor, tuple[int, ...]], QuantizedTensor]] = {"Q8_0": _q8_0, "Q4_0": _q4_0}


class _Header:
    """A cursor over the mapped file that reads the header once."""

    def __init__(self, view: mmap.mmap, where: str) -> None:
        self._view, self._at, self._where = view, 0, where
        if view[:4] != b"GGUF":
            raise ModelError(f"{where}: not a GGUF file (it starts with {bytes(view[:4])!r})")
        self._at = 4
        version = self._scalar("<I")
        if version not in (2, 3):
            raise ModelError(f"{where}: GGUF version {version}; versions 2 and 3 (little-endian) can be read")
        tensors, pairs = self._scalar("<Q"), self._scalar("<Q")
        self._refuse_counts(tensors, pairs)
        self._values = 0
        self.metadata: Metadata = {}
        for _ in range(pairs):
            key = self._string()
            self.metadata[key] = self._value(self._scalar("<I"))
        self.entries = self._tensor_infos(tensors)

    def _refuse_counts(self, tensors: int, pairs: int) -> None:
        """Stop at more tensors and keys than the file has room for, or than any file has."""
        room = len(self._view) - self._at
        if tensors > TENSORS or pairs > METADATA_KEYS or tensors * _TENSOR_BYTES + pairs * _PAIR_BYTES > room:
            raise ModelError(
                f"{self._where}: its header promises {tensors} tensors and {pairs} keys in {room} bytes",
                hint="the file is damaged: download it again",
            )

    def _scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._view, self._at)
        self._at += struct.calcsize(form)
        return value

    def _take(self, size: int) -> bytes:
        if self._at + size > min(len(self._view), METADATA):
            raise ValueError(f"the header goes on beyond byte {min(len(self._view), METADATA)}")
        self._at += size
        return self._view[self._at - size : self._at]

    def _string(self) -> str:
        return self._take(self._scalar("<Q")).decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _FLOAT32:  # the shortest decimal that rounds to it: 1e-05 and not 9.999999747378752e-06
            return float(str(np.float32(self._scalar("<f"))))
        if kind != _ARRAY:
            return self._scalar(self._form(kind))
        kind, count = self._scalar("<I"), self._scalar("<Q")
        self._values += count
        if self._values > METADATA_VALUES:
            raise ValueError(f"lists of more than {METADATA_VALUES} values at byte {self._at}")
        if kind in (_STRING, _ARRAY):
            return [self._value(kind) for _ in range(count)]
        form = self._form(kind)
        return np.frombuffer(self._take(count * struct.calcsize(form)), dtype=np.dtype(form)).tolist()

    def _form(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise ValueError(f"unknown value type {kind} at byte {self._at}")
        return _SCALARS[kind]

    def _tensor_infos(self, count: int) -> dict[str, _Entry]:
        found: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(count):
            name, dimensions = self._string(), self._scalar("<I")
            if not 0 < dimensions <= _DIMENSIONS:
                raise ValueError(f"tensor '{name}' has {dimensions} dimensions")
            lengths = [self._scalar("<Q") for _ in range(dimensions)]
            found[name] = (tuple(reversed(lengths)), self._scalar("<I"), self._scalar("<Q"))
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"an alignment of {short(alignment)}")
        start = -(-self._at // alignment) * alignment
        entries: dict[str, _Entry] = {}
        for name, (shape, kind, offset) in found.items():
            size = self._byte_size(name, shape, kind)
            if start + offset + size > len(self._view):
                end = start + offset + size
                raise ModelError(
                    f"{self._where}: tensor '{name}' ends at byte {end}, the file at {len(self._view)}",
                    hint="the file is truncated: download it again",
                )
            entries[name] = _Entry(shape, kind, start + offset, size)
        return entries

    def _byte_size(self, name: str, shape: tuple[int, ...], kind: int) -> int:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (KeyError, ValueError):
            raise ModelError(f"{self._where}: tensor '{name}' has the unknown type {kind}") from None
        elements = 1
        for length in shape:
            elements *= length
        if elements % block or shape[-1] % block:
            raise ModelError(f"{self._where}: tensor '{name}' is no whole number of {block}-element blocks")
        return int(elements // block * size)


def _type_name(kind: int) -> str:
    from gguf import GGMLQuantizationType

    return str(GGMLQuantizationType(kind).name)
