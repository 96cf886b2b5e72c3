"""The embedding as a kernel call over the same bytes that a tied head's subgraph reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgesdk.model.tensors import QuantizedTensor, pack_nibbles
from edgesdk.model.weights import dense

from .packing import pack_filter
from .subgraph import SCALES, VALUES, WEIGHT

if TYPE_CHECKING:
    import torch

    from edgesdk.model.weights import Stored

    from .program import Method, Slot


class Tokens(Protocol):
    """One step of a method, as far as its tokens go.

    Attributes:
        method: where kernels are called.
        tokens: int64 [1, tokens].
        chunk: how many there are at most.
        type: of floats.
    """

    method: Method
    tokens: Slot
    chunk: int
    type: torch.dtype

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype | None = None, *, dynamic: bool = True) -> Slot:
        """A tensor in planned memory."""


def swaps_pairs(table: Stored) -> bool:
    """Whether :func:`embed` gives pairs of entries the wrong way round: its 4-bit kernel reads the high half first."""
    return isinstance(table, QuantizedTensor) and table.bits == 4


def embed(step: Tokens, table: Stored, tied: bool) -> Slot:
    """Rows of the table [vocab, hidden] for the step's tokens: [1, tokens, hidden]."""
    method, out = step.method, step.tensor((1, step.chunk, table.shape[1]))
    if not isinstance(table, QuantizedTensor):
        stored = method.constant("embed" + WEIGHT, dense(table, step.type))
        method.call("aten::embedding.out", [stored, step.tokens, -1, False, False], out)
        return out
    values, scales = _as_stored(table, tied)
    low, high = -(1 << (table.bits - 1)), (1 << (table.bits - 1)) - 1
    kernel = "embedding_byte" if table.bits == 8 else "embedding_4bit"
    arguments = [
        method.constant("embed" + VALUES, values),
        method.constant("embed" + SCALES, scales),
        None,
        low,
        high,
        step.tokens,
        None,
    ]
    # The variant without "dtype" reads scales as if they had the type of the result.
    method.call(f"quantized_decomposed::{kernel}.dtype_out", arguments, out)
    return out


def _as_stored(table: QuantizedTensor, tied: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and scales as a tied head packs them; an untied table may have any group."""
    if tied:
        packed = pack_filter("embed", table)
        return packed.values, packed.scales
    values = pack_nibbles(table.values) if table.bits == 4 else table.values
    return values, table.scales.squeeze(1).float() if table.group == table.shape[1] else table.scales.float()
