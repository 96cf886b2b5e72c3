"""Qwen3-Next: gated delta networks, gated attention on every fourth layer, experts (arXiv 2412.06464, 2505.06708)."""

from __future__ import annotations

from ..spec import Attention, DecoderSpec, FeedForward, GatedDelta, Layer
from .base import Config, Family, Fused, llama_attention, llama_spec, refuse, rope
from .places import Place, Unsqueezed
from .qwen_moe import FUSED, TENSORS, qwen_ffn, qwen_moe


def gated_layers(config: Config, ffns: list[FeedForward]) -> tuple[Layer, ...]:
    """Layers with delta networks, or with gated attention where the configuration says ``full_attention``."""
    count, every = config.integer("num_hidden_layers"), config.integer("full_attention_interval", 4)
    kinds = config.get("layer_types") or [
        "linear_attention" if (index + 1) % every else "full_attention" for index in range(count)
    ]
    refuse(config, f"'layer_types' for {len(kinds)} of {count} layers", unless=len(kinds) == count)
    refuse(config, "gated delta with another activation than SiLU", unless=config.get("hidden_act") in (None, "silu"))
    delta, attention = _delta(config), _attention(config)
    return tuple(
        Layer(attention if kind == "full_attention" else delta, ffn) for kind, ffn in zip(kinds, ffns, strict=True)
    )


def _delta(config: Config) -> GatedDelta:
    heads, key_heads = config.integer("linear_num_value_heads", 32), config.integer("linear_num_key_heads", 16)
    refuse(config, f"{heads} heads of values over {key_heads} of keys", unless=heads % key_heads == 0)
    return GatedDelta(
        heads,
        key_heads,
        config.integer("linear_key_head_dim", 128),
        config.integer("linear_value_head_dim", 128),
        config.integer("linear_conv_kernel_dim", 4),
    )


def _attention(config: Config) -> Attention:
    bias, head_dim = config.flag("attention_bias", False), config.integer("head_dim", 256)
    return llama_attention(
        config,
        head_dim=head_dim,
        rope=rope(config, head_dim, default_part=0.25),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm="head",
        gated=True,
    )


def _spec(config: Config) -> DecoderSpec:
    moe = qwen_moe(config, shared=True, chosen=True)
    ffns = [qwen_ffn(config, moe, index) for index in range(config.integer("num_hidden_layers"))]
    return llama_spec("qwen3_next", config, gated_layers(config, ffns))


#: What of a layer Qwen 3.5 calls the same.
GATED: dict[str, Place] = {
    **TENSORS,
    "q": Fused("self_attn.q_proj", ("q", "q_gate"), grouped="heads"),
    "q_gate": Fused("self_attn.q_proj", ("q", "q_gate"), grouped="heads"),
    "conv.weight": Unsqueezed("linear_attn.conv1d", (1,)),
    "ssm.dt_bias": "linear_attn.dt_bias",
    "ssm.a_log": "linear_attn.A_log",
    "out_norm": "linear_attn.norm",
    "out": "linear_attn.out_proj",
}

_QKVZ = Fused("linear_attn.in_proj_qkvz", ("q", "k", "v", "z"), grouped="key_heads")
_BA = Fused("linear_attn.in_proj_ba", ("beta", "decay"), grouped="key_heads")

FAMILY = Family(
    "qwen3_next",
    ("qwen3_next",),
    _spec,
    {**GATED, **{f"delta.{part}": _QKVZ for part in "qkvz"}, "delta.beta": _BA, "delta.decay": _BA},
    FUSED,
    norm_offset=1.0,
)
