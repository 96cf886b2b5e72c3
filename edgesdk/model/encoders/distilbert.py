"""DistilBERT: half of BERT's layers, without segments (arXiv 1910.01108)."""

from __future__ import annotations

from ..config import Config
from ..encoder_spec import Classification, EncoderLayer, EncoderSpec, Head, Normalization, TokenEmbedding
from ..families.base import ACTIVATIONS
from ..spec import Mlp
from .base import EncoderFamily, attention_of, scores_of

_TENSORS = {
    "embed.weight": "embeddings.word_embeddings.weight",
    "positions.weight": "embeddings.position_embeddings.weight",
    "embed_norm": "embeddings.LayerNorm",
    "q": "attention.q_lin",
    "k": "attention.k_lin",
    "v": "attention.v_lin",
    "o": "attention.out_lin",
    "attn_norm": "sa_layer_norm",
    "up": "ffn.lin1",
    "down": "ffn.lin2",
    "mlp_norm": "output_layer_norm",
}


def _spec(config: Config, head: Head) -> EncoderSpec:
    positions, hidden = config.integer("max_position_embeddings", 512), config.integer("dim")
    mlp = Mlp(config.integer("hidden_dim"), config.choice("activation", ACTIVATIONS, "gelu"), gated=False, bias=True)
    return EncoderSpec(
        "distilbert",
        config.integer("vocab_size"),
        hidden,
        positions,
        TokenEmbedding(hidden, positions),
        (EncoderLayer(attention_of(config, "n_heads", "dim"), mlp),) * config.integer("n_layers"),
        Normalization("layer", 1e-12),
        head,
    )


def _classification(config: Config, labels: tuple[str, ...]) -> Classification:
    return Classification(labels, dense="relu", scores=scores_of(config, labels))


FAMILY = EncoderFamily(
    "distilbert",
    ("distilbert",),
    _spec,
    _classification,
    tensors=_TENSORS,
    outside={"dense": "pre_classifier", "classifier": "classifier"},
    body="distilbert.",
    layers="transformer.layer.",
)
