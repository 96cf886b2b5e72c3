"""Qwen 3, dense: an RMS norm on every head of q and k, no biases (arXiv 2505.09388)."""

from __future__ import annotations

from ..config import Config
from ..spec import DecoderSpec, Layer
from .base import Family, llama_attention, llama_mlp, llama_spec
from .qwen2 import windows


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    head_dim = config.integer("head_dim", 128)
    layers = tuple(
        Layer(
            llama_attention(
                config,
                head_dim=head_dim,
                qkv_bias=bias,
                out_bias=bias,
                qk_norm="head",
                window=window,
            ),
            llama_mlp(config),
        )
        for window in windows(config)
    )
    return llama_spec("qwen3", config, layers)


FAMILY = Family("qwen3", ("qwen3",), _spec, gguf_architectures=("qwen3",))
