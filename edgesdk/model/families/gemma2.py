"""Gemma 2: local and global layers in turn, sandwich norms, capped scores and logits (arXiv 2408.00118)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import ACTIVATIONS, LLAMA_TENSORS, Config, Family, llama_attention, llama_mlp, llama_spec, windowed

#: Gemma 2 and 3 have a norm before and behind each block.
SANDWICH = LLAMA_TENSORS | {
    "post_attn_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "post_mlp_norm": "post_feedforward_layernorm",
}


def _windows(config: Config, count: int) -> list[int | None]:
    if config.get("layer_types"):
        return windowed(config, count)
    return [None if index % 2 else config.integer("sliding_window") for index in range(count)]


def _spec(config: Config) -> DecoderSpec:
    head_dim, bias = config.integer("head_dim", 256), config.flag("attention_bias", False)
    layers = tuple(
        Layer(
            llama_attention(
                config,
                head_dim=head_dim,
                scale=config.number("query_pre_attn_scalar", float(head_dim)) ** -0.5,
                qkv_bias=bias,
                out_bias=bias,
                window=window,
                softcap=config.optional("attn_logit_softcapping"),
            ),
            llama_mlp(config, activation=config.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh")),
            post_norms=True,
        )
        for window in _windows(config, config.integer("num_hidden_layers"))
    )
    return llama_spec(
        "gemma2",
        config,
        layers,
        tied=config.flag("tie_word_embeddings", True),
        embedding_scale=config.integer("hidden_size") ** 0.5,
        logit_softcap=config.optional("final_logit_softcapping"),
    )


FAMILY = Family("gemma2", ("gemma2",), _spec, SANDWICH, norm_offset=1.0, gguf_architectures=("gemma2",))
