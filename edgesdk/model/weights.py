"""Weights by canonical name, read one tensor at a time: nothing here holds a whole model in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..errors import ModelError
from .tensors import QuantizedTensor

if TYPE_CHECKING:
    import torch

    Stored: TypeAlias = torch.Tensor | QuantizedTensor


_OTHER = "the configuration belongs to another checkpoint, or a part of this one is missing: download it whole"


class Weights(Protocol):
    """Weights of one model by canonical name."""

    def get(self, name: str) -> Stored:
        """Read one tensor: a float tensor as it is stored, or a :class:`QuantizedTensor`. The caller owns it."""


class TensorFile(Protocol):
    """Named tensors of a checkpoint, memory-mapped only while one is read."""

    where: str

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor, or None when the file has no such tensor."""

    def read(self, name: str) -> Stored:
        """Copy one tensor out of the file."""


@dataclass(frozen=True)
class Heads:
    """How a checkpoint orders the rows of a matrix whose output is heads that rotary positions turn.

    Attributes:
        count: heads in the tensor.
        rotated: dimensions of a head that turn; they come first in the checkpoint.
        interleaved: its pairs are neighbours there, where the canonical order has them half a head apart.
    """

    count: int
    rotated: int
    interleaved: bool

    def order(self, rows: int) -> torch.Tensor:
        """Row i of the canonical tensor is row ``order[i]`` of the checkpoint's: int64 [rows]."""
        import torch

        size = rows // self.count
        turning = torch.arange(self.rotated)
        pairs = turning.view(-1, 2).T if self.interleaved else turning.view(2, -1)
        rest = torch.arange(self.rotated, size).view(2, -1)
        one = torch.cat((pairs, rest), dim=1).reshape(-1)
        return (torch.arange(self.count).unsqueeze(1) * size + one).reshape(-1)


@dataclass(frozen=True)
class Stowed:
    """Where a canonical tensor lies in a checkpoint, and how it differs from what the spec wants.

    Attributes:
        name: the tensor in the file.
        offset: what to add to every element.
        factor: what to multiply every element with, after the offset.
        heads: how its heads are ordered, where that is not the canonical order.
        shape: its shape in the file, where that differs.
        transposed: a matrix is [in, out] there.
        rows: of a tensor that holds several, after transposing: the blocks that its rows are divided into, and the
            first row and the last (excluded) that are taken of each block.
        fill: the file has no such tensor: all its elements are this.
    """

    name: str
    offset: float = 0.0
    factor: float = 1.0
    heads: Heads | None = None
    shape: tuple[int, ...] | None = None
    transposed: bool = False
    rows: tuple[int, int, int] | None = None
    fill: float | None = None


class CheckpointWeights:
    """The weights of a checkpoint under their canonical names; values are checked to be finite when first read."""

    def __init__(self, file: TensorFile, places: Mapping[str, Stowed], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check that every tensor is there with the right shape.

        Raises:
            ModelError: a tensor is missing or has another shape than the configuration says.
        """
        self._file, self._places, self._shapes = file, places, shapes
        self._checked: set[str] = set()
        for name, shape in shapes.items():
            if places[name].fill is not None:
                continue
            stowed, shape = places[name].name, places[name].shape or shape
            found = file.shape(stowed)
            if found is None:
                raise ModelError(f"{file.where}: tensor '{stowed}' is missing", hint=_OTHER)
            if found != shape:
                raise ModelError(
                    f"{file.where}: tensor '{stowed}' is {_by(found)}, but the configuration asks for {_by(shape)}",
                    hint=_OTHER,
                )

    def get(self, name: str) -> Stored:
        import torch

        place = self._places[name]
        if place.fill is not None:
            return torch.full(self._shapes[name], place.fill)
        tensor = self._file.read(place.name)
        if name not in self._checked:
            self._check_finite(place.name, tensor)
            self._checked.add(name)
        if place.transposed:
            if isinstance(tensor, QuantizedTensor):  # its groups run along the other axis
                raise ModelError(f"{self._file.where}: tensor '{place.name}' is quantized and [in, out]")
            tensor = tensor.T
        if place.rows is not None:
            blocks, first, last = place.rows
            tensor = _rows(tensor, torch.arange(tensor.shape[0]).view(blocks, -1)[:, first:last].reshape(-1))
        if place.heads is not None:
            tensor = _rows(tensor, place.heads.order(tensor.shape[0]))
        if place.offset:
            tensor = dense(tensor) + place.offset
        if place.factor != 1:
            tensor = _scaled(tensor, place.factor)
        return tensor if isinstance(tensor, QuantizedTensor) else tensor.reshape(self._shapes[name])

    def _check_finite(self, stowed: str, tensor: Stored) -> None:
        floats = tensor.scales if isinstance(tensor, QuantizedTensor) else tensor
        # A sum is finite unless a term is not (or the sum overflows, which the exact test then settles).
        if not floats.float().sum().isfinite() and not floats.isfinite().all():
            bad = int((~floats.isfinite()).sum())
            raise ModelError(
                f"{self._file.where}: tensor '{stowed}' holds {bad} values that are NaN or infinite",
                hint="the checkpoint is damaged or its training diverged; no compression can mend it",
            )


def _rows(tensor: Stored, index: torch.Tensor) -> Stored:
    return tensor.select_rows(index) if isinstance(tensor, QuantizedTensor) else tensor[index]


def _scaled(tensor: Stored, factor: float) -> Stored:
    return replace(tensor, scales=tensor.scales * factor) if isinstance(tensor, QuantizedTensor) else tensor * factor


def dense(tensor: Stored, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A stored tensor as a plain float tensor (float32 unless ``dtype`` says otherwise)."""
    import torch

    floats = tensor.dequantize() if isinstance(tensor, QuantizedTensor) else tensor
    return floats.to(dtype or torch.float32)


def stack_rows(parts: Sequence[Stored]) -> Stored:
    """Matrices with the same input, one above the other, so that one product serves all; integers stay as they are."""
    import torch

    if len(parts) == 1:
        return parts[0]
    quantized = [part for part in parts if isinstance(part, QuantizedTensor)]
    if len(quantized) != len(parts):
        return torch.cat([dense(part) for part in parts])
    zeros = [part.zero_points for part in quantized if part.zero_points is not None]
    first = quantized[0]
    return QuantizedTensor(
        torch.cat([part.values for part in quantized]),
        torch.cat([part.scales for part in quantized]),
        first.bits,
        first.group,
        torch.cat(zeros) if zeros else None,
    )


def stackable(parts: Sequence[Stored]) -> bool:
    """Whether :func:`stack_rows` can join these without changing a value."""
    kinds = {
        (part.bits, part.group, part.zero_points is None) if isinstance(part, QuantizedTensor) else None
        for part in parts
    }
    return len(kinds) == 1


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in shape)
