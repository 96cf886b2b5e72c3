"""OLMoE: 64 small experts, norms over all queries and keys (arXiv 2409.02060)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer, Moe
from .base import LLAMA_TENSORS, Config, Family, fused_experts, llama_attention, llama_mlp, llama_spec


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    moe = Moe(
        config.integer(config.key("num_experts", "num_local_experts")),
        config.integer("num_experts_per_tok"),
        llama_mlp(config),
        "chosen" if config.flag("norm_topk_prob", False) else "softmax",
    )
    clip = config.optional("clip_qkv")
    layer = Layer(llama_attention(config, qkv_bias=bias, out_bias=bias, qk_norm="all", clip=clip), moe)
    return llama_spec("olmoe", config, (layer,) * config.integer("num_hidden_layers"))


FAMILY = Family(
    "olmoe",
    ("olmoe",),
    _spec,
    {
        **LLAMA_TENSORS,
        "router": "mlp.gate",
        "experts.*.gate": "mlp.experts.*.gate_proj",
        "experts.*.up": "mlp.experts.*.up_proj",
        "experts.*.down": "mlp.experts.*.down_proj",
    },
    fused=fused_experts("mlp"),
)
