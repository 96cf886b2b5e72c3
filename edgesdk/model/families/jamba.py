"""Jamba: Mamba with attention on some layers and experts on some (arXiv 2403.19887)."""

from __future__ import annotations

from ..spec import DecoderSpec, FeedForward, Layer, Mamba, Mixer, Moe
from .base import LLAMA_TENSORS, Config, Family, fused_experts, llama_attention, llama_mlp, llama_spec, refuse
from .places import Unsqueezed


def _spec(config: Config) -> DecoderSpec:
    refuse(config, "Mamba with another activation than SiLU", unless=config.get("hidden_act") in (None, "silu"))
    hidden, experts = config.integer("hidden_size"), config.integer("num_experts", 1)
    mamba = Mamba(
        config.integer("mamba_expand", 2) * hidden,
        config.integer("mamba_d_state", 16),
        config.integer("mamba_d_conv", 4),
        config.integer("mamba_dt_rank", -(-hidden // 16)),
        bias=config.flag("mamba_proj_bias", False),
        conv_bias=config.flag("mamba_conv_bias", True),
        normed=True,
    )
    attention = llama_attention(config, rope=None)
    moe = Moe(experts, config.integer("num_experts_per_tok", 2), llama_mlp(config), "softmax")
    layers = []
    for index in range(config.integer("num_hidden_layers")):
        mixer: Mixer = attention if _every(config, "attn_layer", index) else mamba
        ffn: FeedForward = moe if experts > 1 and _every(config, "expert_layer", index) else llama_mlp(config)
        layers.append(Layer(mixer, ffn))
    return llama_spec("jamba", config, tuple(layers), context=config.integer("max_position_embeddings", 262144))


def _every(config: Config, what: str, index: int) -> bool:
    return index % config.integer(f"{what}_period") == (config.get(f"{what}_offset") or 0)


FAMILY = Family(
    "jamba",
    ("jamba",),
    _spec,
    {
        **LLAMA_TENSORS,
        "final_norm": "model.final_layernorm",
        "in": "mamba.in_proj",
        "conv.weight": Unsqueezed("mamba.conv1d", (1,)),
        "conv.bias": "mamba.conv1d.bias",
        "x": "mamba.x_proj",
        "dt_norm": "mamba.dt_layernorm",
        "b_norm": "mamba.b_layernorm",
        "c_norm": "mamba.c_layernorm",
        "dt": "mamba.dt_proj",
        "ssm.a_log": "mamba.A_log",
        "ssm.d": "mamba.D",
        "out": "mamba.out_proj",
        "mlp_norm": "pre_ff_layernorm",
        "gate": "feed_forward.gate_proj",
        "up": "feed_forward.up_proj",
        "down": "feed_forward.down_proj",
        "router": "feed_forward.router",
        "experts.*.gate": "feed_forward.experts.*.gate_proj",
        "experts.*.up": "feed_forward.experts.*.up_proj",
        "experts.*.down": "feed_forward.experts.*.down_proj",
    },
    fused_experts("feed_forward", "router"),
)
