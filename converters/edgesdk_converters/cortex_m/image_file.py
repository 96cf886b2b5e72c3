"""Reading an image back: for the Python double, and for the test that its integers are the model's."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgesdk.errors import BundleError

from .arithmetic import F, Floats
from .image import ACTIVATIONS, CHECKED_FROM, GATED, LAYER_NORM, MAGIC, VERSION, Matrix
from .layout import HEADER, LAYER, LINEAR, MATRIX

_DAMAGED = "the bundle is damaged: copy or export it again"
_NORMS = ("attn_norm", "q_norm", "k_norm", "post_attn_norm", "mlp_norm", "post_mlp_norm")
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class LayerRecord:
    """``struct lm_layer``; ``turns`` are the layer's rotary frequencies among all of them."""

    heads: int
    kv_heads: int
    head_dim: int
    capacity: int
    sinks: int
    turns: slice
    activation: str
    scale: np.float32
    softcap: np.float32
    norms: Mapping[str, tuple[int, int]]
    matrices: Mapping[str, Matrix]

    def slot(self, position: int) -> int:
        """Where a position goes in the cache: behind the sinks, a ring overwrites its oldest entry."""
        if position < self.capacity:
            return position
        return self.sinks + (position - self.sinks) % (self.capacity - self.sinks)


class _Embedding:
    """Rows of the embedding, dequantized when asked for."""

    def __init__(self, values: NDArray[np.int8], scales: Floats, factor: np.float32) -> None:
        self._values, self._scales, self._factor = values, scales, factor

    def row(self, token: int) -> Floats:
        groups = self._scales.shape[1]
        scaled: Floats = self._values[token].astype(F).reshape(groups, -1) * self._scales[token][:, None]
        row: Floats = scaled.reshape(-1) * self._factor
        return row


class ImageFile:
    """A whole image, read and checked."""

    def __init__(self, path: Path) -> None:
        """Check magic, version, size and CRC.

        Raises:
            BundleError: what is wrong with it.
        """
        self._data = path.read_bytes()
        if len(self._data) < HEADER.size + 2 * MATRIX.size:
            raise BundleError(f"{path.name}: {len(self._data)} bytes are no image of a model", hint=_DAMAGED)
        fields = HEADER.unpack_from(self._data)
        magic, version, size, crc = fields[:4]
        if magic != MAGIC:
            raise BundleError(f"{path.name}: no image of a model", hint=_DAMAGED)
        if version != VERSION:
            raise BundleError(
                f"{path.name}: image version {version}; this edgesdk reads {VERSION}",
                hint="pip install --upgrade edgesdk",
            )
        if size != len(self._data) or zlib.crc32(self._data[CHECKED_FROM:]) != crc:
            raise BundleError(f"{path.name}: its bytes were changed since it was written", hint=_DAMAGED)
        self.crc = crc
        self.vocab, self.hidden, self.context, count, self._flags = fields[4:9]
        self.ram, self.may_slide = fields[9], bool(fields[13])
        rotations, frequencies, layers, self.final_norm, positions = fields[14:19]
        self._tokenizer, self._tokenizer_size = fields[19:21]
        self.norm_eps, self._embedding_scale, self.logit_softcap = (F(value) for value in fields[21:24])
        self.frequencies = self._view(frequencies, np.uint32, rotations)
        self.positions = (
            self.floats(positions, self.context * self.hidden).reshape(-1, self.hidden) if positions else None
        )
        self._embed = self._record(HEADER.size)
        self.head = self._record(HEADER.size + MATRIX.size)
        stride = LAYER.size + len(LINEAR) * MATRIX.size
        self.layers = [self._layer(layers + index * stride) for index in range(count)]

    @property
    def tokenizer(self) -> bytes:
        """The tokenizer's table."""
        return self._data[self._tokenizer : self._tokenizer + self._tokenizer_size]

    def floats(self, offset: int, count: int) -> Floats:
        """float32 values at an offset."""
        return self._view(offset, F, count)

    def norm(self, offset: int, size: int) -> tuple[Floats, Floats | None]:
        """Weight and bias (None for an RMS norm) of a norm."""
        centred = self._flags & LAYER_NORM and size == self.hidden
        return self.floats(offset, size), self.floats(offset + 4 * size, size) if centred else None

    def matrix(self, record: Matrix) -> tuple[NDArray[np.int8], Floats]:
        """Integers [rows, columns] and scales [rows, groups]."""
        count, groups = record.rows * record.columns, record.columns // record.group
        if record.bits == 8:
            values = self._view(record.values, np.int8, count)
        else:
            packed = self._view(record.values, np.uint8, count // 2)
            values = (np.stack((packed & 15, packed >> 4), axis=1).astype(np.int8) - 8).reshape(-1)
        if record.scale_type:
            scales = self.floats(record.scales, record.rows * groups)
        else:
            halves = self._view(record.scales, np.uint16, record.rows * groups)
            scales = (halves.astype(np.uint32) << 16).view(F)
        return values.reshape(record.rows, record.columns), scales.reshape(record.rows, groups)

    def embedding(self) -> _Embedding:
        return _Embedding(*self.matrix(self._embed), self._embedding_scale)

    def matrices(self) -> dict[str, Matrix]:
        """Every matrix by its canonical name."""
        found = {"embed.weight": self._embed, "head.weight": self.head}
        for index, layer in enumerate(self.layers):
            found |= {f"layers.{index}.{name}.weight": record for name, record in layer.matrices.items() if record.bits}
        return found

    def _layer(self, at: int) -> LayerRecord:
        heads, kv_heads, head_dim, capacity, sinks, rope, activation, flags, scale, softcap, *norms = LAYER.unpack_from(
            self._data, at
        )
        matrices = {name: self._record(at + LAYER.size + index * MATRIX.size) for index, name in enumerate(LINEAR)}
        if not flags & GATED:
            del matrices["gate"]
        sizes = {name: head_dim if name in ("q_norm", "k_norm") else self.hidden for name in _NORMS}
        return LayerRecord(
            heads,
            kv_heads,
            head_dim,
            capacity,
            sinks,
            slice(rope - 1, rope - 1 + head_dim // 2) if rope else slice(0, 0),
            ACTIVATIONS[activation],
            F(scale),
            F(softcap),
            {name: (offset, sizes[name]) for name, offset in zip(_NORMS, norms, strict=True) if offset},
            matrices,
        )

    def _record(self, at: int) -> Matrix:
        return Matrix(*MATRIX.unpack_from(self._data, at))

    def _view(self, offset: int, kind: type[Number], count: int) -> NDArray[Number]:
        return np.frombuffer(self._data, kind, count, offset)
