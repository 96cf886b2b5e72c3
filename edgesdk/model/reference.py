"""The torch reference model: interprets a spec, defines the numerics.

Calibration, quality and parity are measured against it, and it is what ``torch.export`` sees. Layers are built one at a
time from the weights; a resident model keeps them, a streamed one drops each after use, so that its memory is that of
the largest tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ModelError
from ..session import Recall, refuse_rewind
from .layers import DecoderLayer, LayerCache, Tables, normalize
from .rope import rotary_tables
from .spec import Attention, Layer, Rope
from .weights import dense

if TYPE_CHECKING:
    from . import Model


class ReferenceModel:
    """A model's spec and weights, run in torch.

    Args:
        model: any model, compressed or not; quantized tensors are dequantized exactly.
        dtype: of weights and activations; float32 is the reference, bfloat16 is for sampling text quickly.
        resident: keep every layer in memory (fast) or read each again when it is needed (small).
    """

    def __init__(self, model: Model, *, dtype: torch.dtype = torch.float32, resident: bool = True) -> None:
        self.model, self.spec, self.dtype, self.resident = model, model.spec, dtype, resident
        self._kept: dict[str, DecoderLayer | Tensor] = {}
        self._head: Tensor | None = None
        self._tables = lru_cache(maxsize=None)(self._make_tables)

    def caches(self, batch: int, capacity: int) -> list[LayerCache]:
        """Empty caches, one a layer.

        Raises:
            ModelError: a position of this model sees later ones, so that it takes a text as a whole.
        """
        if not self.spec.causal:
            raise ModelError(
                "this model attends in both directions: it is an embedder, and gives no next token",
                hint="export a model that generates text",
            )
        hidden = self.spec.hidden
        return [LayerCache(batch, layer, hidden, capacity, self.dtype) for layer in self.spec.layers]

    @torch.inference_mode()
    def hidden(
        self, batches: Sequence[Tensor], caches: Sequence[LayerCache] | None = None, start: int = 0
    ) -> list[Tensor]:
        """Final hidden states of id batches [batch, positions], each [batch, positions, embedding_size].

        Layers are the outer loop, so a streamed model reads its weights once however many batches there are. With
        ``caches`` there must be one batch, and its positions begin at ``start``.
        """
        states = self.embed(batches, start)
        for index, layer in enumerate(self.layers()):
            cache = caches[index] if caches is not None else None
            for number, x in enumerate(states):
                states[number] = self._step(layer, x, cache, start)
        return self._final_norm(states)

    @torch.inference_mode()
    def finish(self, states: Sequence[Tensor], after: int) -> list[Tensor]:
        """Final hidden states of states that left layer ``after`` at position 0 on, through the layers that follow."""
        found = list(states)
        for layer in self.layers(after + 1):
            found = self.through(layer, found)
        return self._final_norm(found)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] of final hidden states [..., embedding_size], in float32."""
        if self._head is None:
            self._head = self._matrix(self.spec.head_name)
        bias = self._matrix("head.bias") if self.spec.head_bias else None
        found = F.linear(hidden, self._head, bias).float()
        cap = self.spec.logit_softcap
        return found if cap is None else cap * torch.tanh(found / cap)

    @torch.inference_mode()
    def through(self, layer: DecoderLayer, states: Sequence[Tensor]) -> list[Tensor]:
        """Hidden states from position 0 on, each [batch, positions, hidden], through one layer."""
        return self.differentiable(layer, states)

    def differentiable(self, layer: DecoderLayer, states: Sequence[Tensor]) -> list[Tensor]:
        """As :meth:`through`, with gradients where the caller asks for them."""
        return [self._step(layer, x, None, 0) for x in states]

    def _step(self, layer: DecoderLayer, x: Tensor, cache: LayerCache | None, start: int) -> Tensor:
        """States of positions ``start`` on, through one layer.

        Where layers stand aside, states are the stream, the embedding, and what the last layer gave aside.
        """
        tables = self._positions(layer.layer, start, x.shape[1])
        if not self.spec.asides:
            found: Tensor = layer(x, tables, cache, start)
            return found
        stream, embedded, aside = x.chunk(3, dim=-1)
        if layer.layer.residual == "aside":
            aside = layer(torch.cat((stream, embedded), dim=-1), tables, cache, start)
        else:
            stream, aside = layer(stream, tables, cache, start, aside), torch.zeros_like(aside)
        return torch.cat((stream, embedded, aside), dim=-1)

    def release(self) -> None:
        """Drop every weight that is kept; they are read again when needed."""
        self._kept.clear()
        self._head = None

    def layers(self, first: int = 0) -> Iterator[DecoderLayer]:
        """The layers in order from one on, each built when it is reached."""
        for index in range(first, len(self.spec.layers)):
            key = f"layers.{index}"
            kept = self._kept.get(key)
            layer = kept if isinstance(kept, DecoderLayer) else self.layer(index)
            if self.resident:
                self._kept[key] = layer
            yield layer

    def layer(self, index: int) -> DecoderLayer:
        """One layer, read from the weights."""
        prefix = f"layers.{index}."
        tensors = {
            name.removeprefix(prefix): dense(self.model.weights.get(name), self.dtype)
            for name in self.spec.layer_tensors(index)
        }
        return DecoderLayer(self.spec.layers[index], self.spec.norm, self.spec.norm_eps, tensors)

    def _final_norm(self, states: Sequence[Tensor]) -> list[Tensor]:
        return self.normalized(states, {name: self._vector(name) for name in self._norm_names("final_norm")})

    def normalized(self, states: Sequence[Tensor], norm: Mapping[str, Tensor]) -> list[Tensor]:
        """States behind the final norm, whose tensors are given by canonical name, as the head takes them."""
        weight, bias = norm["final_norm.weight"], norm.get("final_norm.bias")
        hidden = self.spec.hidden
        found = [normalize(x[..., :hidden], weight, bias, self.spec.norm_eps) for x in states]
        return self._projected(found, "head_proj.weight")

    def _projected(self, states: Sequence[Tensor], name: str) -> list[Tensor]:
        """States through a matrix between embedding or head and the stream, where there is one."""
        if self.spec.embedding is None:
            return list(states)
        matrix = self._matrix(name)
        return [F.linear(x, matrix) for x in states]

    def _norm_names(self, norm: str) -> list[str]:
        return [f"{norm}.{kind}" for kind in (("weight", "bias") if self.spec.norm == "layer" else ("weight",))]

    def _vector(self, name: str) -> Tensor:
        return dense(self.model.weights.get(name), self.dtype)

    def _matrix(self, name: str) -> Tensor:
        kept = self._kept.get(name)
        matrix = kept if isinstance(kept, Tensor) else dense(self.model.weights.get(name), self.dtype)
        if self.resident:
            self._kept[name] = matrix
        return matrix

    @torch.inference_mode()
    def embed(self, batches: Sequence[Tensor], start: int = 0) -> list[Tensor]:
        """What the first layer sees of id batches [batch, positions], each [batch, positions, hidden].

        Where layers stand aside it is three times as wide: see :meth:`_step`.
        """
        matrix = self._matrix("embed.weight")
        scale = torch.tensor(self.spec.embedding_scale, dtype=self.dtype)
        found = self._projected([F.embedding(ids, matrix) * scale for ids in batches], "embed_proj.weight")
        if self.spec.learned_positions:
            positions = self._matrix("positions.weight")
            found = [x + positions[start : start + x.shape[1]] for x in found]
        if self.spec.embed_norm:
            weight, *bias = (self._vector(name) for name in self._norm_names("embed_norm"))
            found = [normalize(x, weight, bias[0] if bias else None, self.spec.norm_eps) for x in found]
        return [torch.cat((x, x, torch.zeros_like(x)), dim=-1) for x in found] if self.spec.asides else found

    def _positions(self, layer: Layer, start: int, count: int) -> Tables | None:
        attention = layer.mixer
        if not isinstance(attention, Attention) or attention.rope is None:
            return None
        needed = max(64, 1 << (start + count - 1).bit_length())
        cos, sin = self._tables(attention.rope, attention.head_dim, needed)
        return cos[start : start + count], sin[start : start + count]

    @staticmethod
    def _make_tables(rope: Rope, head_dim: int, positions: int) -> Tables:
        with torch.inference_mode(False):  # what training may keep
            return rotary_tables(rope, head_dim, positions)


class ReferenceSession:
    """The reference model behind the :class:`~edgesdk.session.Session` interface."""

    def __init__(self, model: Model, context: int | None = None) -> None:
        self._reference = ReferenceModel(model)
        self.context = context or model.spec.context
        self.vocab = model.spec.vocab
        self.reset()

    def reset(self) -> None:
        self.position = 0
        self._caches = self._reference.caches(1, 0)
        self._capacity = 0
        self._recall = Recall(self._save, self._restore, self._advance) if self._reference.spec.recurrent else None

    def rewind(self, count: int) -> None:
        refuse_rewind(self, count)
        if self._recall is None:
            self.position -= count
        else:
            self._recall.rewind(self.position - count)

    def _save(self) -> list[dict[str, Tensor]]:
        return [cache.states.copy() for cache in self._caches]

    def _restore(self, position: int, saved: list[dict[str, Tensor]] | None) -> None:
        self.position = position
        for index, cache in enumerate(self._caches):
            cache.states.restore(saved[index] if saved else None)

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        hidden = self._advance(ids)
        return self._reference.logits(hidden[-1]).numpy()

    def decode(self, token: int) -> np.ndarray:
        return self.prefill([token])

    def score(self, ids: Sequence[int]) -> np.ndarray:
        return self._reference.logits(self._advance(ids)).numpy()

    def _advance(self, ids: Sequence[int]) -> Tensor:
        if not ids:
            raise ModelError("no tokens to run")
        if self.position + len(ids) > self.context:
            raise ModelError(f"{self.position + len(ids)} tokens exceed the context of {self.context}")
        self._reserve(self.position + len(ids))
        if self._recall is not None:
            self._recall.note(self.position, ids)
        (hidden,) = self._reference.hidden([torch.tensor([list(ids)])], self._caches, self.position)
        self.position += len(ids)
        return hidden[0]

    def _reserve(self, positions: int) -> None:
        """Grow the caches by doubling."""
        if positions <= self._capacity:
            return
        self._capacity = min(self.context, max(64, 2 * positions))
        grown = self._reference.caches(1, self._capacity)
        for old, new in zip(self._caches, grown, strict=True):
            new.take(old)
        self._caches = grown
