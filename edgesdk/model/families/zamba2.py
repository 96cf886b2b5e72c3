"""Zamba2: Mamba-2 in every layer, shared transformer blocks with low-rank additions of each use (arXiv 2411.15242).

The additions stay what they are, two thin matrices beside the shared one: summed into it, every use would have a whole
block of its own.
"""

from __future__ import annotations

from ..spec import DecoderSpec, Layer, Mamba2
from .base import ACTIVATIONS, Config, Fused, llama_mlp, refuse, rope
from .zamba import TENSORS, SharedBlocks, aside_attention, with_shared_blocks

_EPS = 1e-5  # of the norms inside Mamba-2, whatever the configuration says


def _spec(config: Config) -> DecoderSpec:
    hidden, rank = config.integer("hidden_size"), config.integer("adapter_rank", 128)
    eps = config.number("rms_norm_eps", _EPS)
    refuse(config, f"'rms_norm_eps' {eps:g}, where Mamba-2 has {_EPS:g}", unless=eps == _EPS)
    bias = config.flag("add_bias_linear", False)
    mamba = Mamba2(
        config.integer("mamba_expand", 2) * hidden,
        config.integer("mamba_d_state", 64),
        config.integer("mamba_d_conv", 4),
        config.integer("n_mamba_heads", 8),
        config.integer("mamba_ngroups", 1),
        bias=bias,
        least_step=config.number("time_step_min", 0.001),
    )
    heads = config.integer("num_attention_heads")
    config.overruled("use_conv_bias")  # the published network always has one
    derived = {
        "attention_hidden_size": 2 * hidden,
        "mamba_headdim": mamba.inner // mamba.heads,
        "kv_channels": hidden // heads,
        "num_query_groups": heads,
    }
    for key, value in derived.items():
        refuse(config, f"'{key}' other than {value}", unless=config.get(key) in (None, value))
    attention = aside_attention(
        config,
        rope=rope(config, 2 * hidden // heads) if config.flag("use_mem_rope", False) else None,
        low_rank=rank if config.flag("use_shared_attention_adapter", False) else None,
    )
    mlp = llama_mlp(
        config,
        size=config.integer("intermediate_size", 4 * hidden),
        activation=config.choice("hidden_act", ACTIVATIONS, "gelu"),
        bias=bias,
        low_rank=rank,
    )
    kinds = config.get(config.key("layers_block_type", "layer_types"))
    refuse(config, "a configuration without 'layers_block_type'", unless=isinstance(kinds, list))
    block = Layer(attention, mlp, residual="aside")
    return with_shared_blocks("zamba2", config, mamba, block, kinds, config.integer("num_mem_blocks", 1))


_MLP_ADDED = "feed_forward.gate_up_proj_adapter_list.USE"

FAMILY = SharedBlocks(
    "zamba2",
    ("zamba2",),
    _spec,
    {
        **TENSORS,
        "ssm.a_log": "mamba.A_log",
        "ssm.dt_bias": "mamba.dt_bias",
        "ssm.d": "mamba.D",
        "out_norm": "mamba.norm",
        "gate": Fused("feed_forward.gate_up_proj", ("gate", "up")),
        "up": Fused("feed_forward.gate_up_proj", ("gate", "up")),
        "ffn_low": f"{_MLP_ADDED}.0",
        "gate_high": Fused(f"{_MLP_ADDED}.1", ("gate_high", "up_high")),
        "up_high": Fused(f"{_MLP_ADDED}.1", ("gate_high", "up_high")),
        **{f"{part}_low": f"self_attn.linear_{part}_adapter_list.USE.0" for part in "qkv"},
        **{f"{part}_high": f"self_attn.linear_{part}_adapter_list.USE.1" for part in "qkv"},
    },
    module="shared_transformer",
)
