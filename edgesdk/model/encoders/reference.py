"""The torch reference of encoders: defines the numerics that quality and parity are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import Weights
from ..encoder_spec import EncoderAttention, EncoderSpec, Normalization, Pooling, RelativePositions
from ..layers import activate, rms_norm, rotate
from ..rope import rotary_tables
from ..spec import Activation
from ..weights import dense
from . import network
from .model import EncoderModel

#: What hidden scores become: far below every real one, and its exponential is zero.
HIDDEN = -1e4


class TorchArithmetic:
    """Arithmetic over float32 tensors [batch, positions, size]; weights stay in memory once read.

    Implements :class:`.network.Arithmetic`; what attention adds to its scores is :attr:`bias` of every kind.
    """

    def __init__(self, weights: Weights, names: Sequence[str]) -> None:
        self._weights, self._names = weights, frozenset(names)
        self._kept: dict[str, Tensor] = {}

    def share(self, base: TorchArithmetic) -> None:
        """Use another's weights, those that it has read too."""
        self._weights, self._names, self._kept = base._weights, base._names, base._kept

    def weight(self, name: str) -> Tensor:
        if name not in self._kept:
            self._kept[name] = dense(self._weights.get(name))
        return self._kept[name]

    def optional(self, name: str) -> Tensor | None:
        return self.weight(name) if name in self._names else None

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weight(f"{name}.weight"), self.optional(f"{name}.bias"))

    def linears(self, x: Tensor, prefix: str, names: Sequence[str]) -> list[Tensor]:
        return [self.linear(x, prefix + name) for name in names]

    def add(self, first: Tensor, second: Tensor) -> Tensor:
        return first + second

    def multiply(self, first: Tensor, second: Tensor) -> Tensor:
        return first * second

    def activate(self, x: Tensor, kind: Activation | Literal["tanh"]) -> Tensor:
        return torch.tanh(x) if kind == "tanh" else activate(x, kind)

    def norm(self, x: Tensor, name: str, norm: Normalization) -> Tensor:
        weight, bias = self.weight(f"{name}.weight"), self.optional(f"{name}.bias")
        if norm.kind == "layer":
            return F.layer_norm(x, weight.shape, weight, bias, norm.eps)
        scaled = rms_norm(x, weight, norm.eps) if norm.kind == "rms" else x * weight
        return scaled if bias is None else scaled + bias

    def norm_of_sum(self, x: Tensor, added: Tensor, name: str, norm: Normalization) -> tuple[Tensor, Tensor]:
        total = x + added
        return self.norm(total, name, norm), total

    def attend(self, q: Tensor, k: Tensor, v: Tensor, attention: EncoderAttention) -> Tensor:
        """Attention over everything; see :func:`attended`."""
        return attended(q, k, v, attention, None)


def attended(q: Tensor, k: Tensor, v: Tensor, attention: EncoderAttention, bias: Tensor | None) -> Tensor:
    """Attention of q [batch, new, size] to k and v [batch, all, size]; ``bias`` is added to the scores."""
    q, k, v = (x.view(*x.shape[:2], attention.heads, attention.head_dim).transpose(1, 2) for x in (q, k, v))
    if attention.rope is not None:
        tables = rotary_tables(attention.rope, attention.head_dim, k.shape[2])
        q, k = rotate(q, *tables), rotate(k, *tables)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=attention.scale)
    return mixed.transpose(1, 2).flatten(-2)


def relative_bias(table: Tensor, relative: RelativePositions, queries: Tensor, keys: Tensor) -> Tensor:
    """T5's bias [1, heads, queries, keys] from its table [buckets, heads], for positions of queries and of keys."""
    distances = keys.unsqueeze(0) - queries.unsqueeze(1)
    farthest = int(distances.abs().max())
    rows = F.embedding(distances + farthest, relative_table(relative, table, farthest))
    return rows.permute(2, 0, 1).unsqueeze(0)


def relative_table(relative: RelativePositions, table: Tensor, farthest: int) -> Tensor:
    """The bias of every distance from ``-farthest`` to ``farthest``, float [2 * farthest + 1, heads].

    Where a query sees only what is before it, later keys are hidden by it.
    """
    distances = torch.arange(-farthest, farthest + 1)
    found = table[relative_buckets(relative, distances)]
    return found if relative.bidirectional else found.masked_fill((distances > 0).unsqueeze(1), HIDDEN)


def relative_buckets(relative: RelativePositions, distances: Tensor) -> Tensor:
    """The bucket of each distance (key minus query), int64; after T5Attention of transformers."""
    count, found = relative.buckets, torch.zeros_like(distances)
    if relative.bidirectional:
        count //= 2
        found += (distances > 0).long() * count
        distances = distances.abs()
    else:
        distances = -distances.clamp(max=0)
    exact = count // 2
    scale = (count - exact) / np.log(relative.farthest / exact)
    far = exact + (torch.log(distances.float().clamp(min=1) / exact) * scale).long()
    return found + torch.where(distances < exact, distances, far.clamp(max=count - 1))


class TextArithmetic(TorchArithmetic):
    """One batch of texts: ids, types and mask, each [batch, positions]."""

    def __init__(self, spec: EncoderSpec, base: TorchArithmetic, ids: Tensor, types: Tensor, mask: Tensor) -> None:
        self.share(base)
        self._spec = spec
        self._ids, self._types, self._mask = ids, types, mask

    def token_rows(self) -> Tensor:
        return F.embedding(self._ids, self.weight("embed.weight"))

    def trigram_rows(self) -> Tensor:
        rows = self.token_rows() * self._mask.unsqueeze(-1)  # padding is nobody's neighbour
        return torch.cat((F.pad(rows[:, 1:], (0, 0, 0, 1)), rows, F.pad(rows[:, :-1], (0, 0, 1, 0))), dim=-1)

    def position_rows(self, first: int) -> Tensor:
        return self.weight("positions.weight")[first : first + self._ids.shape[1]].unsqueeze(0)

    def type_rows(self) -> Tensor:
        return F.embedding(self._types, self.weight("types.weight"))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, attention: EncoderAttention) -> Tensor:
        positions = torch.arange(self._ids.shape[1])
        seen = self._mask.bool()[:, None, None, :]
        if attention.window is not None:
            seen = seen & ((positions.unsqueeze(0) - positions.unsqueeze(1)).abs() <= attention.window)
        bias = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        if self._spec.relative is not None:
            bias = bias + relative_bias(self.weight("relative.weight"), self._spec.relative, positions, positions)
        return attended(q, k, v, attention, bias)

    def pool(self, x: Tensor, pooling: Pooling) -> Tensor:
        if pooling == "cls":
            return x[:, 0]
        mask = self._mask.to(x.dtype).unsqueeze(-1)
        return (x * mask).sum(1) / mask.sum(1)

    def unit(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


class EncoderReference:
    """The reference model behind the :class:`~edgesdk.session.EncoderSession` interface."""

    def __init__(self, model: EncoderModel, context: int | None = None) -> None:
        self.spec = model.spec
        self.context, self.size = context or model.spec.context, model.spec.size
        self._base = TorchArithmetic(model.weights, list(model.spec.tensors()))

    @torch.inference_mode()
    def encode(self, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> np.ndarray:
        texts_ops = self._texts(texts, types)
        spec = self.spec
        found = network.answer(texts_ops, spec.head, spec.norm, network.states(texts_ops, spec))
        return found.numpy()

    @torch.inference_mode()
    def states(self, ids: Sequence[int], types: Sequence[int] | None = None) -> np.ndarray:
        texts_ops = self._texts([ids], None if types is None else [types])
        return network.states(texts_ops, self.spec)[0].numpy()

    def _texts(self, texts: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None) -> TextArithmetic:
        from ...session import padded, refuse_texts

        refuse_texts(texts, types, self.context, self.spec.vocab)
        ids, kinds, mask = (torch.from_numpy(part) for part in padded(texts, types))
        return TextArithmetic(self.spec, self._base, ids, kinds, mask)
