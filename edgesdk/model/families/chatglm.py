"""ChatGLM 2 and 3, GLM-4 in its authors' own form: the architecture of GLM under other names (arXiv 2406.12793)."""

from __future__ import annotations

from ..spec import Attention, DecoderSpec, Layer, Mlp, Rope
from .base import QKV, Config, Family, Fused, refuse

_QKV = Fused("self_attention.query_key_value", QKV)
_GATED = Fused("mlp.dense_h_to_4h", ("gate", "up"))
_THETA = 10000.0


def _spec(config: Config) -> DecoderSpec:
    plain = config.flag("rmsnorm", True) and not config.flag("add_bias_linear", False)
    plain &= not config.flag("apply_residual_connection_post_layernorm", False)
    refuse(config, "ChatGLM with layer norms, biases everywhere or residuals behind the norm", unless=plain)
    heads, size = config.integer("num_attention_heads"), config.integer("kv_channels")
    kv_heads = config.integer("multi_query_group_num") if config.flag("multi_query_attention", False) else heads
    attention = Attention(
        heads,
        kv_heads,
        size,
        size**-0.5,
        Rope(_THETA * config.number("rope_ratio", 1.0), rotated=size // 2),
        qkv_bias=config.flag("add_qkv_bias", False),
    )
    return DecoderSpec(
        "chatglm",
        config.integer("padded_vocab_size"),
        config.integer("hidden_size"),
        config.integer("seq_length"),
        (Layer(attention, Mlp(config.integer("ffn_hidden_size"), "silu")),) * config.integer("num_layers"),
        config.number("layernorm_epsilon", 1e-5),
        tied=config.flag("tie_word_embeddings", False),
    )


FAMILY = Family(
    "chatglm",
    ("chatglm",),
    _spec,
    {
        "embed.weight": "transformer.embedding.word_embeddings.weight",
        "final_norm": "transformer.encoder.final_layernorm",
        "head": "transformer.output_layer",
        "attn_norm": "input_layernorm",
        "q": _QKV,
        "k": _QKV,
        "v": _QKV,
        "o": "self_attention.dense",
        "mlp_norm": "post_attention_layernorm",
        "gate": _GATED,
        "up": _GATED,
        "down": "mlp.dense_4h_to_h",
    },
    layers="transformer.encoder.layers.",
    interleaved=True,
)
