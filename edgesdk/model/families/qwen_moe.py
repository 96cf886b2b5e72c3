"""Qwen 1.5 and 2 MoE (a shared expert with a gate) and Qwen 3 MoE (none) (arXiv 2407.10671, 2505.09388)."""

from __future__ import annotations

from ..spec import DecoderSpec, FeedForward, Layer, Moe
from .base import LLAMA_TENSORS, Config, Family, fused_experts, llama_attention, llama_mlp, llama_spec
from .places import Place
from .qwen2 import windows


def qwen_moe(config: Config, *, shared: bool, chosen: bool = False) -> Moe:
    """Experts of a Qwen configuration; ``chosen``: weights are of those chosen alone where it does not say."""
    config.overruled("intermediate_size")  # of dense layers, where there are any
    return Moe(
        config.integer(config.key("num_experts", "num_local_experts")),
        config.integer("num_experts_per_tok"),
        llama_mlp(config, size=config.integer("moe_intermediate_size")),
        "chosen" if config.flag("norm_topk_prob", chosen) else "softmax",
        shared=llama_mlp(config, size=config.integer("shared_expert_intermediate_size")) if shared else None,
        shared_gate=shared,
    )


def qwen_ffn(config: Config, moe: Moe, index: int) -> FeedForward:
    """What stands in a layer: experts, or a dense block where the configuration says so."""
    dense, step = config.get("mlp_only_layers") or [], config.integer("decoder_sparse_step", 1)
    return llama_mlp(config) if index in dense or (index + 1) % step else moe


def _spec(config: Config) -> DecoderSpec:
    third = config.get("model_type") == "qwen3_moe"
    bias = config.flag(config.key("qkv_bias", "attention_bias"), not third)
    moe, layers = qwen_moe(config, shared=not third), []
    for index, window in enumerate(windows(config)):
        attention = llama_attention(
            config, qkv_bias=bias, out_bias=bias and third, qk_norm="head" if third else None, window=window
        )
        layers.append(Layer(attention, qwen_ffn(config, moe, index)))
    return llama_spec("qwen_moe", config, tuple(layers))


TENSORS: dict[str, Place] = {
    **LLAMA_TENSORS,
    "router": "mlp.gate",
    "experts.*.gate": "mlp.experts.*.gate_proj",
    "experts.*.up": "mlp.experts.*.up_proj",
    "experts.*.down": "mlp.experts.*.down_proj",
    "shared.gate": "mlp.shared_expert.gate_proj",
    "shared.up": "mlp.shared_expert.up_proj",
    "shared.down": "mlp.shared_expert.down_proj",
    "shared_router": "mlp.shared_expert_gate",
}

FUSED = fused_experts("mlp")

FAMILY = Family("qwen_moe", ("qwen2_moe", "qwen3_moe"), _spec, TENSORS, FUSED)
