"""OLMo 2: norms behind the blocks alone, and over all queries and keys (arXiv 2501.00656)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import LLAMA_TENSORS, Config, Family, llama_attention, llama_mlp, llama_spec, windowed


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    layers = tuple(
        Layer(
            llama_attention(config, qkv_bias=bias, out_bias=bias, qk_norm="all", window=window),
            llama_mlp(config),
            pre_norms=False,
            post_norms=True,
        )
        for window in windowed(config, config.integer("num_hidden_layers"))
    )
    return llama_spec("olmo2", config, layers)


FAMILY = Family(
    "olmo2",
    ("olmo2",),
    _spec,
    {
        **LLAMA_TENSORS,
        "post_attn_norm": "post_attention_layernorm",
        "post_mlp_norm": "post_feedforward_layernorm",
    },
)
