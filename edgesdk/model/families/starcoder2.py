"""StarCoder2: layer norms, plain MLP with biases, a sliding window (arXiv 2402.19173)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import LLAMA_TENSORS, Config, Family, llama_attention, llama_mlp, llama_spec, windowed


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("use_bias", True)
    layers = tuple(
        Layer(
            llama_attention(config, qkv_bias=bias, out_bias=bias, window=window),
            llama_mlp(config, gated=False, bias=bias),
        )
        for window in windowed(config, config.integer("num_hidden_layers"))
    )
    return llama_spec(
        "starcoder2",
        config,
        layers,
        norm="layer",
        norm_eps=config.number("norm_epsilon", 1e-5),
        tied=config.flag("tie_word_embeddings", True),
    )


FAMILY = Family("starcoder2", ("starcoder2",), _spec, {**LLAMA_TENSORS, "up": "mlp.c_fc", "down": "mlp.c_proj"})
