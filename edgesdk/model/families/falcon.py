"""Falcon: parallel residual, one or few key-value heads, rotary positions or ALiBi (arXiv 2311.16867)."""

from __future__ import annotations

from typing import Any

from ..spec import DecoderSpec, Layer
from .base import ACTIVATIONS, QKV, Config, Family, Fused, llama_attention, llama_mlp, llama_spec, refuse
from .places import Places

_QKV = Fused("self_attention.query_key_value", QKV, grouped="kv_heads")


def _spec(config: Config) -> DecoderSpec:
    hidden, heads = config.integer(config.key("n_embed", "hidden_size")), config.integer("num_attention_heads")
    newer, bias = config.flag("new_decoder_architecture", False), config.flag("bias", False)
    config.overruled("multi_query", "parallel_attn") if newer else config.overruled("num_kv_heads")
    kv_heads = config.integer("num_kv_heads", heads) if newer else 1 if config.flag("multi_query", True) else heads
    changes: dict[str, Any] = {"heads": heads, "kv_heads": kv_heads, "head_dim": hidden // heads}
    if config.flag("alibi", False):
        changes |= {"rope": None, "alibi": (hidden // heads) ** -0.5}
    norms = config.get("num_ln_in_parallel_attn") or (2 if newer else 1)
    refuse(config, "Falcon's newer layers behind one norm", unless=not newer or norms == 2)
    parallel = newer or config.flag("parallel_attn", True)
    layer = Layer(
        llama_attention(config, qkv_bias=bias, out_bias=bias, **changes),
        llama_mlp(
            config,
            size=config.integer("ffn_hidden_size", 4 * hidden),
            activation=config.choice("activation", ACTIVATIONS, "gelu"),
            gated=False,
            bias=bias,
        ),
        residual=("parallel" if norms == 2 else "shared") if parallel else "serial",
    )
    return llama_spec(
        "falcon",
        config,
        (layer,) * config.integer("num_hidden_layers"),
        context=config.integer("max_position_embeddings", 2048),
        norm="layer",
        norm_eps=config.number("layer_norm_epsilon", 1e-5),
        tied=config.flag("tie_word_embeddings", True),
    )


def _tensors(spec: DecoderSpec) -> Places:
    two = spec.layers[0].residual == "parallel"
    return {
        "embed.weight": "transformer.word_embeddings.weight",
        "final_norm": "transformer.ln_f",
        "head": "lm_head",
        "attn_norm": "ln_attn" if two else "input_layernorm",
        "q": _QKV,
        "k": _QKV,
        "v": _QKV,
        "o": "self_attention.dense",
        "mlp_norm": "ln_mlp" if two else "post_attention_layernorm",
        "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    }


FAMILY = Family("falcon", ("falcon",), _spec, _tensors, layers="transformer.h.", prefix="transformer.")
