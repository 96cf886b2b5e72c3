"""TFLM's DECODE operator: a constant held as 4-bit indices into a table of values, decoded before its only reader.

Ancillary data are 16 bytes of header and the tables. Header: 0 the type (0 a lookup table, 1 Huffman, 2 pruning), 1 and
4 versions (1), 5 the axis of the channels (15: one table) above the bits of an index, 6 values from one channel's table
to the next. Indices lie packed, the first of a byte in its high bits, whatever the rows. Kernels of August 2026 ignore
the axis and take a channel for each scale of the output: with the step 0 all of them read the same table.
Source: kernels/decode_state_lut.cc and compression/{decode,lut}.py of tflite-micro, August and October 2026.

Our integers have at most 4 bits, so that one table, -8 to 7 in the order of their two's complement, serves them all.
Huffman took little off a w4 file for many more instructions, and nothing off w8 once the operator's own code counts,
so it is not written; pruning needs zeros, which no recipe makes. The lint does not look inside the tables of these two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

OPERATOR = "TFLM_DECODE"
ONE_TABLE = 15
LOOKUP, _HEADER, _BITS = 0, 16, 4
_TYPES = (LOOKUP, 1, 2)


def ancillary() -> np.ndarray:
    """The header and table of every matrix: 32 bytes."""
    header = np.zeros(_HEADER, np.uint8)
    header[[1, 4]] = 1
    header[5] = ONE_TABLE << 4 | _BITS
    return np.concatenate([header, np.array([*range(8), *range(-8, 0)], np.int8).view(np.uint8)])


def packed(values: np.ndarray) -> np.ndarray:
    """Integers of 4 bits as indices, two a byte; the last of an odd number has a zero beside it."""
    indices = values.reshape(-1).view(np.uint8) & 15
    indices = np.append(indices, np.zeros(len(indices) % 2, np.uint8))
    return np.asarray(indices[0::2] << 4 | indices[1::2])


def decoded(indices: np.ndarray, header: np.ndarray, shape: Sequence[int], channels: int) -> np.ndarray:
    """What TFLM makes of a lookup table's constant: int8 of a shape whose first axis has the channels.

    ``channels`` is how many scales the output has. Nothing is checked: :func:`faults` does.
    """
    bits, count = int(header[5]) & 7, math.prod(shape)
    lanes = np.unpackbits(indices)[: count * bits].reshape(count, bits)
    found = lanes @ (1 << np.arange(bits)[::-1])
    first = np.arange(count) // (count // channels) * int(header[6])
    return np.asarray(header[_HEADER:].view(np.int8)[first + found].reshape(shape))


def faults(indices: np.ndarray | None, header: np.ndarray | None, shape: Sequence[int], channels: int) -> Iterator[str]:
    """What is wrong with an input and its ancillary data; TFLM reads past both without a word."""
    if indices is None or header is None:
        yield "an input is no constant"
        return
    if len(header) < _HEADER or header[1] != 1 or header[0] not in _TYPES:
        yield f"the ancillary data do not begin with a header that TFLM knows: {header[:2].tolist()}"
        return
    if header[0] != LOOKUP:
        return
    bits, step = int(header[5]) & 7, int(header[6])
    if header[4] != 1 or not bits:
        yield f"a lookup table of version {header[4]} with indices of {bits} bits"
    elif len(indices) * 8 < math.prod(shape) * bits:
        yield f"{len(indices)} bytes of indices for {math.prod(shape)} values of {bits} bits"
    elif channels > 1 and header[5] >> 4 == ONE_TABLE and step:
        yield f"one table with the step {step}: kernels with a table for each of {channels} scales read past it"
    else:
        lanes = np.unpackbits(indices)[: math.prod(shape) * bits].reshape(-1, bits)
        largest = int((lanes @ (1 << np.arange(bits)[::-1])).max())
        if (channels - 1) * step + largest >= len(header) - _HEADER:
            yield f"index {largest} lies past the {len(header) - _HEADER} bytes of the tables"
