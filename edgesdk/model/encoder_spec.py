"""The encoder spec: a bidirectional model's architecture as frozen, typed data.

The counterpart of :mod:`.spec` for models that read a whole text at once. Weight names are canonical and follow from
the spec: see :meth:`EncoderSpec.tensors`. An encoder-decoder's encoder is one too (:mod:`.seq2seq_spec`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .spec import Activation, Mlp, Rope

Tensors = Iterator[tuple[str, tuple[int, ...]]]
Pooling = Literal["mean", "cls"]


@dataclass(frozen=True)
class Normalization:
    """A norm over the last axis.

    ``layer`` (arXiv 1607.06450), ``rms`` (arXiv 1910.07467), or ``affine``: weight and bias alone, MobileBERT's NoNorm.
    """

    kind: Literal["layer", "rms", "affine"]
    eps: float
    bias: bool = True

    def tensors(self, name: str, size: int) -> Tensors:
        """Names and shapes of a norm over ``size`` entries."""
        yield f"{name}.weight", (size,)
        if self.bias:
            yield f"{name}.bias", (size,)


@dataclass(frozen=True)
class RelativePositions:
    """T5's position bias (arXiv 1910.10683): one number for each head and bucket of distances, shared by all layers.

    Half of the ``buckets`` of a direction are single distances, the others grow with the logarithm up to ``farthest``.
    """

    buckets: int
    farthest: int
    bidirectional: bool = True


@dataclass(frozen=True)
class EncoderAttention:
    """Multi-head attention over all positions.

    ``window`` is how far a query sees on either side (None: everything); ``scale`` multiplies q.k.
    """

    heads: int
    head_dim: int
    scale: float
    bias: bool = True
    rope: Rope | None = None
    window: int | None = None

    @property
    def size(self) -> int:
        """Length of all heads together."""
        return self.heads * self.head_dim


@dataclass(frozen=True)
class Bottleneck:
    """A layer that works on a narrow copy of the stream (MobileBERT, arXiv 2004.02984).

    ``keys`` gives queries and keys a narrow copy of their own while values come from the stream itself; without it,
    all three come from the one narrow copy.
    """

    size: int
    keys: bool = True


@dataclass(frozen=True)
class EncoderLayer:
    """One layer.

    Attributes:
        attention: over all positions.
        mlp: the feed-forward block.
        pre_norm: norms come before each block; otherwise after each residual sum.
        attn_norm: there is a norm for the attention (a pre-norm stream may arrive normed).
        feeds: feed-forward blocks in a row.
        bottleneck: what the layer narrows the stream to.
    """

    attention: EncoderAttention
    mlp: Mlp
    pre_norm: bool = False
    attn_norm: bool = True
    feeds: int = 1
    bottleneck: Bottleneck | None = None

    def feed_names(self) -> Iterator[tuple[str, str, str, str]]:
        """Names of gate, up, down and norm of every feed-forward block in order; the last has the plain names."""
        for number in range(1, self.feeds):
            yield f"gate{number}", f"up{number}", f"down{number}", f"mlp{number}_norm"
        yield "gate", "up", "down", "mlp_norm"

    def tensors(self, prefix: str, hidden: int, norm: Normalization) -> Tensors:
        """Names and shapes of the layer's weights; linear weights are [out, in]."""
        narrow = hidden if self.bottleneck is None else self.bottleneck.size
        values = narrow
        if self.bottleneck is not None:
            yield from _linear(prefix + "narrow", narrow, hidden, True)
            yield from norm.tensors(prefix + "narrow_norm", narrow)
            if self.bottleneck.keys:
                values = hidden
                yield from _linear(prefix + "keys", narrow, hidden, True)
                yield from norm.tensors(prefix + "keys_norm", narrow)
        size, bias = self.attention.size, self.attention.bias
        if self.attn_norm:
            yield from norm.tensors(prefix + "attn_norm", narrow)
        for name, inputs in (("q", narrow), ("k", narrow), ("v", values)):
            yield from _linear(prefix + name, size, inputs, bias)
        yield from _linear(prefix + "o", narrow, size, bias)
        for gate, up, down, mlp_norm in self.feed_names():
            for name in (gate, up) if self.mlp.gated else (up,):
                yield from _linear(prefix + name, self.mlp.size, narrow, self.mlp.bias)
            yield from _linear(prefix + down, narrow, self.mlp.size, self.mlp.bias)
            yield from norm.tensors(prefix + mlp_norm, narrow)
        if self.bottleneck is not None:
            yield from _linear(prefix + "wide", hidden, narrow, True)
            yield from norm.tensors(prefix + "wide_norm", hidden)


@dataclass(frozen=True)
class TokenEmbedding:
    """What the first layer sees of a text.

    Attributes:
        size: length of a row of the table.
        positions: rows of the table of learned positions; 0: none.
        first_position: the row of the first token (RoBERTa counts from behind the padding token).
        types: rows of the table of segments; 0: none.
        trigram: each token's row stands between the next one's and the one's before it.
        projected: a matrix brings the rows to the width of the stream.
        normed: the sum is normed.
    """

    size: int
    positions: int = 0
    first_position: int = 0
    types: int = 0
    trigram: bool = False
    projected: bool = False
    normed: bool = True

    def tensors(self, vocab: int, hidden: int, norm: Normalization) -> Tensors:
        """Names and shapes of the tables and of what follows them."""
        yield "embed.weight", (vocab, self.size)
        if self.projected:
            yield from _linear("embed_projection", hidden, self.size * (3 if self.trigram else 1), True)
        if self.positions:
            yield "positions.weight", (self.positions, hidden)
        if self.types:
            yield "types.weight", (self.types, hidden)
        if self.normed:
            yield from norm.tensors("embed_norm", hidden)


@dataclass(frozen=True)
class Embedding:
    """A text becomes one vector: the mean over its tokens, or its first token's state; of length 1 if ``unit``."""

    pooling: Pooling = "mean"
    unit: bool = False
    kind: Literal["embedding"] = "embedding"


@dataclass(frozen=True)
class Classification:
    """A text gets a score for each label.

    Attributes:
        labels: their names.
        pooling: which states are looked at.
        dense: a matrix comes before the classifier, with this activation.
        dense_bias: it has a bias.
        normed: a norm follows it.
        scores: what turns logits into scores (``none`` for a regression).
    """

    labels: tuple[str, ...]
    pooling: Pooling = "cls"
    dense: Activation | Literal["tanh"] | None = "tanh"
    dense_bias: bool = True
    normed: bool = False
    scores: Literal["softmax", "sigmoid", "none"] = "softmax"
    kind: Literal["classification"] = "classification"

    def tensors(self, hidden: int, norm: Normalization) -> Tensors:
        """Names and shapes of the head's weights."""
        if self.dense is not None:
            yield from _linear("dense", hidden, hidden, self.dense_bias)
        if self.normed:
            yield from norm.tensors("dense_norm", hidden)
        yield from _linear("classifier", len(self.labels), hidden, True)


Head = Embedding | Classification


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder-only language model.

    Attributes:
        family: the name of the family that made the spec.
        vocab: rows of the embedding.
        hidden: width of the residual stream.
        context: longest text that the model was trained for, in tokens.
        embedding: what the first layer sees.
        layers: in order.
        norm: every norm.
        head: what becomes of the last layer's states.
        final_norm: a norm follows the last layer.
        relative: T5's position bias.
        prefix: of the layers' names, before their number.
    """

    family: str
    vocab: int
    hidden: int
    context: int
    embedding: TokenEmbedding
    layers: tuple[EncoderLayer, ...]
    norm: Normalization
    head: Head
    final_norm: bool = False
    relative: RelativePositions | None = None
    prefix: str = "layers."

    @property
    def ropes(self) -> list[tuple[Rope, int]]:
        """Every kind of rotary embedding with its head size, each once, in order of use."""
        found = ((layer.attention.rope, layer.attention.head_dim) for layer in self.layers)
        return list(dict.fromkeys((rope, size) for rope, size in found if rope is not None))

    @property
    def windows(self) -> list[int]:
        """Every window that limits what a query sees, each once."""
        return list(
            dict.fromkeys(layer.attention.window for layer in self.layers if layer.attention.window is not None)
        )

    @property
    def size(self) -> int:
        """How many numbers a text becomes."""
        return len(self.head.labels) if isinstance(self.head, Classification) else self.hidden

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Canonical weight names and shapes, in order of use; linear weights are [out, in]."""
        return dict(self._tensors())

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensors().values())

    def _tensors(self) -> Tensors:
        yield from self.embedding.tensors(self.vocab, self.hidden, self.norm)
        if self.relative is not None:
            yield "relative.weight", (self.relative.buckets, self.layers[0].attention.heads)
        for index, layer in enumerate(self.layers):
            yield from layer.tensors(f"{self.prefix}{index}.", self.hidden, self.norm)
        if self.final_norm:
            yield from self.norm.tensors("final_norm", self.hidden)
        if isinstance(self.head, Classification):
            yield from self.head.tensors(self.hidden, self.norm)


def _linear(name: str, outputs: int, inputs: int, bias: bool) -> Tensors:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)
