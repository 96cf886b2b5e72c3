"""The image that the C99 runtime reads in place: header, layers, weights (``targets/cortex-m/runtime/lm_image.h``).

All integers and scales of the model's quantized matrices go in unchanged. Sizes and offsets are known before any weight
is read, so the image is written tensor by tensor.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch

from edgesdk.errors import RecipeError
from edgesdk.model.rope import inverse_frequencies
from edgesdk.model.tensors import QuantizedTensor, pack_nibbles, scale_storage
from edgesdk.model.weights import dense

from .layout import HEADER, LAYER, LINEAR, MATRIX, capacity, most_groups, ram, rotations, scratch_floats, widest_input

if TYPE_CHECKING:
    from edgesdk.model import DecoderSpec, Model
    from edgesdk.model.weights import Stored

CHECKED_FROM = 16  # the CRC is of the bytes behind it
MAGIC, VERSION = 0x314D4C45, 1
SINKS = 4  # first tokens that a sliding context keeps (arXiv 2309.17453, section 3.2)
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")
_BFLOAT16, _FLOAT32 = 0, 1
LAYER_NORM, POSITIONS = 1, 2
GATED, QK_NORM, POST_NORMS = 1, 2, 4


@dataclass(frozen=True)
class Matrix:
    """``lm_matrix``: offsets are from the image's first byte; ``bits`` 0 where there is none."""

    rows: int = 0
    columns: int = 0
    bits: int = 0
    group: int = 0
    scale_type: int = _BFLOAT16
    values: int = 0
    scales: int = 0
    bias: int = 0

    def pack(self) -> bytes:
        return MATRIX.pack(*astuple(self))


def write_image(model: Model, context: int, tokenizer: bytes, path: Path) -> int:
    """Write a model's image.

    Args:
        model: every matrix is a :class:`QuantizedTensor` that the kernels hold.
        context: capacity of the caches, in tokens.
        tokenizer: the tokenizer's table, or nothing.
        path: the file.

    Returns: its size in bytes.

    Raises:
        RecipeError: a matrix is in float, or on another grid.
    """
    with path.open("w+b") as file:
        _Writer(model, context, file).write(tokenizer)
        size = file.tell()
        crc = _crc(file, CHECKED_FROM)
        file.seek(CHECKED_FROM - 4)
        file.write(struct.pack("<I", crc))
    return size


@dataclass
class _Writer:
    model: Model
    context: int
    file: BinaryIO
    spec: DecoderSpec = field(init=False)

    def __post_init__(self) -> None:
        self.spec = self.model.spec

    def write(self, tokenizer: bytes) -> None:
        spec = self.spec
        layers_at = HEADER.size + 2 * MATRIX.size
        self.file.seek(layers_at + len(spec.layers) * (LAYER.size + len(LINEAR) * MATRIX.size))
        frequencies_at = self._put(phase_steps(spec).tobytes())
        positions_at = self._floats("positions.weight") if spec.learned_positions else 0
        final_norm_at = self._norm("final_norm")
        embed = self._matrix("embed.weight", "")
        head = embed if spec.tied else self._matrix("head.weight", "")
        layers = [self._layer(index) for index in range(len(spec.layers))]
        tokenizer_at = self._put(tokenizer, 16) if tokenizer else 0
        size = self._put(b"", 16)
        header = HEADER.pack(
            MAGIC,
            VERSION,
            size,
            0,
            spec.vocab,
            spec.hidden,
            self.context,
            len(spec.layers),
            (LAYER_NORM if spec.norm == "layer" else 0) | (POSITIONS if spec.learned_positions else 0),
            ram(spec, self.context).total,
            scratch_floats(spec, self.context),
            widest_input(spec),
            most_groups(spec),
            int(not spec.learned_positions),
            rotations(spec),
            frequencies_at,
            layers_at,
            final_norm_at,
            positions_at,
            tokenizer_at,
            len(tokenizer),
            spec.norm_eps,
            spec.embedding_scale,
            spec.logit_softcap or 0.0,
        )
        self.file.truncate(size)
        self.file.seek(0)
        self.file.write(header + embed.pack() + head.pack() + b"".join(layers))
        self.file.seek(size)

    def _layer(self, index: int) -> bytes:
        layer, prefix = self.spec.layers[index], f"layers.{index}."
        attention, mlp = layer.attention, layer.mlp
        slots = capacity(layer, self.context)
        flags = (mlp.gated * GATED) | (bool(attention.qk_norm) * QK_NORM) | (layer.post_norms * POST_NORMS)
        record = LAYER.pack(
            attention.heads,
            attention.kv_heads,
            attention.head_dim,
            slots,
            SINKS if slots == self.context and slots > 2 * SINKS else 0,
            self._rope(index),
            ACTIVATIONS.index(mlp.activation),
            flags,
            attention.scale,
            attention.softcap or 0.0,
            self._norm(f"{prefix}attn_norm"),
            self._floats(f"{prefix}q_norm.weight") if attention.qk_norm else 0,
            self._floats(f"{prefix}k_norm.weight") if attention.qk_norm else 0,
            self._norm(f"{prefix}post_attn_norm") if layer.post_norms else 0,
            self._norm(f"{prefix}mlp_norm"),
            self._norm(f"{prefix}post_mlp_norm") if layer.post_norms else 0,
        )
        names = self.spec.layer_tensors(index)
        for part in LINEAR:
            weight, bias = f"{prefix}{part}.weight", f"{prefix}{part}.bias"
            matrix = self._matrix(weight, bias if bias in names else "") if weight in names else Matrix()
            record += matrix.pack()
        return record

    def _rope(self, index: int) -> int:
        """Where a layer's turns begin among all of them, plus 1; 0 without a rotary embedding."""
        attention = self.spec.layers[index].attention
        if attention.rope is None:
            return 0
        before = self.spec.ropes[: self.spec.rope_index(attention)]
        return 1 + sum(head_dim // 2 for _, head_dim in before)

    def _matrix(self, name: str, bias: str) -> Matrix:
        stored = self.model.weights.get(name)
        matrix, values, scales = matrix_parts(name, stored)
        return replace(
            matrix,
            values=self._put(values, 16),
            scales=self._put(scales),
            bias=self._floats(bias) if bias else 0,
        )

    def _norm(self, name: str) -> int:
        at = self._floats(f"{name}.weight")
        if self.spec.norm == "layer":
            self._floats(f"{name}.bias")  # right behind its weight
        return at

    def _floats(self, name: str) -> int:
        return self._put(dense(self.model.weights.get(name)).numpy().astype("<f4").tobytes())

    def _put(self, data: bytes, alignment: int = 4) -> int:
        self.file.write(b"\0" * (-self.file.tell() % alignment))
        at = self.file.tell()
        self.file.write(data)
        return at


def matrix_parts(name: str, stored: Stored) -> tuple[Matrix, bytes, bytes]:
    """A matrix's record without its places, its values and its scales, as the kernels read them.

    Raises:
        RecipeError: the kernels do not hold it.
    """
    if not isinstance(stored, QuantizedTensor) or not holds(stored):
        found = stored.scheme if isinstance(stored, QuantizedTensor) else "float"
        raise RecipeError(
            f"{name} is {found}, but the microcontroller runtime holds w8, and w4 with groups of 32, 64, 128 or a row",
            hint="use recipe w8 or w4g32",
        )
    rows, columns = stored.shape
    kind = scale_storage(stored.scales)
    if kind is torch.bfloat16:
        scale_type, scales = _BFLOAT16, stored.scales.to(kind).view(torch.int16).numpy().astype("<i2").tobytes()
    else:
        scale_type, scales = _FLOAT32, stored.scales.numpy().astype("<f4").tobytes()
    values = stored.values if stored.bits == 8 else pack_nibbles(stored.values)
    return Matrix(rows, columns, stored.bits, stored.group, scale_type), values.numpy().tobytes(), scales


def holds(tensor: QuantizedTensor) -> bool:
    """Whether the kernels compute with these integers as they are."""
    if tensor.zero_points is not None:
        return False
    if tensor.bits == 8:
        return tensor.group == tensor.shape[1]
    return tensor.bits == 4 and tensor.group % 2 == 0


def phase_steps(spec: DecoderSpec) -> np.ndarray:
    """Turns a position of every rotary frequency, times 2^32: uint32 [rotations]; phases then wrap by themselves."""
    steps: list[int] = []
    for rope, head_dim in spec.ropes:
        steps += _turns(inverse_frequencies(rope, head_dim, spec.context))
    return np.array(steps, dtype="<u4")


def _turns(frequencies: torch.Tensor) -> Iterator[int]:
    for value in frequencies.double().tolist():
        yield round(value / (2 * math.pi) * 2**32) % 2**32


def _crc(file: BinaryIO, start: int) -> int:
    file.seek(start)
    found = 0
    while block := file.read(1 << 20):
        found = zlib.crc32(block, found)
    return found
