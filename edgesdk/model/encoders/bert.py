"""BERT, and what shares its architecture: MiniLM, TinyBERT, BGE, E5, GTE (arXiv 1810.04805)."""

from __future__ import annotations

from ...errors import ModelError
from ..config import Config
from ..encoder_spec import Classification, EncoderLayer, EncoderSpec, Head, Normalization, TokenEmbedding
from ..families.base import ACTIVATIONS
from ..spec import Mlp
from .base import EncoderFamily, attention_of, scores_of


def bert_spec(family: str, config: Config, head: Head, first_position: int = 0) -> EncoderSpec:
    """A BERT; ``first_position`` is the row of the first token's position."""
    if config.get("position_embedding_type") not in (None, "absolute") or config.flag("is_decoder", False):
        raise ModelError(f"{config.where}: only absolute positions and bidirectional attention are built")
    positions, hidden = config.integer("max_position_embeddings"), config.integer("hidden_size")
    mlp = Mlp(
        config.integer("intermediate_size"),
        config.choice("hidden_act", ACTIVATIONS, "gelu"),
        gated=False,
        bias=True,
    )
    layer = EncoderLayer(attention_of(config, "num_attention_heads", "hidden_size"), mlp)
    return EncoderSpec(
        family,
        config.integer("vocab_size"),
        hidden,
        positions - first_position,
        TokenEmbedding(hidden, positions, first_position, config.integer("type_vocab_size", 2)),
        (layer,) * config.integer("num_hidden_layers"),
        Normalization("layer", config.number("layer_norm_eps", 1e-12)),
        head,
    )


def _classification(config: Config, labels: tuple[str, ...]) -> Classification:
    return Classification(labels, scores=scores_of(config, labels))


FAMILY = EncoderFamily(
    "bert", ("bert",), lambda config, head: bert_spec("bert", config, head), _classification, body="bert."
)
