"""Granite 3, dense: Llama with four multipliers (Granite team, 2024)."""

from __future__ import annotations

from ..spec import DecoderSpec, Folded, Layer
from .base import Config, Family, llama_attention, llama_mlp, llama_spec


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    layer = Layer(
        llama_attention(config, scale=config.number("attention_multiplier"), qkv_bias=bias, out_bias=bias),
        llama_mlp(config, bias=config.flag("mlp_bias", False)),
    )
    return llama_spec(
        "granite",
        config,
        (layer,) * config.integer("num_hidden_layers"),
        embedding_scale=config.number("embedding_multiplier", 1.0),
        folded=Folded(config.number("residual_multiplier", 1.0), 1 / config.number("logits_scaling", 1.0)),
    )


FAMILY = Family("granite", ("granite",), _spec)
