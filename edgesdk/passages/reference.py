"""The reference model as a writer of text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ..model.spec import is_linear

if TYPE_CHECKING:
    from ..model import DecoderSpec, Model
    from ..model.reference import ReferenceModel

_TOGETHER = 16  # texts of one batch: their caches are in memory
_RESIDENT_BYTES = 1_200_000_000
_THREAD_WEIGHTS = 1 << 20  # of a matrix: what keeps one thread busy while few rows go through it


def may_stay(model: Model) -> bool:
    """Whether sampling keeps a model's float32 weights in memory; larger ones are read again for every step."""
    return 4 * model.spec.parameters <= _RESIDENT_BYTES


def worthwhile_threads(spec: DecoderSpec) -> int:
    """How many of torch's threads to share products of few rows with a model's matrices: more would spin and wait."""
    largest = max(math.prod(shape) for name, shape in spec.tensors().items() if is_linear(name))
    return min(torch.get_num_threads(), max(1, largest // _THREAD_WEIGHTS))


@contextmanager
def few_threads(spec: DecoderSpec) -> Iterator[None]:
    """Torch with as many threads as products of few rows are worth."""
    before = torch.get_num_threads()
    torch.set_num_threads(worthwhile_threads(spec))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ReferenceWriter:
    """The reference model, a batch of texts at a time; keeps the final hidden states, far smaller than logits."""

    together = _TOGETHER

    def __init__(self, reference: ReferenceModel) -> None:
        self.vocab = reference.spec.vocab
        self._reference = reference
        self._states: list[torch.Tensor] = []
        self._position = 0

    def start(self, texts: int, length: int) -> None:
        self._caches, self._position, self._states = self._reference.caches(texts, length), 0, []

    @torch.inference_mode()
    def run(self, ids: torch.Tensor) -> torch.Tensor:
        with few_threads(self._reference.spec):
            alike = 0 if self._position or self._reference.spec.recurrent else _alike(ids)
            if alike:
                self._run_once(ids[:, :alike])
            if alike < ids.shape[1]:
                (hidden,) = self._reference.hidden([ids[:, alike:]], self._caches, self._position)
                self._states.append(hidden)
                self._position += ids.shape[1] - alike
            return self._reference.logits(self._states[-1][:, -1])

    def _run_once(self, ids: torch.Tensor) -> None:
        """Run what all texts begin with for one of them, and give it to all: what a template writes is long."""
        texts, length = ids.shape
        caches = self._reference.caches(1, length)
        (hidden,) = self._reference.hidden([ids[:1]], caches)
        for cache, alone in zip(self._caches, caches, strict=True):
            cache.update(0, alone.keys, alone.values)
        self._states.append(hidden.expand(texts, -1, -1))
        self._position = length

    def states(self, text: int, first: int, last: int) -> torch.Tensor:
        """Final hidden states of one text after its tokens ``first`` to ``last - 1``, float32 [tokens, hidden]."""
        return torch.cat([piece[text] for piece in self._states])[first:last]


def _alike(ids: torch.Tensor) -> int:
    """How many tokens all rows of ids [texts, tokens] begin with."""
    same = (ids == ids[:1]).all(0)
    return int(same.int().cumprod(0).sum())
