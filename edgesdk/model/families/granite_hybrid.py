"""Granite 4: Mamba-2, attention on some layers, dense blocks beside experts or alone (Granite team, 2025)."""

from __future__ import annotations

from dataclasses import replace

from ..spec import DecoderSpec, FeedForward, Layer, Mamba2
from .base import Config, Family, Fused, llama_attention, llama_mlp, llama_spec, refuse, rope
from .granite_moe import EXPERTS, FUSED, granite_moe, multipliers
from .mamba2 import step_limits
from .places import Unsqueezed


def _spec(config: Config) -> DecoderSpec:
    hidden, count = config.integer("hidden_size"), config.integer("num_hidden_layers")
    kinds = config.get("layer_types") or ["mamba"] * count
    refuse(config, f"'layer_types' for {len(kinds)} of {count} layers", unless=len(kinds) == count)
    attends = ("attention", "full_attention")
    silu = config.get("hidden_act") in (None, "silu") or all(kind in attends for kind in kinds)
    refuse(config, "Mamba-2 with another activation than SiLU", unless=silu)
    least, most = step_limits(config)
    heads, inner = config.integer("mamba_n_heads", 128), config.integer("mamba_expand", 2) * hidden
    size = config.get("mamba_d_head")
    fits = size in (None, "auto") or size == inner // heads
    refuse(config, f"{heads} heads of {size} in {inner} channels", unless=fits)
    mamba = Mamba2(
        inner,
        config.integer("mamba_d_state", 256),
        config.integer("mamba_d_conv", 4),
        heads,
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
    dense = llama_mlp(config, size=config.integer("shared_intermediate_size", 1024))
    ffn: FeedForward = dense
    if config.get("num_local_experts"):
        ffn = replace(granite_moe(config), shared=dense)
    else:
        config.overruled("intermediate_size", "num_experts_per_tok")
    return llama_spec(
        "granite_hybrid",
        config,
        tuple(Layer(attention if kind in attends else mamba, ffn) for kind in kinds),
        **multipliers(config),
    )


_UPPER = Fused("shared_mlp.input_linear", ("gate", "up"))

FAMILY = Family(
    "granite_hybrid",
    ("granitemoehybrid",),
    _spec,
    {
        **EXPERTS,
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
        "shared.gate": _UPPER,
        "shared.up": _UPPER,
        "shared.down": "shared_mlp.output_linear",
    },
    FUSED,
)
