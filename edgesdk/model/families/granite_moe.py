"""Granite 3 with experts: Granite's multipliers, all experts of a layer in one tensor (Granite team, 2024)."""

from __future__ import annotations

from ..spec import DecoderSpec, Folded, Layer, Moe
from .base import LLAMA_TENSORS, Config, Family, Fused, fused_experts, llama_attention, llama_mlp, llama_spec
from .places import Place

_UPPER = Fused("block_sparse_moe.input_linear[*]", ("gate", "up"))

EXPERTS: dict[str, Place] = {
    **LLAMA_TENSORS,
    "router": "block_sparse_moe.router.layer",
    "experts.*.gate": _UPPER,
    "experts.*.up": _UPPER,
    "experts.*.down": "block_sparse_moe.output_linear[*]",
}


FUSED = fused_experts("block_sparse_moe", "router")


def multipliers(config: Config) -> dict[str, float | Folded]:
    """What a spec of Granite has of its multipliers; attention has one more."""
    return {
        "embedding_scale": config.number("embedding_multiplier", 1.0),
        "folded": Folded(config.number("residual_multiplier", 1.0), 1 / config.number("logits_scaling", 1.0)),
    }


def granite_moe(config: Config) -> Moe:
    """Experts without a shared one."""
    return Moe(config.integer("num_local_experts"), config.integer("num_experts_per_tok"), llama_mlp(config), "chosen")


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    attention = llama_attention(config, scale=config.number("attention_multiplier", 1.0), qkv_bias=bias, out_bias=bias)
    layers = (Layer(attention, granite_moe(config)),) * config.integer("num_hidden_layers")
    return llama_spec("granite_moe", config, layers, **multipliers(config))


FAMILY = Family("granite_moe", ("granitemoe",), _spec, EXPERTS, FUSED)
