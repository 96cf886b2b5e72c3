"""GPT-2 and Cerebras-GPT: learned positions, layer norms, plain MLP (Radford et al., 2019; arXiv 2304.03208)."""

from __future__ import annotations

from ..spec import Attention, DecoderSpec, Layer, Mlp
from .base import ACTIVATIONS, QKV, Config, Family, Fused, refuse

_QKV = Fused("attn.c_attn", QKV)


def _spec(config: Config) -> DecoderSpec:
    scaled = config.flag("scale_attn_weights", True) and not config.flag("scale_attn_by_inverse_layer_idx", False)
    refuse(config, "GPT-2 with another attention scale than 1 / sqrt(head size)", unless=scaled)
    hidden, heads = config.integer("n_embd"), config.integer("n_head")
    size = hidden // heads
    attention = Attention(heads, heads, size, size**-0.5, rope=None, qkv_bias=True, out_bias=True)
    activation = config.choice("activation_function", ACTIVATIONS, "gelu_new")
    mlp = Mlp(config.integer("n_inner", 4 * hidden), activation, gated=False, bias=True)
    return DecoderSpec(
        "gpt2",
        config.integer("vocab_size"),
        hidden,
        config.integer("n_positions"),
        (Layer(attention, mlp),) * config.integer("n_layer"),
        config.number("layer_norm_epsilon", 1e-5),
        norm="layer",
        learned_positions=True,
        tied=config.flag("tie_word_embeddings", True),
    )


FAMILY = Family(
    "gpt2",
    ("gpt2",),
    _spec,
    {
        "embed.weight": "transformer.wte.weight",
        "positions.weight": "transformer.wpe.weight",
        "final_norm": "transformer.ln_f",
        "head": "lm_head",
        "attn_norm": "ln_1",
        "q": _QKV,
        "k": _QKV,
        "v": _QKV,
        "o": "attn.c_proj",
        "mlp_norm": "ln_2",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    },
    layers="transformer.h.",
    prefix="transformer.",
    transposed=True,
)
