"""The torch reference of encoder-decoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..encoder_spec import EncoderAttention
from ..encoders import network as encoding
from ..encoders.reference import TextArithmetic, TorchArithmetic, attended, relative_bias
from ..seq2seq_spec import Seq2SeqSpec
from . import network
from .model import Seq2SeqModel


class _Answer(TorchArithmetic):
    """New tokens of one answer, whose first has the number ``start``."""

    def __init__(
        self,
        base: TorchArithmetic,
        spec: Seq2SeqSpec,
        ids: Tensor,
        start: int,
        caches: list[tuple[Tensor, Tensor]],
        source: list[tuple[Tensor, Tensor]],
    ) -> None:
        self.share(base)
        self._spec, self._ids, self._start, self._caches, self._source = spec, ids, start, caches, source

    def token_rows(self) -> Tensor:
        return F.embedding(self._ids, self.weight("embed.weight"))

    def remember(self, index: int, q: Tensor, k: Tensor, v: Tensor, attention: EncoderAttention) -> Tensor:
        old_keys, old_values = self._caches[index]
        keys, values = torch.cat((old_keys, k), dim=1), torch.cat((old_values, v), dim=1)
        self._caches[index] = keys, values
        places = torch.arange(keys.shape[1])
        bias = relative_bias(self.weight("decoder_relative.weight"), self._spec.relative, places[self._start :], places)
        return attended(q, keys, values, attention, bias)

    def recall(self, index: int, q: Tensor, attention: EncoderAttention) -> Tensor:
        return attended(q, *self._source[index], attention, None)

    def scale(self, x: Tensor, factor: float) -> Tensor:
        return x * factor

    def head(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight(self._spec.head_name))


class Seq2SeqReference:
    """The reference model behind the :class:`~edgesdk.session.Seq2SeqSession` interface."""

    def __init__(self, model: Seq2SeqModel, context: int | None = None) -> None:
        self.spec = model.spec
        self.context, self.vocab, self.start = context or model.spec.context, model.spec.vocab, model.spec.start
        self._base = TorchArithmetic(model.weights, list(model.spec.tensors()))
        self._source: list[tuple[Tensor, Tensor]] = []
        self.reset()

    def reset(self) -> None:
        self.position = 0
        sizes = [layer.attention.size for layer in self.spec.layers]
        self._caches = [(torch.zeros(1, 0, size), torch.zeros(1, 0, size)) for size in sizes]

    @torch.inference_mode()
    def encode(self, ids: Sequence[int]) -> None:
        from ...session import padded, refuse_texts

        refuse_texts([ids], None, self.context, self.vocab)
        texts = TextArithmetic(self.spec.encoder, self._base, *map(torch.from_numpy, padded([ids], None)))
        self._source = network.source(texts, self.spec, encoding.states(texts, self.spec.encoder))
        self.reset()

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        from ...session import refuse_answer

        refuse_answer(self, tokens, bool(self._source))
        ids = torch.tensor([list(tokens)])
        answer = _Answer(self._base, self.spec, ids, self.position, self._caches, self._source)
        found = network.logits(answer, self.spec)[0].numpy()
        self.position += len(tokens)
        return found
