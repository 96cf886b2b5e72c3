"""Qwen 1: Llama with biases on q, k and v, in its authors' own form (arXiv 2309.16609)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import QKV, Config, Family, Fused, llama_attention, llama_mlp, llama_spec, refuse, rope

_QKV = Fused("attn.c_attn", QKV)


def _spec(config: Config) -> DecoderSpec:
    plain = config.flag("no_bias", True) and config.number("rotary_pct", 1.0) == 1.0
    refuse(config, "Qwen with biases everywhere or rotary positions on a part of each head", unless=plain)
    size = config.integer("kv_channels", 128)
    turning = rope(config, size, config.number("rotary_emb_base", 10000.0))
    layer = Layer(
        llama_attention(config, head_dim=size, qkv_bias=True, rope=turning),
        llama_mlp(config, size=config.integer("intermediate_size") // 2),
    )
    return llama_spec(
        "qwen",
        config,
        (layer,) * config.integer("num_hidden_layers"),
        context=config.integer("seq_length"),  # longer texts scale queries by their logarithm, which is not built
        norm_eps=config.number("layer_norm_epsilon", 1e-6),
    )


FAMILY = Family(
    "qwen",
    ("qwen",),
    _spec,
    {
        "embed.weight": "transformer.wte.weight",
        "final_norm": "transformer.ln_f",
        "head": "lm_head",
        "attn_norm": "ln_1",
        "q": _QKV,
        "k": _QKV,
        "v": _QKV,
        "o": "attn.c_proj",
        "mlp_norm": "ln_2",
        "gate": "mlp.w2",
        "up": "mlp.w1",
        "down": "mlp.c_proj",
    },
    layers="transformer.h.",
    prefix="transformer.",
)
