"""Phi-1, 1.5 and 2: attention and MLP behind one norm, rotary positions on a part of each head (arXiv 2309.05463)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import LLAMA_TENSORS, Config, Family, llama_attention, llama_mlp, llama_spec, refuse, rope


def _spec(config: Config) -> DecoderSpec:
    refuse(config, "Phi with norms on queries and keys", unless=not config.flag("qk_layernorm", False))
    turning = rope(config, config.integer("hidden_size") // config.integer("num_attention_heads"), default_part=0.5)
    layer = Layer(
        llama_attention(config, qkv_bias=True, out_bias=True, rope=turning),
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
        "o": "self_attn.dense",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    },
)
