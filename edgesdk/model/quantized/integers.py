"""From the layouts of quantized checkpoints to :class:`~edgesdk.model.tensors.QuantizedTensor`, integer for integer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import ModelError
from ..tensors import QuantizedTensor, unpack_bits
from .folder import DAMAGED, FOREIGN

if TYPE_CHECKING:
    import torch


def unpack(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Unsigned fields, the lowest first (a 3-bit field may straddle two words), moved down by half of their range.

    Args:
        words: int32 or uint8, [rows, n].
        bits: 2, 3, 4 or 8.
        count: fields of a row; what is left of its last word is padding.

    Returns: int8, [rows, count].
    """
    import torch

    octets = words.flatten().view(torch.uint8).view(words.shape[0], -1)
    if bits == 8:
        return (octets ^ 128).view(torch.int8)[:, :count]
    if bits == 3:  # three bytes are a unit
        octets = torch.nn.functional.pad(octets, (0, -octets.shape[1] % 3))
    return unpack_bits(octets, bits, count)


def check_range(where: str, values: torch.Tensor, bits: int) -> None:
    """Refuse int8 values that so many bits cannot hold."""
    half = 1 << bits - 1
    if values.numel() and not -half <= int(values.min()) <= int(values.max()) < half:
        raise ModelError(
            f"{where} holds integers from {int(values.min())} to {int(values.max())}, not {bits} bits",
            hint=FOREIGN,
        )


def on_grid(values: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None, bits: int) -> QuantizedTensor:
    """A matrix on its grid; scales are widened to float32, and zero points that are all zero are dropped.

    Args:
        values: int8, [out, in].
        scales: float, [out, groups].
        zeros: int8 like ``scales``, or None.
        bits: of one value.
    """
    groups = scales.shape[1]
    if zeros is not None and not bool(zeros.any()):
        zeros = None
    return QuantizedTensor(
        values.contiguous(),
        scales.float().contiguous(),
        bits,
        values.shape[1] // groups,
        None if zeros is None else zeros.contiguous(),
    )


def group_order(where: str, index: torch.Tensor, groups: int) -> torch.Tensor | None:
    """Which scale each run of inputs uses, when inputs of one group lie side by side in runs of one length.

    Args:
        where: the tensor, for messages.
        index: the group of each input, [in].
        groups: how many there are.

    Returns: int64 [groups], or None when no contiguous groups hold this index.
    """
    if not index.numel() or int(index.min()) < 0 or int(index.max()) >= groups:
        raise ModelError(f"{where} names groups outside of 0 to {groups - 1}", hint=DAMAGED)
    if index.shape[0] % groups:
        return None
    runs = index.long().view(groups, -1)
    return runs[:, 0] if bool((runs == runs[:, :1]).all()) else None


def off_grid(
    values: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None, index: torch.Tensor
) -> torch.Tensor:
    """The exact float32 matrix [out, in] of groups that lie scattered; arguments as in :func:`on_grid`."""
    floats, index = values.float(), index.long()
    if zeros is not None:
        floats -= zeros.float()[:, index]
    return floats.mul_(scales.float()[:, index])
