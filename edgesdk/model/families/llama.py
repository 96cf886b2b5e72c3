"""Llama 2 and 3.x, TinyLlama, SmolLM2 (arXiv 2307.09288, 2407.21783, 2502.02737)."""

from __future__ import annotations

from ..config import Config
from ..spec import DecoderSpec, Layer
from .base import Family, llama_attention, llama_mlp, llama_spec


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    layer = Layer(
        llama_attention(config, qkv_bias=bias, out_bias=bias),
        llama_mlp(config, bias=config.flag("mlp_bias", False)),
    )
    return llama_spec("llama", config, (layer,) * config.integer("num_hidden_layers"))


FAMILY = Family("llama", ("llama",), _spec, gguf_architectures=("llama",), gguf_interleaved=True)
