"""ERNIE 4.5, dense: Llama with interleaved rotary pairs (Baidu, 2025)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import Config, Family, llama_attention, llama_mlp, llama_spec


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("use_bias", False)
    layer = Layer(llama_attention(config, qkv_bias=bias, out_bias=bias), llama_mlp(config, bias=bias))
    return llama_spec(
        "ernie4_5",
        config,
        (layer,) * config.integer("num_hidden_layers"),
        tied=config.flag("tie_word_embeddings", True),
    )


FAMILY = Family("ernie4_5", ("ernie4_5",), _spec, interleaved=True)
