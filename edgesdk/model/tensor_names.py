"""Canonical names and shapes of a decoder's weights, as they follow from its spec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .recurrent_spec import GatedDelta
    from .spec import Attention, DecoderSpec, FeedForward, Layer, Mamba, Mamba2, Mlp, Moe, Norm

    Named = Iterator[tuple[str, tuple[int, ...]]]

#: Matrices of a layer that stay in float: routers, whose choice is not to be rounded, convolutions, and the few rows
#: that say how much a state forgets and takes in.
_FLOAT = ("router", "shared_router", "conv", "decay", "beta")


def is_linear(name: str) -> bool:
    """Whether a canonical name is a matrix that a layer multiplies with (embedding and head are not)."""
    part, _, kind = name.rpartition(".")
    if not name.startswith("layers.") or kind != "weight":
        return False
    return not part.endswith("norm") and part.rsplit(".", 1)[-1] not in _FLOAT


def decoder_tensors(spec: DecoderSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights, in order of use; linear weights are [out, in]."""
    found: dict[str, tuple[int, ...]] = {"embed.weight": (spec.vocab, spec.embedding_size)}
    if spec.embedding is not None:
        found["embed_proj.weight"] = (spec.hidden, spec.embedding)
    if spec.learned_positions:
        found["positions.weight"] = (spec.context, spec.hidden)
    if spec.embed_norm:
        found.update(_norm("embed_norm", spec.hidden, spec.norm))
    for index in range(len(spec.layers)):
        found.update(layer_tensors(spec, index))
    found.update(_norm("final_norm", spec.hidden, spec.norm))
    if spec.embedding is not None:
        found["head_proj.weight"] = (spec.embedding, spec.hidden)
    if not spec.tied:
        found["head.weight"] = (spec.vocab, spec.embedding_size)
    if spec.head_bias:
        found["head.bias"] = (spec.vocab,)
    return found


def layer_tensors(spec: DecoderSpec, index: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of one layer."""
    return dict(_layer(spec.layers[index], spec.hidden, f"layers.{index}.", spec.norm))


def _layer(layer: Layer, hidden: int, prefix: str, norm: Norm) -> Named:
    if layer.pre_norms:
        yield from _norm(prefix + "attn_norm", layer.reads(hidden), norm)
    yield from _mixer(layer, hidden, prefix, norm)
    if layer.ffn is None:
        return
    if layer.post_norms:
        yield from _norm(prefix + "post_attn_norm", hidden, norm)
    if layer.sum_norms:
        yield from _norm(prefix + "attn_sum_norm", hidden, norm)
    if layer.pre_norms and layer.residual != "shared":
        yield from _norm(prefix + "mlp_norm", hidden, norm)
    yield from _feed_forward(layer.ffn, hidden, prefix, norm)
    if layer.post_norms:
        yield from _norm(prefix + "post_mlp_norm", hidden, norm)
    if layer.sum_norms == "both":
        yield from _norm(prefix + "mlp_sum_norm", hidden, norm)
    if layer.residual == "aside":
        yield prefix + "aside.weight", (hidden, hidden)


def _mixer(layer: Layer, hidden: int, prefix: str, norm: Norm) -> Named:
    mixer = layer.mixer
    if mixer.kind == "attention":
        yield from _attention(mixer, hidden, layer.reads(hidden), prefix, norm)
    elif mixer.kind == "short_conv":
        yield from _linear(prefix + "in", 3 * hidden, hidden, mixer.bias)
        yield from _linear(prefix + "conv", hidden, mixer.kernel, mixer.bias)
        yield from _linear(prefix + "out", hidden, hidden, mixer.bias)
    elif mixer.kind == "mamba":
        yield from _mamba(mixer, hidden, prefix)
    elif mixer.kind == "mamba2":
        yield from _mamba2(mixer, hidden, prefix)
    elif mixer.kind == "gated_delta":
        yield from _gated_delta(mixer, hidden, prefix)
    else:
        for part in "kvr":
            yield f"{prefix}shift.{part}", (hidden,)
        yield prefix + "wkv.decay", (mixer.size,)
        yield prefix + "wkv.first", (mixer.size,)
        for part in "kvr":
            yield f"{prefix}{part}.weight", (mixer.size, hidden)
        yield prefix + "o.weight", (hidden, mixer.size)


def _mamba(mixer: Mamba, hidden: int, prefix: str) -> Named:
    yield from _linear(prefix + "in", 2 * mixer.inner, hidden, mixer.bias)
    yield from _linear(prefix + "conv", mixer.inner, mixer.kernel, mixer.conv_bias)
    channels = mixer.inner // mixer.heads
    for head in (f"heads.{index}." for index in range(mixer.heads)) if mixer.heads > 1 else ("",):
        yield f"{prefix}{head}x.weight", (mixer.rank + 2 * mixer.state, channels)
        if mixer.normed:
            for name, size in (("dt", mixer.rank), ("b", mixer.state), ("c", mixer.state)):
                yield f"{prefix}{head}{name}_norm.weight", (size,)
        yield from _linear(f"{prefix}{head}dt", channels, mixer.rank, True)
    yield f"{prefix}ssm.a_log", (mixer.inner, mixer.state)
    yield f"{prefix}ssm.d", (mixer.inner,)
    yield from _linear(prefix + "out", hidden, mixer.inner, mixer.bias)


def _mamba2(mixer: Mamba2, hidden: int, prefix: str) -> Named:
    yield from _linear(prefix + "in", mixer.inner + mixer.conv_size + mixer.heads, hidden, mixer.bias)
    yield from _linear(prefix + "conv", mixer.conv_size, mixer.kernel, mixer.conv_bias)
    for name in ("dt_bias", "a_log", "d"):
        yield f"{prefix}ssm.{name}", (mixer.heads,)
    yield f"{prefix}out_norm.weight", (mixer.inner,)
    yield from _linear(prefix + "out", hidden, mixer.inner, mixer.bias)


def _gated_delta(mixer: GatedDelta, hidden: int, prefix: str) -> Named:
    sizes = {"q": mixer.key_size, "k": mixer.key_size, "v": mixer.inner, "z": mixer.inner}
    for name, size in (sizes | {"decay": mixer.heads, "beta": mixer.heads}).items():
        yield f"{prefix}delta.{name}.weight", (size, hidden)
    yield prefix + "conv.weight", (mixer.conv_size, mixer.kernel)
    yield prefix + "ssm.dt_bias", (mixer.heads,)
    yield prefix + "ssm.a_log", (mixer.heads,)
    yield prefix + "out_norm.weight", (mixer.value_dim,)
    yield prefix + "out.weight", (hidden, mixer.inner)


def _attention(attention: Attention, hidden: int, reads: int, prefix: str, norm: Norm) -> Named:
    sizes = {"q": attention.q_size, "k": attention.kv_size, "v": attention.kv_size}
    for name, size in sizes.items():
        yield from _linear(prefix + name, size, reads, attention.qkv_bias)
        if attention.low_rank is not None:
            yield f"{prefix}{name}_low.weight", (attention.low_rank, reads)
            yield f"{prefix}{name}_high.weight", (size, attention.low_rank)
    if attention.gated:
        yield from _linear(prefix + "q_gate", attention.q_size, reads, attention.qkv_bias)
    if attention.qk_norm == "layer":
        for name, heads in (("q", attention.heads), ("k", attention.kv_heads)):
            for head in range(heads):
                yield from _norm(f"{prefix}heads.{head}.{name}_norm", attention.head_dim, "layer")
    elif attention.qk_norm is not None:
        for name in ("q", "k"):
            yield f"{prefix}{name}_norm.weight", (attention.head_dim if attention.qk_norm == "head" else sizes[name],)
    if attention.sub_norm:
        yield from _norm(prefix + "o_norm", attention.q_size, norm)
    yield from _linear(prefix + "o", hidden, attention.q_size, attention.out_bias)


def _feed_forward(ffn: FeedForward, hidden: int, prefix: str, norm: Norm) -> Named:
    if ffn.kind == "mlp":
        yield from _mlp(ffn, hidden, prefix, norm)
    elif ffn.kind == "moe":
        yield from _moe(ffn, hidden, prefix, norm)
    else:
        for part in "kr":
            yield f"{prefix}ffn_shift.{part}", (hidden,)
        yield from _linear(prefix + "up", ffn.size, hidden, False)
        yield from _linear(prefix + "gate", hidden, hidden, False)
        yield from _linear(prefix + "down", hidden, ffn.size, False)


def _mlp(mlp: Mlp, hidden: int, prefix: str, norm: Norm) -> Named:
    if mlp.low_rank is not None:
        yield prefix + "ffn_low.weight", (mlp.low_rank, hidden)
    for name in ("gate", "up") if mlp.gated else ("up",):
        yield from _linear(prefix + name, mlp.size, hidden, mlp.bias)
        if mlp.low_rank is not None:
            yield f"{prefix}{name}_high.weight", (mlp.size, mlp.low_rank)
    if mlp.sub_norm:
        yield from _norm(prefix + "down_norm", mlp.size, norm)
    yield from _linear(prefix + "down", hidden, mlp.size, mlp.bias)


def _moe(moe: Moe, hidden: int, prefix: str, norm: Norm) -> Named:
    yield prefix + "router.weight", (moe.experts, hidden)
    for expert in range(moe.experts):
        yield from _mlp(moe.expert, hidden, f"{prefix}experts.{expert}.", norm)
    if moe.shared is not None:
        yield from _mlp(moe.shared, hidden, f"{prefix}shared.", norm)
        if moe.shared_gate:
            yield prefix + "shared_router.weight", (1, hidden)


def _linear(name: str, rows: int, columns: int, bias: bool) -> Named:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)


def _norm(name: str, size: int, norm: Norm) -> Named:
    yield f"{name}.weight", (size,)
    if norm == "layer":
        yield f"{name}.bias", (size,)
