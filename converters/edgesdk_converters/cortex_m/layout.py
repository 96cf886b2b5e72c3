"""Sizes of the C99 runtime, known before any work: the image in flash, and RAM as ``lm_open`` lays it out."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesdk.model import DecoderSpec
    from edgesdk.model.spec import Layer

MATRIX = struct.Struct("<8I")
LAYER = struct.Struct("<8I2f6I")
HEADER = struct.Struct("<21I3f")
LINEAR = ("q", "k", "v", "o", "gate", "up", "down")
STACK_BYTES = 4096  # that a firmware sets aside
_CACHE_RECORD = 16  # sizeof(lm_cache) where pointers have 32 bits


@dataclass(frozen=True)
class Ram:
    """Bytes of RAM by use, as ``lm_open`` lays it out on a 32-bit core.

    Attributes:
        kv_cache: keys, values and their scales.
        work: the residual stream, vectors, and the largest of attention, MLP and logits.
    """

    kv_cache: int
    work: int

    @property
    def total(self) -> int:
        return self.kv_cache + self.work


def capacity(layer: Layer, context: int) -> int:
    """Positions that a layer's cache holds."""
    return min(layer.attention.window or context, context)


def scratch_floats(spec: DecoderSpec, context: int) -> int:
    """Floats of the largest block: attention, MLP, or the logits."""
    largest = spec.vocab
    for layer in spec.layers:
        attention = layer.attention
        attending = attention.q_size + 2 * attention.kv_size + attention.head_dim + capacity(layer, context)
        largest = max(largest, attending, layer.mlp.size * (2 if layer.mlp.gated else 1))
    return largest


def widest_input(spec: DecoderSpec) -> int:
    """The longest vector that meets a matrix."""
    return max(spec.hidden, *(max(layer.attention.q_size, layer.mlp.size) for layer in spec.layers))


def rotations(spec: DecoderSpec) -> int:
    """Frequencies in all rotary tables."""
    return sum(head_dim // 2 for _, head_dim in spec.ropes)


def ram(spec: DecoderSpec, context: int) -> Ram:
    """What a model needs in RAM; groups of 4-bit weights are taken as 32, the most there can be."""
    cache = len(spec.layers) * _CACHE_RECORD
    for layer in spec.layers:
        slots = capacity(layer, context)
        cache += 2 * _eight(slots * layer.attention.kv_size) + 2 * _eight(2 * slots)
    work = 2 * _eight(4 * spec.hidden) + _eight(16 * rotations(spec)) + _eight(4 * scratch_floats(spec, context))
    widest = widest_input(spec)
    return Ram(_eight(cache), work + _eight(2 * widest) + _eight(4 * most_groups(spec)))


def most_groups(spec: DecoderSpec) -> int:
    """Groups of the longest 4-bit row."""
    return math.ceil(widest_input(spec) / 32)


def image_bytes(spec: DecoderSpec, tensors: Mapping[str, tuple[int, int, int]]) -> int:
    """About the size of an image without its tokenizer, from what :func:`edgesdk.estimate.tensor_bits` gives."""
    total = HEADER.size + 2 * MATRIX.size + len(spec.layers) * (LAYER.size + len(LINEAR) * MATRIX.size)
    for elements, bits, group in tensors.values():
        total += elements * bits // 8 + (elements // group * 2 if group else 0)
    return total


def _eight(count: int) -> int:
    return (count + 7) // 8 * 8
