"""Gemma 1: Llama with a scaled embedding and norms stored less one (arXiv 2403.08295)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import ACTIVATIONS, Config, Family, llama_attention, llama_mlp, llama_spec


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    activation = config.choice("hidden_act", {**ACTIVATIONS, "gelu": "gelu_tanh"}, "gelu_pytorch_tanh")
    config.overruled("hidden_activation")  # transformers takes the other key, and its "gelu" as the tanh form
    layer = Layer(
        llama_attention(config, head_dim=config.integer("head_dim", 256), qkv_bias=bias, out_bias=bias),
        llama_mlp(config, activation=activation),
    )
    return llama_spec(
        "gemma",
        config,
        (layer,) * config.integer("num_hidden_layers"),
        tied=config.flag("tie_word_embeddings", True),
        embedding_scale=config.integer("hidden_size") ** 0.5,
    )


FAMILY = Family("gemma", ("gemma",), _spec, norm_offset=1.0, gguf_architectures=("gemma",))
