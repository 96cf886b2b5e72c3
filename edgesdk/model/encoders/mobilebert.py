"""MobileBERT: narrow layers with several feed-forward blocks, norms that only scale (arXiv 2004.02984)."""

from __future__ import annotations

import re

from ...errors import ModelError
from ..config import Config
from ..encoder_spec import (
    Bottleneck,
    Classification,
    EncoderAttention,
    EncoderLayer,
    EncoderSpec,
    Head,
    Normalization,
    TokenEmbedding,
)
from ..families.base import ACTIVATIONS
from ..spec import Mlp
from .base import BERT_TENSORS, EncoderFamily, scores_of

_TENSORS = BERT_TENSORS | {
    "embed_projection": "embeddings.embedding_transformation",
    "narrow": "bottleneck.input.dense",
    "narrow_norm": "bottleneck.input.LayerNorm",
    "keys": "bottleneck.attention.dense",
    "keys_norm": "bottleneck.attention.LayerNorm",
    "wide": "output.bottleneck.dense",
    "wide_norm": "output.bottleneck.LayerNorm",
}


_INNER = {"up": "intermediate.dense", "down": "output.dense", "mlp": "output.LayerNorm"}
_NUMBERED = re.compile(r"layers\.(\d+)\.(up|down|mlp)(\d+)(?:_norm)?\.(weight|bias)")


class _MobileBert(EncoderFamily):
    """MobileBERT numbers all feed-forward blocks of a layer but the last."""

    def stowed_name(self, name: str, prefix: str) -> str:
        if (match := _NUMBERED.fullmatch(name)) is None:
            return super().stowed_name(name, prefix)
        layer, block, number, kind = match.groups()
        return f"{prefix}{self.layers}{layer}.ffn.{int(number) - 1}.{_INNER[block]}.{kind}"


def _spec(config: Config, head: Head) -> EncoderSpec:
    if config.get("normalization_type") not in (None, "no_norm") or not config.flag("use_bottleneck", True):
        raise ModelError(f"{config.where}: MobileBERT is built with bottlenecks and without layer norms alone")
    narrow = config.flag("use_bottleneck_attention", False)
    if not narrow and not config.flag("key_query_shared_bottleneck", True):
        raise ModelError(f"{config.where}: queries and keys of the whole width fit no matrix of MobileBERT")
    hidden, positions = config.integer("hidden_size"), config.integer("max_position_embeddings")
    size, heads = config.integer("intra_bottleneck_size", 128), config.integer("num_attention_heads")
    mlp = Mlp(
        config.integer("intermediate_size"), config.choice("hidden_act", ACTIVATIONS, "relu"), gated=False, bias=True
    )
    inner = size if config.flag("use_bottleneck", True) else hidden
    if config.get("true_hidden_size") not in (None, inner):
        raise ModelError(f"{config.where}: 'true_hidden_size' other than {inner} is not built")
    config.overruled("layer_norm_eps", "key_query_shared_bottleneck")
    layer = EncoderLayer(
        EncoderAttention(heads, size // heads, (size // heads) ** -0.5),
        mlp,
        feeds=config.integer("num_feedforward_networks", 4),
        bottleneck=Bottleneck(size, keys=not narrow),
    )
    embedding = config.integer("embedding_size", 128)
    trigram = config.flag("trigram_input", True)
    return EncoderSpec(
        "mobilebert",
        config.integer("vocab_size"),
        hidden,
        positions,
        TokenEmbedding(
            embedding,
            positions,
            types=config.integer("type_vocab_size", 2),
            trigram=trigram,
            projected=trigram or embedding != hidden,
        ),
        (layer,) * config.integer("num_hidden_layers"),
        Normalization("affine", 0.0),
        head,
    )


def _classification(config: Config, labels: tuple[str, ...]) -> Classification:
    dense = "tanh" if config.flag("classifier_activation", True) else None
    return Classification(labels, dense=dense, scores=scores_of(config, labels))  # type: ignore[arg-type]


FAMILY = _MobileBert("mobilebert", ("mobilebert",), _spec, _classification, tensors=_TENSORS, body="mobilebert.")
