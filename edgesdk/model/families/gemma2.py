"""Gemma 2: local and global layers in turn, sandwich norms, capped scores and logits (arXiv 2408.00118)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..spec import DecoderSpec, Layer, QkNorm, Rope
from .base import ACTIVATIONS, LLAMA_TENSORS, Config, Family, llama_attention, llama_mlp, llama_spec, rope, windowed

HEAD_DIM = 256  # where the configuration does not say
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


def sandwich(
    family: str,
    config: Config,
    windows: Sequence[int | None],
    ropes: Mapping[bool, Rope],
    qk_norm: QkNorm | None = None,
) -> DecoderSpec:
    """A spec of Gemma 2 or 3; ``ropes`` are those of global (False) and local (True) layers."""
    head_dim, bias = config.integer("head_dim", HEAD_DIM), config.flag("attention_bias", False)
    activation = config.choice("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh")
    layers = tuple(
        Layer(
            llama_attention(
                config,
                head_dim=head_dim,
                scale=config.number("query_pre_attn_scalar", float(head_dim)) ** -0.5,
                rope=ropes[window is not None],
                qkv_bias=bias,
                out_bias=bias,
                qk_norm=qk_norm,
                window=window,
                softcap=config.optional("attn_logit_softcapping"),
            ),
            llama_mlp(config, activation=activation),
            post_norms=True,
        )
        for window in windows
    )
    return llama_spec(
        family,
        config,
        layers,
        tied=config.flag("tie_word_embeddings", True),
        embedding_scale=config.integer("hidden_size") ** 0.5,
        logit_softcap=config.optional("final_logit_softcapping"),
    )


def _spec(config: Config) -> DecoderSpec:
    turning = rope(config, config.integer("head_dim", HEAD_DIM))
    windows = _windows(config, config.integer("num_hidden_layers"))
    return sandwich("gemma2", config, windows, {False: turning, True: turning})


FAMILY = Family("gemma2", ("gemma2",), _spec, SANDWICH, norm_offset=1.0, gguf_architectures=("gemma2",))
