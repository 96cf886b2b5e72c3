"""Granite 4, hybrid and dense: Mamba-2 with attention on some layers, Granite's multipliers (Granite team, 2025)."""

from __future__ import annotations

from ..spec import DecoderSpec, Folded, Layer, Mamba2
from .base import LLAMA_TENSORS, Config, Family, Fused, llama_attention, llama_mlp, llama_spec, refuse, rope
from .mamba2 import step_limits
from .places import Unsqueezed


def _spec(config: Config) -> DecoderSpec:
    hidden, count = config.integer("hidden_size"), config.integer("num_hidden_layers")
    refuse(config, "Granite 4 with experts in one tensor", unless=not config.get("num_local_experts"))
    kinds = config.get("layer_types") or ["mamba"] * count
    refuse(config, f"'layer_types' for {len(kinds)} of {count} layers", unless=len(kinds) == count)
    least, most = step_limits(config)
    mamba = Mamba2(
        config.integer("mamba_expand", 2) * hidden,
        config.integer("mamba_d_state", 256),
        config.integer("mamba_d_conv", 4),
        config.integer("mamba_n_heads", 128),
        config.integer("mamba_n_groups", 1),
        bias=config.flag("mamba_proj_bias", False),
        conv_bias=config.flag("mamba_conv_bias", True),
        least_step=least,
        most_step=most,
    )
    bias, size = config.flag("attention_bias", False), hidden // config.integer("num_attention_heads")
    attention = llama_attention(
        config,
        head_dim=size,
        scale=config.number("attention_multiplier", 1.0),
        rope=rope(config, size) if config.get("position_embedding_type") == "rope" else None,
        qkv_bias=bias,
        out_bias=bias,
    )
    mlp = llama_mlp(config, size=config.integer("shared_intermediate_size", 1024))
    attends = ("attention", "full_attention")
    return llama_spec(
        "granite_hybrid",
        config,
        tuple(Layer(attention if kind in attends else mamba, mlp) for kind in kinds),
        embedding_scale=config.number("embedding_multiplier", 1.0),
        folded=Folded(config.number("residual_multiplier", 1.0), 1 / config.number("logits_scaling", 1.0)),
    )


_UPPER = Fused("shared_mlp.input_linear", ("gate", "up"))

FAMILY = Family(
    "granite_hybrid",
    ("granitemoehybrid",),
    _spec,
    {
        **LLAMA_TENSORS,
        "in": "mamba.in_proj",
        "conv.weight": Unsqueezed("mamba.conv1d", (1,)),
        "conv.bias": "mamba.conv1d.bias",
        "ssm.a_log": "mamba.A_log",
        "ssm.dt_bias": "mamba.dt_bias",
        "ssm.d": "mamba.D",
        "out_norm": "mamba.norm",
        "out": "mamba.out_proj",
        "gate": _UPPER,
        "up": _UPPER,
        "down": "shared_mlp.output_linear",
    },
)
