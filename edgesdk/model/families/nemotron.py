"""Nemotron and Minitron: squared ReLU, layer norms stored less one (arXiv 2402.16819, 2407.14679)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import Config, Family, llama_attention, llama_mlp, llama_spec, rope


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    size = config.integer("head_dim", config.integer("hidden_size") // config.integer("num_attention_heads"))
    turning = rope(config, size, default_part=0.5)
    layer = Layer(
        llama_attention(config, head_dim=size, qkv_bias=bias, out_bias=bias, rope=turning),
        llama_mlp(config, gated=False, bias=config.flag("mlp_bias", False)),
    )
    layers = (layer,) * config.integer("num_hidden_layers")
    return llama_spec("nemotron", config, layers, norm="layer", norm_eps=config.number("norm_eps", 1e-5))


FAMILY = Family("nemotron", ("nemotron",), _spec, norm_offset=1.0)
