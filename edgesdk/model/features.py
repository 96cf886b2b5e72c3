"""What a spec asks of a runtime beyond Llama's plain decoder; converters and passes say what of it they build."""

from __future__ import annotations

from collections.abc import Iterator

from .spec import Attention, DecoderSpec, FeedForward, Layer, Mamba, Mamba2, Mixer, Mlp, Moe

#: Every feature in the words of error messages and of the support matrix.
FEATURES = {
    "layer_norm": "layer norms",
    "learned_positions": "learned positions",
    "embed_norm": "a norm behind the embedding",
    "embed_proj": "matrices between embedding, head and stream",
    "head_bias": "a bias on the logits",
    "alibi": "ALiBi positions",
    "no_rope": "layers without rotary positions",
    "rope_magnitude": "rotary tables with a magnitude (LongRoPE, YaRN)",
    "qk_norm_all": "norms over all queries and keys",
    "qk_layer_norm": "layer norms on each head of queries and keys",
    "qkv_clip": "clamped queries, keys and values",
    "sub_norm": "norms inside its blocks",
    "softcap": "capped attention scores",
    "post_norm_only": "norms behind its blocks alone",
    "sum_norm": "norms behind its residual sums",
    "parallel": "attention and MLP side by side",
    "relu2": "squared ReLU",
    "moe": "a mixture of experts",
    "sparsemixer": "experts chosen by the sparse mixer",
    "short_conv": "short convolutions",
    "mamba": "Mamba's state spaces",
    "mamba2": "Mamba-2's state spaces",
    "gated_delta": "gated delta networks",
    "rwkv": "RWKV's time mixing",
    "mamba_heads": "Mamba's state spaces in heads",
    "mamba_eps": "Mamba's norms with an epsilon of their own",
    "step_limits": "Mamba-2 with limited step sizes",
    "aside": "transformer blocks beside the stream",
    "attention_gate": "gates on what attention gives",
    "low_rank": "low-rank additions to its matrices",
    "both_ways": "attention in both directions (an embedder: it gives no next token)",
}

#: What a runtime of generators can be asked for.
ALL = frozenset(FEATURES) - {"both_ways"}
#: What every converter builds.
PLAIN = frozenset({"softcap"})
#: Mixers that carry a state from position to position, and what stands beside such mixers alone.
RECURRENT = frozenset(
    {
        *("short_conv", "mamba", "mamba2", "gated_delta", "rwkv"),
        *("mamba_heads", "mamba_eps", "step_limits", "aside", "low_rank", "attention_gate"),
    }
)
#: Layers in which a norm, or values, feed matrices channel by channel.
FOLDED = PLAIN | {
    *("layer_norm", "learned_positions", "embed_norm", "head_bias", "relu2"),
    *("alibi", "no_rope", "rope_magnitude", "qk_norm_all"),
}
#: Layers whose residual stream, and whose values, can be turned.
TURNED = PLAIN | {"layer_norm", "post_norm_only", "no_rope", "rope_magnitude", "qk_norm_all", "relu2", "alibi"}


def features(spec: DecoderSpec) -> frozenset[str]:
    """The names of :data:`FEATURES` that a spec has."""
    found = {"layer_norm": spec.norm == "layer", "learned_positions": spec.learned_positions}
    found |= {"embed_norm": spec.embed_norm, "embed_proj": spec.embedding is not None, "head_bias": spec.head_bias}
    names = {name for name, there in found.items() if there}
    for layer in dict.fromkeys(spec.layers):
        names.update(_of_layer(layer, spec))
    return frozenset(names)


def lacking(spec: DecoderSpec, built: frozenset[str]) -> str | None:
    """What of a spec is not among the features that are ``built``, in words; None: nothing is missing."""
    missing = [words for name, words in FEATURES.items() if name in features(spec) - built]
    return " and ".join(missing) or None


def _of_layer(layer: Layer, spec: DecoderSpec) -> Iterator[str]:
    if isinstance(layer.mixer, Attention):
        yield from _of_attention(layer.mixer, spec)
    else:
        yield from _of_recurrent(layer.mixer)
    yield from _of_feed_forward(layer.ffn)
    if not layer.pre_norms:
        yield "sum_norm" if layer.sum_norms else "post_norm_only"
    if layer.residual != "serial":
        yield "aside" if layer.residual == "aside" else "parallel"


def _of_attention(attention: Attention, spec: DecoderSpec) -> Iterator[str]:
    yield from _of_positions(attention, spec)
    found = {"qk_norm_all": attention.qk_norm == "all", "qk_layer_norm": attention.qk_norm == "layer"}
    found |= {"qkv_clip": attention.clip is not None, "softcap": attention.softcap is not None}
    found |= {"sub_norm": attention.sub_norm, "attention_gate": attention.gated}
    found |= {"low_rank": attention.low_rank is not None, "both_ways": not attention.causal}
    yield from (name for name, there in found.items() if there)


def _of_positions(attention: Attention, spec: DecoderSpec) -> Iterator[str]:
    if attention.alibi is not None:
        yield "alibi"
    elif attention.rope is None and not spec.learned_positions:
        yield "no_rope"
    scaling = attention.rope.scaling if attention.rope else None
    if scaling is not None and scaling.kind == "pairs" and {scaling.magnitude, scaling.long_magnitude} != {1.0}:
        yield "rope_magnitude"


def _of_recurrent(mixer: Mixer) -> Iterator[str]:
    yield mixer.kind
    if isinstance(mixer, Mamba) and mixer.heads > 1:
        yield "mamba_heads"
    if isinstance(mixer, Mamba) and mixer.eps is not None:
        yield "mamba_eps"
    if isinstance(mixer, Mamba2) and mixer.limited:
        yield "step_limits"


def _of_feed_forward(ffn: FeedForward | None) -> Iterator[str]:
    mlps = [ffn] if isinstance(ffn, Mlp) else []
    if isinstance(ffn, Moe):
        mlps = [ffn.expert, *([ffn.shared] if ffn.shared else [])]
    if any(mlp.sub_norm for mlp in mlps):
        yield "sub_norm"
    if any(mlp.activation == "relu2" for mlp in mlps):
        yield "relu2"
    if any(mlp.low_rank is not None for mlp in mlps):
        yield "low_rank"
    if isinstance(ffn, Moe):
        yield "moe"
        if ffn.routing == "sparsemixer":
            yield "sparsemixer"
