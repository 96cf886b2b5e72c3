"""The decoder spec: a model's architecture as frozen, typed data.

Every family maps to it, the reference model interprets it, every converter lowers it. Dimensions are per layer, so
depth and width pruning need no special case. Weight names are canonical and follow from the spec: see
:meth:`DecoderSpec.tensors` and :mod:`~edgesdk.model.tensor_names`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from .recurrent_spec import GatedDelta, Mamba, Mamba2, Recurrent, Rwkv, ShortConv
from .tensor_names import decoder_tensors, is_linear, layer_tensors

Norm = Literal["rms", "layer"]
QkNorm = Literal["head", "all", "layer"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]


@dataclass(frozen=True)
class LinearRopeScaling:
    """Positions divided by ``factor`` (position interpolation, arXiv 2306.15595)."""

    factor: float
    kind: Literal["linear"] = "linear"


@dataclass(frozen=True)
class Llama3RopeScaling:
    """Frequency-dependent interpolation of Llama 3.1 and later (arXiv 2407.21783, section 3.4.2)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int
    kind: Literal["llama3"] = "llama3"


@dataclass(frozen=True)
class PairRopeScaling:
    """A divisor for each pair's frequency, and a factor on cosines and sines.

    Sources: LongRoPE, arXiv 2402.13753; YaRN, arXiv 2309.00071.

    The first list serves tables of up to ``original_context`` positions, ``long_factors`` longer ones: a program has
    one table, so its context decides, where transformers decides anew at every step.
    """

    factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    original_context: int
    magnitude: float = 1.0
    long_magnitude: float = 1.0
    kind: Literal["pairs"] = "pairs"


RopeScaling = LinearRopeScaling | Llama3RopeScaling | PairRopeScaling


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (arXiv 2104.09864) in the half-split layout.

    ``theta`` is the base. Of a head, ``rotated`` dimensions turn (None: all): the first half of them opens the first
    half of the head, the second half of them the second. Checkpoints that keep them elsewhere are reordered when read
    (:class:`~edgesdk.model.weights.Heads`), so that the rest is a pair like any other, whose angle is always 0.
    """

    theta: float
    scaling: RopeScaling | None = None
    rotated: int | None = None


@dataclass(frozen=True)
class Attention:
    """Grouped-query attention (arXiv 2305.13245).

    Attributes:
        heads: query heads.
        kv_heads: heads of keys and values.
        head_dim: size of each.
        scale: factor on q.k.
        rope: rotary positions, or None: positions are learned, biases, or none at all.
        qkv_bias: q, k and v have biases.
        out_bias: o has one.
        qk_norm: a norm on q and k before RoPE: an RMS norm over each ``head``, with one weight for all, or over ``all``
            heads; or a ``layer`` norm over each head, with a weight and a bias of its own.
        clip: q, k and v are clamped to this magnitude behind a norm over all heads (OLMo), or None.
        window: positions that a query sees, itself included (None: all).
        softcap: c in ``c * tanh(score / c)``.
        alibi: factor on ALiBi's biases (arXiv 2108.12409), or None: there are none.
        sub_norm: a norm before o (BitNet).
        gated: what attention gives is multiplied by a sigmoid before o (Qwen 3.5; arXiv 2505.06708).
        low_rank: q, k and v have additions of this rank, each two thin matrices (Zamba2), or None.
        causal: a query sees no later position. Without it a text is taken as a whole (embedders), and a window reaches
            as far ahead as back.
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rope: Rope | None
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: QkNorm | None = None
    clip: float | None = None
    window: int | None = None
    softcap: float | None = None
    alibi: float | None = None
    sub_norm: bool = False
    gated: bool = False
    low_rank: int | None = None
    causal: bool = True
    kind: Literal["attention"] = "attention"

    @property
    def q_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def slopes(self) -> tuple[float, ...]:
        """ALiBi's slope of each head (arXiv 2108.12409): bias a position, before softmax."""
        if self.alibi is None:
            raise ValueError("this layer has no ALiBi")
        whole = 2 ** math.floor(math.log2(self.heads))
        found = [2.0 ** (-8.0 * (index + 1) / whole) for index in range(whole)]
        found += [2.0 ** (-4.0 * (index + 1) / whole) for index in range(0, 2 * (self.heads - whole), 2)]
        return tuple(self.alibi * slope for slope in found)


@dataclass(frozen=True)
class Mlp:
    """A feed-forward block; gated means ``down(act(gate(x)) * up(x))`` (arXiv 2002.05202).

    ``sub_norm`` puts a norm before ``down`` (BitNet). With ``low_rank``, gate and up have additions of this rank, whose
    first thin matrix they share (Zamba2).
    """

    size: int
    activation: Activation
    gated: bool = True
    bias: bool = False
    sub_norm: bool = False
    low_rank: int | None = None
    kind: Literal["mlp"] = "mlp"


@dataclass(frozen=True)
class Moe:
    """A mixture of experts (arXiv 1701.06538): each token goes to ``active`` of ``experts``, and their sum is weighted.

    Attributes:
        experts: how many there are.
        active: how many a token goes to.
        expert: one of them.
        routing: the weights of those chosen: their part of a ``softmax`` over all; a softmax over the ``chosen`` alone;
            or Phi-3.5-MoE's ``sparsemixer`` (arXiv 2409.12136, inference), for two.
        jitter: width of the sparse mixer's comparison.
        shared: an expert that every token goes to, or None.
        shared_gate: the shared expert's output is multiplied by a sigmoid of its own.
    """

    experts: int
    active: int
    expert: Mlp
    routing: Literal["softmax", "chosen", "sparsemixer"]
    jitter: float = 0.0
    shared: Mlp | None = None
    shared_gate: bool = False
    kind: Literal["moe"] = "moe"

    def __post_init__(self) -> None:
        if self.active > self.experts:
            raise ValueError(f"{self.active} of {self.experts} experts for a token")


@dataclass(frozen=True)
class ChannelMix:
    """RWKV-4's feed-forward block: squared ReLU behind a token shift, behind a gate of its own (arXiv 2305.13048)."""

    size: int
    kind: Literal["channel_mix"] = "channel_mix"


Mixer = Attention | Recurrent
FeedForward = Mlp | Moe | ChannelMix


@dataclass(frozen=True)
class Layer:
    """One decoder layer.

    Attributes:
        mixer: what mixes positions.
        ffn: what follows at each position, or None.
        pre_norms: a norm before each of the two.
        post_norms: a norm behind each, before the residual sum.
        sum_norms: a norm behind each residual sum, instead of those before (arXiv 1706.03762): behind ``both``, or
            behind the ``first`` alone, as in a last layer, whose other norm is the model's final one.
        residual: ``serial``: the second reads what the first added; ``parallel``: both read the same stream, behind a
            norm each; ``shared``: behind one norm (``attn_norm``); ``aside``: the stream stays as it is: the first
            reads it and the embedding, the second what the first gives, and a matrix of that is added to what the next
            layer's mixer sees of the stream (Zamba, arXiv 2405.16712).
    """

    mixer: Mixer
    ffn: FeedForward | None
    pre_norms: bool = True
    post_norms: bool = False
    sum_norms: Literal["both", "first"] | None = None
    residual: Literal["serial", "parallel", "shared", "aside"] = "serial"

    def reads(self, hidden: int) -> int:
        """Channels that the mixer sees."""
        return 2 * hidden if self.residual == "aside" else hidden

    @property
    def attention(self) -> Attention:
        """The mixer of a layer that has attention."""
        if not isinstance(self.mixer, Attention):
            raise ValueError(f"this layer has no attention, but {self.mixer.kind}")
        return self.mixer

    @property
    def mlp(self) -> Mlp:
        """The feed-forward block of a layer whose block is dense."""
        if not isinstance(self.ffn, Mlp):
            raise ValueError("this layer has no dense feed-forward block")
        return self.ffn

    def states(self, hidden: int) -> dict[str, tuple[int, ...]]:
        """What the layer carries from one position to the next beside keys and values: names, shapes for one sequence.

        All of it is zero before the first position. Attention's caches are not among it.
        """
        found = {} if isinstance(self.mixer, Attention) else self.mixer.states(hidden)
        if isinstance(self.ffn, ChannelMix):
            found["ffn_shift"] = (1, hidden)
        return found


@dataclass(frozen=True)
class Folded:
    """Factors of the published model that weights already carry here: nothing has to be multiplied by them.

    ``residual`` is in what each block adds (``o``, ``out`` and ``down``), ``logits`` in the final norm.
    """

    residual: float = 1.0
    logits: float = 1.0


@dataclass(frozen=True)
class DecoderSpec:
    """A decoder-only language model.

    Attributes:
        family: the name of the family that made the spec.
        vocab: rows of the embedding.
        hidden: width of the residual stream.
        context: longest context that the model was trained for, in tokens.
        layers: the decoder layers, in order.
        norm_eps: epsilon of every norm.
        norm: ``rms`` (arXiv 1910.07467) or ``layer`` (arXiv 1607.06450, with a bias).
        embedding: length of the rows of embedding and head, or None: ``hidden``. Where it is another, a matrix stands
            between each of them and the stream.
        learned_positions: a vector for each position is added to the embedding.
        embedding_scale: factor on the embedding rows.
        embed_norm: a norm behind the embedding.
        tied: the head is the embedding.
        head_bias: a bias on the logits.
        logit_softcap: c in ``c * tanh(logits / c)``.
        folded: factors that the weights carry.
        repeats: how many layers a block of the checkpoint is (MobileLLM: in a row; Zamba: those aside).
    """

    family: str
    vocab: int
    hidden: int
    context: int
    layers: tuple[Layer, ...]
    norm_eps: float
    norm: Norm = "rms"
    embedding: int | None = None
    learned_positions: bool = False
    embedding_scale: float = 1.0
    embed_norm: bool = False
    tied: bool = False
    head_bias: bool = False
    logit_softcap: float | None = None
    folded: Folded = Folded()
    repeats: int = 1

    @property
    def head_name(self) -> str:
        """The canonical name of the tensor that the head multiplies with."""
        return "embed.weight" if self.tied else "head.weight"

    @property
    def embedding_size(self) -> int:
        """Length of the rows of embedding and head."""
        return self.embedding or self.hidden

    @property
    def recurrent(self) -> bool:
        """Whether a layer carries states that cannot be cut back to an earlier position."""
        return any(layer.states(self.hidden) for layer in self.layers)

    @property
    def causal(self) -> bool:
        """Whether no position sees a later one: what has layers that do is no generator."""
        return all(not isinstance(layer.mixer, Attention) or layer.mixer.causal for layer in self.layers)

    @property
    def asides(self) -> bool:
        """Whether layers stand aside of the stream: see :class:`Layer`."""
        return any(layer.residual == "aside" for layer in self.layers)

    @property
    def ropes(self) -> list[tuple[Rope, int]]:
        """Every kind of rotary embedding with its head size, each once, in order of use."""
        attentions = (layer.mixer for layer in self.layers if isinstance(layer.mixer, Attention))
        found = ((attention.rope, attention.head_dim) for attention in attentions)
        return list(dict.fromkeys((rope, size) for rope, size in found if rope is not None))

    def rope_index(self, attention: Attention) -> int:
        """Which of :attr:`ropes` a layer uses; it must use one."""
        if attention.rope is None:
            raise ValueError("this layer has no rotary embedding")
        return self.ropes.index((attention.rope, attention.head_dim))

    def for_context(self, context: int) -> DecoderSpec:
        """The same model where programs of this context have one rotary table: see :class:`PairRopeScaling`."""
        return replace(
            self, layers=tuple(replace(layer, mixer=_settled(layer.mixer, context)) for layer in self.layers)
        )

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Canonical weight names and shapes, in order of use; linear weights are [out, in]."""
        return decoder_tensors(self)

    def layer_tensors(self, index: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights of one layer."""
        return layer_tensors(self, index)

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensors().values())


def _settled(mixer: Mixer, context: int) -> Mixer:
    if not isinstance(mixer, Attention) or mixer.rope is None or not isinstance(mixer.rope.scaling, PairRopeScaling):
        return mixer
    found = mixer.rope.scaling
    longer = context > found.original_context
    factors, magnitude = (found.long_factors, found.long_magnitude) if longer else (found.factors, found.magnitude)
    scaling = replace(found, factors=factors, long_factors=factors, magnitude=magnitude, long_magnitude=magnitude)
    return replace(mixer, rope=replace(mixer.rope, scaling=scaling))


__all__ = [
    "Activation",
    "Attention",
    "ChannelMix",
    "DecoderSpec",
    "FeedForward",
    "Folded",
    "GatedDelta",
    "Layer",
    "LinearRopeScaling",
    "Llama3RopeScaling",
    "Mamba",
    "Mamba2",
    "Mixer",
    "Mlp",
    "Moe",
    "Norm",
    "PairRopeScaling",
    "QkNorm",
    "Rope",
    "RopeScaling",
    "Rwkv",
    "ShortConv",
    "is_linear",
]
