"""BLOOM: ALiBi positions, a norm behind the embedding, fused q, k and v (arXiv 2211.05100)."""

from __future__ import annotations

from ..spec import Attention, DecoderSpec, Layer, Mlp
from .base import QKV, Config, Family, Fused, refuse

_QKV = Fused("self_attention.query_key_value", QKV, grouped="kv_heads")
_CONTEXT = 2048  # of the published models; biases by position have no end of their own


def _spec(config: Config) -> DecoderSpec:
    after = config.flag("apply_residual_connection_post_layernorm", False)
    refuse(config, "BLOOM with residuals taken behind the norm", unless=not after)
    hidden, heads = (
        config.integer(config.key("n_embed", "hidden_size")),
        config.integer(config.key("n_head", "num_attention_heads")),
    )
    size = hidden // heads
    attention = Attention(heads, heads, size, size**-0.5, rope=None, qkv_bias=True, out_bias=True, alibi=1.0)
    mlp = Mlp(4 * hidden, "gelu_tanh", gated=False, bias=True)
    return DecoderSpec(
        "bloom",
        config.integer("vocab_size"),
        hidden,
        config.integer("seq_length", _CONTEXT),
        (Layer(attention, mlp),) * config.integer(config.key("n_layer", "num_hidden_layers")),
        config.number("layer_norm_epsilon", 1e-5),
        norm="layer",
        embed_norm=True,
        tied=config.flag("tie_word_embeddings", True),
    )


FAMILY = Family(
    "bloom",
    ("bloom",),
    _spec,
    {
        "embed.weight": "transformer.word_embeddings.weight",
        "embed_norm": "transformer.word_embeddings_layernorm",
        "final_norm": "transformer.ln_f",
        "head": "lm_head",
        "attn_norm": "input_layernorm",
        "q": _QKV,
        "k": _QKV,
        "v": _QKV,
        "o": "self_attention.dense",
        "mlp_norm": "post_attention_layernorm",
        "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    },
    layers="transformer.h.",
    prefix="transformer.",
)
