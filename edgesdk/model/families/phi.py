"""Phi-1, 1.5 and 2: attention and MLP behind one norm, rotary positions on a part of each head (arXiv 2309.05463)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer, QkNorm
from .base import LLAMA_TENSORS, Config, Family, llama_attention, llama_mlp, llama_spec, rope


def _spec(config: Config) -> DecoderSpec:
    normed: QkNorm | None = "layer" if config.flag("qk_layernorm", False) else None
    turning = rope(config, config.integer("hidden_size") // config.integer("num_attention_heads"), default_part=0.5)
    layer = Layer(
        llama_attention(config, qkv_bias=True, out_bias=True, rope=turning, qk_norm=normed),
        llama_mlp(config, gated=False, bias=True),
        residual="shared",
    )
    return llama_spec(
        "phi",
        config,
        (layer,) * config.integer("num_hidden_layers"),
        norm="layer",
        norm_eps=config.number("layer_norm_eps", 1e-5),
        head_bias=True,
    )


FAMILY = Family(
    "phi",
    ("phi",),
    _spec,
    {
        **LLAMA_TENSORS,
        "final_norm": "model.final_layernorm",
        "heads.*.q_norm": "self_attn.q_layernorm",  # all heads have the same
        "heads.*.k_norm": "self_attn.k_layernorm",
        "o": "self_attn.dense",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    },
)
