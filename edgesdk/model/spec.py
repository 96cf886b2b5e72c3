"""The decoder spec: a model's architecture as frozen, typed data.

Every family maps to it, the reference model interprets it, every converter lowers it. Dimensions are per layer, so
depth and width pruning need no special case. Weight names are canonical and follow from the spec: see
:meth:`DecoderSpec.tensors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Norm = Literal["rms", "layer"]
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


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


RopeScaling = LinearRopeScaling | Llama3RopeScaling


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (arXiv 2104.09864) in the half-split layout.

    ``theta`` is the base; every dimension of a head is rotated.
    """

    theta: float
    scaling: RopeScaling | None = None


@dataclass(frozen=True)
class Attention:
    """Grouped-query attention (arXiv 2305.13245).

    ``window`` is the number of positions a query sees, itself included (None: all). ``scale`` multiplies q.k;
    ``softcap`` is c in ``c * tanh(score / c)``. ``qk_norm`` puts an RMS norm over each head of q and k, before RoPE;
    without ``rope``, positions are learned (:attr:`DecoderSpec.learned_positions`).
    """

    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    rope: Rope | None
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    window: int | None = None
    softcap: float | None = None

    @property
    def q_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Mlp:
    """A feed-forward block; gated means ``down(act(gate(x)) * up(x))`` (arXiv 2002.05202)."""

    size: int
    activation: Activation
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True)
class Layer:
    """One decoder layer; ``post_norms`` adds a norm after attention and after the MLP, before each residual sum."""

    attention: Attention
    mlp: Mlp
    post_norms: bool = False


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
        learned_positions: a vector for each position is added to the embedding.
        embedding_scale: factor on the embedding rows.
        tied: the head is the embedding.
        logit_softcap: c in ``c * tanh(logits / c)``.
    """

    family: str
    vocab: int
    hidden: int
    context: int
    layers: tuple[Layer, ...]
    norm_eps: float
    norm: Norm = "rms"
    learned_positions: bool = False
    embedding_scale: float = 1.0
    tied: bool = False
    logit_softcap: float | None = None

    @property
    def head_name(self) -> str:
        """The canonical name of the tensor that the head multiplies with."""
        return "embed.weight" if self.tied else "head.weight"

    @property
    def ropes(self) -> list[tuple[Rope, int]]:
        """Every kind of rotary embedding with its head size, each once, in order of use."""
        found = ((layer.attention.rope, layer.attention.head_dim) for layer in self.layers)
        return list(dict.fromkeys((rope, size) for rope, size in found if rope is not None))

    def rope_index(self, attention: Attention) -> int:
        """Which of :attr:`ropes` a layer uses; it must use one."""
        if attention.rope is None:
            raise ValueError("this layer has no rotary embedding")
        return self.ropes.index((attention.rope, attention.head_dim))

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Canonical weight names and shapes, in order of use; linear weights are [out, in]."""
        found: dict[str, tuple[int, ...]] = {"embed.weight": (self.vocab, self.hidden)}
        if self.learned_positions:
            found["positions.weight"] = (self.context, self.hidden)
        for index in range(len(self.layers)):
            found.update(self.layer_tensors(index))
        found.update(_norm_tensors("final_norm", self.hidden, self.norm))
        if not self.tied:
            found["head.weight"] = (self.vocab, self.hidden)
        return found

    def layer_tensors(self, index: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the weights of one layer."""
        return dict(_layer_tensors(self.layers[index], self.hidden, f"layers.{index}.", self.norm))

    @property
    def parameters(self) -> int:
        total = 0
        for shape in self.tensors().values():
            size = 1
            for length in shape:
                size *= length
            total += size
        return total


def is_linear(name: str) -> bool:
    """Whether a canonical name is a matrix that a layer multiplies with (embedding and head are not)."""
    return name.startswith("layers.") and name.endswith(".weight") and not name.endswith("norm.weight")


def _norm_tensors(name: str, size: int, norm: Norm) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (size,)
    if norm == "layer":
        yield f"{name}.bias", (size,)


def _layer_tensors(layer: Layer, hidden: int, prefix: str, norm: Norm) -> Iterator[tuple[str, tuple[int, ...]]]:
    attention, mlp = layer.attention, layer.mlp
    yield from _norm_tensors(prefix + "attn_norm", hidden, norm)
    for name, size in (("q", attention.q_size), ("k", attention.kv_size), ("v", attention.kv_size)):
        yield f"{prefix}{name}.weight", (size, hidden)
        if attention.qkv_bias:
            yield f"{prefix}{name}.bias", (size,)
    if attention.qk_norm:
        yield prefix + "q_norm.weight", (attention.head_dim,)
        yield prefix + "k_norm.weight", (attention.head_dim,)
    yield prefix + "o.weight", (hidden, attention.q_size)
    if attention.out_bias:
        yield prefix + "o.bias", (hidden,)
    if layer.post_norms:
        yield from _norm_tensors(prefix + "post_attn_norm", hidden, norm)
    yield from _norm_tensors(prefix + "mlp_norm", hidden, norm)
    for name in ("gate", "up") if mlp.gated else ("up",):
        yield f"{prefix}{name}.weight", (mlp.size, hidden)
        if mlp.bias:
            yield f"{prefix}{name}.bias", (mlp.size,)
    yield prefix + "down.weight", (hidden, mlp.size)
    if mlp.bias:
        yield prefix + "down.bias", (hidden,)
    if layer.post_norms:
        yield from _norm_tensors(prefix + "post_mlp_norm", hidden, norm)
