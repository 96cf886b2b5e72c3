"""GPT-NeoX, Pythia, Dolly: parallel residual, rotary positions on a part of each head (arXiv 2204.06745)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import QKV, Config, Family, Fused, llama_attention, llama_mlp, llama_spec, rope

_QKV = Fused("attention.query_key_value", QKV, grouped="kv_heads")


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("attention_bias", True)
    heads = config.integer("num_attention_heads")
    turning = rope(
        config,
        config.integer("hidden_size") // heads,
        config.number("rotary_emb_base", 10000.0),
        config.number("rotary_pct", 0.25),
    )
    layer = Layer(
        llama_attention(config, kv_heads=heads, qkv_bias=bias, out_bias=bias, rope=turning),
        llama_mlp(config, gated=False, bias=True),
        residual="parallel" if config.flag("use_parallel_residual", True) else "serial",
    )
    layers = (layer,) * config.integer("num_hidden_layers")
    return llama_spec("gpt_neox", config, layers, norm="layer", norm_eps=config.number("layer_norm_eps", 1e-5))


FAMILY = Family(
    "gpt_neox",
    ("gpt_neox",),
    _spec,
    {
        "embed.weight": "gpt_neox.embed_in.weight",
        "final_norm": "gpt_neox.final_layer_norm",
        "head": "embed_out",
        "attn_norm": "input_layernorm",
        "q": _QKV,
        "k": _QKV,
        "v": _QKV,
        "o": "attention.dense",
        "mlp_norm": "post_attention_layernorm",
        "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    },
    layers="gpt_neox.layers.",
    prefix="gpt_neox.",
)
