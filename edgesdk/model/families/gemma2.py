"""Gemma 2: local and global layers in turn, sandwich norms, capped scores and logits (arXiv 2408.00118)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..spec import DecoderSpec, Layer, QkNorm, Rope
from .base import (
    ACTIVATIONS,
    LLAMA_TENSORS,
    Config,
    Family,
    llama_attention,
    llama_mlp,
    llama_spec,
    refuse,
    rope,
    windowed,
)

_LARGEST = 46  # layers of the 27B, whose queries are scaled otherwise
HEAD_DIM = 256  # where the configuration does not say
#: Gemma 2 and 3 have a norm before and behind each block.
SANDWICH = LLAMA_TENSORS | {
    "post_attn_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "post_mlp_norm": "post_feedforward_layernorm",
}


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
    windows = windowed(config, config.integer("num_hidden_layers"), lambda index: index % 2 == 0)
    return sandwich("gemma2", config, windows, {False: turning, True: turning})


def gguf_layer_types(own: Config, period: int) -> list[str]:
    """Which layers of a GGUF file are local: those that it marks, or all but the last of every ``period``."""
    count, pattern = own.integer("block_count"), own.get("attention.sliding_window_pattern")
    window = own.get("attention.sliding_window")
    if not isinstance(pattern, list):
        period = own.integer("attention.sliding_window_pattern", period)
        pattern = [bool(window) and index % period < period - 1 for index in range(count)]
    return ["sliding_attention" if local else "full_attention" for local in pattern]


def gguf_query_scale(own: Config, largest: int) -> int | None:
    """``query_pre_attn_scalar`` of the largest model, known by its layers; None: the head's size."""
    if own.integer("block_count") != largest:
        return None
    return own.integer("embedding_length") // own.integer("attention.head_count")


def _from_gguf(own: Config) -> dict[str, Any]:
    """What llama.cpp has where a file of Gemma 2 says nothing."""
    base = own.number("rope.freq_base", 10000.0)
    refuse(own, "a base of its own for local layers", unless=own.number("rope.freq_base_swa", base) == base)
    window = own.integer("attention.sliding_window", 4096)
    return {
        "sliding_window": window,
        "layer_types": gguf_layer_types(own.changed(**{"attention.sliding_window": window}), 2),
        "attn_logit_softcapping": own.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": own.number("final_logit_softcapping", 30.0),
        "query_pre_attn_scalar": gguf_query_scale(own, _LARGEST),
    }


FAMILY = Family(
    "gemma2",
    ("gemma2",),
    _spec,
    SANDWICH,
    norm_offset=1.0,
    gguf_architectures=("gemma2",),
    gguf_config=_from_gguf,
)
