"""OpenELM: heads and MLP sizes of every layer's own, norms on each head (arXiv 2404.14619)."""

from __future__ import annotations

from ..spec import Attention, DecoderSpec, Layer, Mlp, QkNorm, Rope
from .base import ACTIVATIONS, QKV, Config, Family, Fused, refuse

_QKV = Fused("attn.qkv_proj", QKV)
_GATED = Fused("ffn.proj_1", ("gate", "up"))


def _sizes(config: Config, hidden: int) -> list[int]:
    """The MLP's size in each layer: a multiple of the width, to the nearest multiple of a divisor, never 10 % less."""
    unit, factors = config.integer("ffn_dim_divisor", 256), config.get("ffn_multipliers")
    refuse(config, "'ffn_multipliers' that is no list", unless=isinstance(factors, list))
    sizes = []
    for factor in factors:
        size = max(unit, int(factor * hidden + unit / 2) // unit * unit)
        sizes.append(size if size >= 0.9 * factor * hidden else size + unit)
    return sizes


def _spec(config: Config) -> DecoderSpec:
    hidden, count, size = (config.integer(key) for key in ("model_dim", "num_transformer_layers", "head_dim"))
    heads, kv_heads = (config.integers(key, count) for key in ("num_query_heads", "num_kv_heads"))
    refuse(config, "OpenELM with plain MLPs", unless=config.flag("ffn_with_glu", True))
    normed: QkNorm | None = "head" if config.flag("normalize_qk_projections", True) else None
    turning = Rope(config.number("rope_freq_constant", 10000.0))
    activation = config.choice("activation_fn_name", ACTIVATIONS, "swish")
    layers = tuple(
        Layer(Attention(q, kv, size, size**-0.5, turning, qk_norm=normed), Mlp(inner, activation))
        for q, kv, inner in zip(heads, kv_heads, _sizes(config, hidden), strict=True)
    )
    return DecoderSpec(
        "openelm",
        config.integer("vocab_size"),
        hidden,
        config.integer("max_context_length"),
        layers,
        1e-6,
        tied=config.flag("share_input_output_layers", True),
    )


FAMILY = Family(
    "openelm",
    ("openelm",),
    _spec,
    {
        "embed.weight": "transformer.token_embeddings.weight",
        "final_norm": "transformer.norm",
        "head": "lm_head",
        "attn_norm": "attn_norm",
        "q": _QKV,
        "k": _QKV,
        "v": _QKV,
        "q_norm": "attn.q_norm",
        "k_norm": "attn.k_norm",
        "o": "attn.out_proj",
        "mlp_norm": "ffn_norm",
        "gate": _GATED,
        "up": _GATED,
        "down": "ffn.proj_2",
    },
    layers="transformer.layers.",
)
