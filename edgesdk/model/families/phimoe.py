"""Phi-3.5-MoE: sixteen experts chosen by the sparse mixer, layer norms (arXiv 2404.14219)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer, Moe
from .base import LLAMA_TENSORS, Config, Family, fused_experts, llama_attention, llama_mlp, llama_spec, refuse, windowed
from .mixtral import EXPERTS


def _spec(config: Config) -> DecoderSpec:
    active, bias = config.integer("num_experts_per_tok"), config.flag("attention_bias", False)
    refuse(config, "Phi-3.5-MoE with other than two experts for a token", unless=active == 2)
    jitter = config.number("router_jitter_noise", 0.01)
    moe = Moe(config.integer("num_local_experts"), active, llama_mlp(config), "sparsemixer", jitter)
    layers = tuple(
        Layer(llama_attention(config, qkv_bias=bias, out_bias=bias, window=window), moe)
        for window in windowed(config, config.integer("num_hidden_layers"))
    )
    return llama_spec("phimoe", config, layers, norm="layer", head_bias=config.flag("lm_head_bias", False))


FAMILY = Family("phimoe", ("phimoe",), _spec, LLAMA_TENSORS | EXPERTS, fused=fused_experts("mlp", "router"))
