"""Quantized tensors and the portable grid: the integers that a pass decides and every converter carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Smallest normal float16: scales below it (but not zero) would be subnormal there.
FLOAT16_TINY = 2.0**-14
FLOAT16_MAX = 65504.0


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A matrix as integers and scales: ``(values - zero_points) * scales``, one scale a group along the input axis.

    Attributes:
        values: int8, [out, in]; signed, in ``[-2**(bits-1), 2**(bits-1) - 1]``.
        scales: float32, [out, in / group]; negative scales are allowed.
        bits: bits of one value (2, 3, 4 or 8).
        group: input elements that share a scale; the whole row for one scale a channel.
        zero_points: int8 like ``scales`` in shape, or None for a symmetric grid.
    """

    values: torch.Tensor
    scales: torch.Tensor
    bits: int
    group: int
    zero_points: torch.Tensor | None = None

    def __post_init__(self) -> None:
        rows, columns = self.values.shape
        if columns % self.group:
            raise ValueError(f"groups of {self.group} do not divide {columns} inputs")
        if tuple(self.scales.shape) != (rows, columns // self.group):
            raise ValueError(f"scales are {tuple(self.scales.shape)}, not {(rows, columns // self.group)}")
        if self.zero_points is not None and self.zero_points.shape != self.scales.shape:
            raise ValueError(f"zero points are {tuple(self.zero_points.shape)}, not {tuple(self.scales.shape)}")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def scheme(self) -> str:
        """The decodable name: ``w4g32`` is 4-bit in groups of 32, ``w8`` is 8-bit with one scale a channel."""
        group = "" if self.group == self.shape[1] else f"g{self.group}"
        return f"w{self.bits}{group}" + ("" if self.zero_points is None else "-asym")

    def dequantize(self) -> torch.Tensor:
        """The exact float32 matrix, [out, in]."""
        rows, columns = self.shape
        values = self.values.view(rows, -1, self.group).float()
        if self.zero_points is not None:
            values -= self.zero_points.unsqueeze(2)
        return values.mul_(self.scales.unsqueeze(2)).view(rows, columns)

    def select_rows(self, index: torch.Tensor) -> QuantizedTensor:
        """The rows ``index`` in that order, bit for bit."""
        zeros = None if self.zero_points is None else self.zero_points[index]
        return QuantizedTensor(self.values[index], self.scales[index], self.bits, self.group, zeros)


def portable_scales(scales: torch.Tensor) -> torch.Tensor:
    """Round scales to values that bfloat16 and float16 both hold exactly, in float32.

    bfloat16 within float16's normal range has 8 significant bits of the 11 that float16 has. Magnitudes below the
    range go to its lower end, zero stays zero, magnitudes above to the largest bfloat16 inside it.
    """
    import torch

    magnitude = scales.abs().clamp(FLOAT16_TINY, _largest_portable()).to(torch.bfloat16).float()
    magnitude = magnitude.clamp(max=_largest_portable())
    return torch.where(scales == 0, scales, magnitude.copysign(scales))


def scale_storage(scales: torch.Tensor) -> torch.dtype:
    """The smallest float type that holds these scales exactly: bfloat16, float16 or float32."""
    import torch

    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(scales.to(dtype).float(), scales):
            return dtype
    return torch.float32


def pack_nibbles(values: torch.Tensor) -> torch.Tensor:
    """Pack signed 4-bit values [..., 2n] into uint8 [..., n]: value + 8, the first of a pair in the low half."""
    import torch

    shifted = (values + 8).view(torch.uint8)
    return shifted[..., 0::2] | (shifted[..., 1::2] << 4)


def unpack_nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Undo :func:`pack_nibbles`: uint8 [..., n] to int8 [..., 2n]."""
    import torch

    pairs = torch.stack((packed & 15, packed >> 4), dim=-1)
    return pairs.flatten(-2).view(torch.int8) - 8


def packed_columns(columns: int, bits: int) -> int:
    """Bytes of a row of :func:`pack_bits`."""
    values, size = _UNITS[bits]
    return -(-columns // values) * size


def pack_bits(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack signed values [rows, columns] into uint8 [rows, packed_columns], the first of them in the low bits.

    Values are stored plus ``2**(bits - 1)``. Eight 3-bit values share three bytes, as one little-endian number; a row
    that does not fill its last byte is padded.
    """
    import torch

    if bits == 8:
        return values.view(torch.uint8)
    if bits == 4 and values.shape[1] % 2 == 0:
        return pack_nibbles(values)
    count, size = _UNITS[bits]
    shifted = (values + (1 << (bits - 1))).to(torch.int32)
    shifted = torch.nn.functional.pad(shifted, (0, -values.shape[1] % count)).view(len(values), -1, count)
    word = (shifted << (bits * torch.arange(count, dtype=torch.int32))).sum(-1, keepdim=True, dtype=torch.int32)
    found = (word >> (8 * torch.arange(size, dtype=torch.int32))) & 255
    return found.to(torch.uint8).flatten(1)


def unpack_bits(packed: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Undo :func:`pack_bits`: int8 [rows, columns]."""
    import torch

    if bits == 8:
        return packed.view(torch.int8)
    if bits == 4:
        return unpack_nibbles(packed)[:, :columns].contiguous()
    count, size = _UNITS[bits]
    parts = packed.view(len(packed), -1, size).to(torch.int32) << (8 * torch.arange(size, dtype=torch.int32))
    word = parts.sum(-1, keepdim=True, dtype=torch.int32)
    values = (word >> (bits * torch.arange(count, dtype=torch.int32))) & ((1 << bits) - 1)
    return (values.to(torch.int8) - (1 << (bits - 1))).flatten(1)[:, :columns].contiguous()


#: Bits to the values that share a unit, and its bytes.
_UNITS = {2: (4, 1), 3: (8, 3), 4: (2, 1), 8: (1, 1)}
STORED_BITS = frozenset(_UNITS)


def _largest_portable() -> float:
    return 65280.0  # 255 * 2**8: the largest bfloat16 that float16 holds
