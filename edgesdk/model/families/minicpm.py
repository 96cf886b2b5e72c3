"""MiniCPM 1 and 2: Llama with a scaled embedding, scaled residuals and scaled logits (arXiv 2404.06395)."""

from __future__ import annotations

from ..spec import DecoderSpec, Folded, Layer
from .base import Config, Family, llama_attention, llama_mlp, llama_spec


def _spec(config: Config) -> DecoderSpec:
    count, hidden = config.integer("num_hidden_layers"), config.integer("hidden_size")
    layer = Layer(llama_attention(config), llama_mlp(config))
    return llama_spec(
        "minicpm",
        config,
        (layer,) * count,
        embedding_scale=config.number("scale_emb", 1.0),
        folded=Folded(
            config.number("scale_depth", count**0.5) / count**0.5, config.number("dim_model_base", hidden) / hidden
        ),
        tied=config.flag("tie_word_embeddings", True),
    )


FAMILY = Family("minicpm", ("minicpm",), _spec)
