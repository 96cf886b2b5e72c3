"""Mixtral: eight experts, two for a token (arXiv 2401.04088)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer, Moe
from .base import LLAMA_TENSORS, Config, Family, fused_experts, llama_attention, llama_mlp, llama_spec, windowed

EXPERTS = {
    "router": "block_sparse_moe.gate",
    "experts.*.gate": "block_sparse_moe.experts.*.w1",
    "experts.*.up": "block_sparse_moe.experts.*.w3",
    "experts.*.down": "block_sparse_moe.experts.*.w2",
}


def _spec(config: Config) -> DecoderSpec:
    experts = config.integer("num_local_experts"), config.integer("num_experts_per_tok")
    moe = Moe(*experts, llama_mlp(config), "chosen")
    windows = windowed(config, config.integer("num_hidden_layers"))
    return llama_spec(
        "mixtral", config, tuple(Layer(llama_attention(config, window=window), moe) for window in windows)
    )


FAMILY = Family("mixtral", ("mixtral",), _spec, LLAMA_TENSORS | EXPERTS, fused=fused_experts("mlp"))
