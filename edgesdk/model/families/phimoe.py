"""Phi-3.5-MoE: sixteen experts chosen by the sparse mixer, layer norms (arXiv 2404.14219)."""

from __future__ import annotations

from dataclasses import replace

from ..spec import DecoderSpec, Layer, Moe, PairRopeScaling, Rope
from .base import (
    LLAMA_TENSORS,
    Config,
    Family,
    fused_experts,
    llama_attention,
    llama_mlp,
    llama_spec,
    refuse,
    rope,
    windowed,
)
from .mixtral import EXPERTS
from .ropes import rope_section


def _spec(config: Config) -> DecoderSpec:
    active, bias = config.integer("num_experts_per_tok"), config.flag("attention_bias", False)
    refuse(config, "Phi-3.5-MoE with other than two experts for a token", unless=active == 2)
    jitter = config.number("router_jitter_noise", 0.01)
    moe = Moe(config.integer("num_local_experts"), active, llama_mlp(config), "sparsemixer", jitter)
    size = config.integer("head_dim", config.integer("hidden_size") // config.integer("num_attention_heads"))
    turning = _rope(config, size)
    layers = tuple(
        Layer(
            llama_attention(config, head_dim=size, rope=turning, qkv_bias=bias, out_bias=bias, window=window),
            moe,
        )
        for window in windowed(config, config.integer("num_hidden_layers"))
    )
    return llama_spec("phimoe", config, layers, norm="layer", head_bias=config.flag("lm_head_bias", False))


def _rope(config: Config, size: int) -> Rope:
    """LongRoPE whose factors on cosines and sines the configuration names itself."""
    plain, section = rope(config, size), rope_section(config)
    if plain.scaling is None:
        return plain
    refuse(
        config, "Phi-3.5-MoE with another rope type than longrope", unless=isinstance(plain.scaling, PairRopeScaling)
    )
    assert isinstance(plain.scaling, PairRopeScaling)
    short, long = section.number("short_mscale"), section.number("long_mscale")
    return replace(plain, scaling=replace(plain.scaling, magnitude=short, long_magnitude=long))


FAMILY = Family("phimoe", ("phimoe",), _spec, LLAMA_TENSORS | EXPERTS, fused=fused_experts("mlp", "router"))
