"""RWKV-4: linear attention as a recurrence, token shifts, no positions (arXiv 2305.13048)."""

from __future__ import annotations

from ..spec import ChannelMix, DecoderSpec, Layer, Rwkv
from .base import Config, Family, refuse
from .places import Unsqueezed

_EPS = 1e-5  # of the last norm, whatever the configuration says
_MIX = {
    f"{shift}.{part[0]}": Unsqueezed(f"{block}.time_mix_{part}", (0, 0))
    for shift, block in (("shift", "attention"), ("ffn_shift", "feed_forward"))
    for part in ("key", "value", "receptance")
}


def _spec(config: Config) -> DecoderSpec:
    hidden, eps = config.integer("hidden_size"), config.number("layer_norm_epsilon", _EPS)
    refuse(config, f"'layer_norm_epsilon' {eps:g}, where the last norm has {_EPS:g}", unless=eps == _EPS)
    layer = Layer(
        Rwkv(config.integer("attention_hidden_size", hidden)),
        ChannelMix(config.integer("intermediate_size", 4 * hidden)),
    )
    return DecoderSpec(
        "rwkv",
        config.integer("vocab_size"),
        hidden,
        config.integer(config.key("context_length", "max_position_embeddings")),
        (layer,) * config.integer("num_hidden_layers"),
        eps,
        norm="layer",
        embed_norm=True,
        tied=config.flag("tie_word_embeddings", False),
    )


FAMILY = Family(
    "rwkv",
    ("rwkv",),
    _spec,
    {
        "embed.weight": "rwkv.embeddings.weight",
        "embed_norm": "rwkv.blocks.0.pre_ln",
        "final_norm": "rwkv.ln_out",
        "head": "head",
        "attn_norm": "ln1",
        "wkv.decay": "attention.time_decay",
        "wkv.first": "attention.time_first",
        "k": "attention.key",
        "v": "attention.value",
        "r": "attention.receptance",
        "o": "attention.output",
        "mlp_norm": "ln2",
        "up": "feed_forward.key",
        "gate": "feed_forward.receptance",
        "down": "feed_forward.value",
        **_MIX,
    },
    layers="rwkv.blocks.",
    prefix="rwkv.",
)
