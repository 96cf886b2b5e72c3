"""GPT-Neo and TinyStories: GPT-2 with unscaled scores, local attention on some layers (arXiv 2305.07759)."""

from __future__ import annotations

from ..spec import Attention, DecoderSpec, Layer, Mlp
from .base import ACTIVATIONS, Config, Family, refuse


def _windows(config: Config) -> list[int | None]:
    """Every layer's window, from ``attention_layers`` or from ``attention_types`` and their repeats."""
    count, kinds = config.integer("num_layers"), config.get("attention_layers")
    if kinds is not None:
        config.overruled("attention_types")
    else:
        kinds = [kind for each, times in config.get("attention_types") or [] for kind in list(each) * times]
    refuse(config, f"'attention_types' for {len(kinds)} of {count} layers", unless=len(kinds) == count)
    return [config.integer("window_size", 256) if kind == "local" else None for kind in kinds]


def _spec(config: Config) -> DecoderSpec:
    hidden, heads = config.integer("hidden_size"), config.integer("num_heads")
    activation = config.choice("activation_function", ACTIVATIONS, "gelu_new")
    mlp = Mlp(config.integer("intermediate_size", 4 * hidden), activation, gated=False, bias=True)
    layers = tuple(
        Layer(Attention(heads, heads, hidden // heads, 1.0, rope=None, out_bias=True, window=window), mlp)
        for window in _windows(config)
    )
    return DecoderSpec(
        "gpt_neo",
        config.integer("vocab_size"),
        hidden,
        config.integer("max_position_embeddings"),
        layers,
        config.number("layer_norm_epsilon", 1e-5),
        norm="layer",
        learned_positions=True,
        tied=config.flag("tie_word_embeddings", True),
    )


FAMILY = Family(
    "gpt_neo",
    ("gpt_neo",),
    _spec,
    {
        "embed.weight": "transformer.wte.weight",
        "positions.weight": "transformer.wpe.weight",
        "final_norm": "transformer.ln_f",
        "head": "lm_head",
        "attn_norm": "ln_1",
        "q": "attn.attention.q_proj",
        "k": "attn.attention.k_proj",
        "v": "attn.attention.v_proj",
        "o": "attn.attention.out_proj",
        "mlp_norm": "ln_2",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    },
    layers="transformer.h.",
    prefix="transformer.",
)
