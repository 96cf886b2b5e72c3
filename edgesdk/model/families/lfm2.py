"""LFM2: short gated convolutions, attention on some layers (arXiv 2511.23404)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer, Mixer, ShortConv
from .base import LLAMA_TENSORS, Config, Family, llama_attention, llama_mlp, llama_spec, refuse
from .places import Unsqueezed


def _size(config: Config) -> int:
    """The MLP's size: two thirds of what is said, times a factor, up to a multiple."""
    size = config.integer(config.key("block_ff_dim", "intermediate_size"))
    if not config.flag("block_auto_adjust_ff_dim", True):
        return size
    size = int(config.number("block_ffn_dim_multiplier", 1.0) * int(2 * size / 3))
    unit = config.integer("block_multiple_of", 256)
    return -(-size // unit) * unit


def _spec(config: Config) -> DecoderSpec:
    count, kinds = config.integer("num_hidden_layers"), config.get("layer_types")
    if kinds is None:
        attending = config.get("full_attn_idxs") or range(count)
        kinds = ["full_attention" if index in attending else "conv" for index in range(count)]
    refuse(config, f"'layer_types' for {len(kinds)} of {count} layers", unless=len(kinds) == count)
    conv = ShortConv(config.integer("conv_L_cache", 3), config.flag("conv_bias", False))
    attention = llama_attention(config, qk_norm="head")
    mlp = llama_mlp(config, size=_size(config), activation="silu")
    mixers: list[Mixer] = [attention if kind == "full_attention" else conv for kind in kinds]
    return llama_spec(
        "lfm2",
        config,
        tuple(Layer(mixer, mlp) for mixer in mixers),
        norm_eps=config.number("norm_eps", 1e-5),
        tied=config.flag(config.key("tie_embedding", "tie_word_embeddings"), True),
    )


FAMILY = Family(
    "lfm2",
    ("lfm2",),
    _spec,
    {
        **LLAMA_TENSORS,
        "final_norm": "model.embedding_norm",
        "attn_norm": "operator_norm",
        "q_norm": "self_attn.q_layernorm",
        "k_norm": "self_attn.k_layernorm",
        "o": "self_attn.out_proj",
        "in": "conv.in_proj",
        "conv.weight": Unsqueezed("conv.conv", (1,)),
        "conv.bias": "conv.conv.bias",
        "out": "conv.out_proj",
        "mlp_norm": "ffn_norm",
        "gate": "feed_forward.w1",
        "up": "feed_forward.w3",
        "down": "feed_forward.w2",
    },
)
