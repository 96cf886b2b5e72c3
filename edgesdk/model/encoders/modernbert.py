"""ModernBERT: rotary positions, local and global layers, gated feed-forward blocks, no biases (arXiv 2412.13663)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import Config
from ..encoder_spec import (
    Classification,
    EncoderAttention,
    EncoderLayer,
    EncoderSpec,
    Head,
    Normalization,
    TokenEmbedding,
)
from ..families.base import ACTIVATIONS
from ..families.ropes import rope_scaling
from ..spec import Mlp, Rope
from ..weights import Stowed
from .base import EncoderFamily, attention_of, part, scores_of

_TENSORS = {
    "embed.weight": "embeddings.tok_embeddings.weight",
    "embed_norm": "embeddings.norm",
    "q": "attn.Wqkv",
    "k": "attn.Wqkv",
    "v": "attn.Wqkv",
    "o": "attn.Wo",
    "attn_norm": "attn_norm",
    "gate": "mlp.Wi",
    "up": "mlp.Wi",
    "down": "mlp.Wo",
    "mlp_norm": "mlp_norm",
    "final_norm": "final_norm",
}
_STACKED = {"q": (0, 3), "k": (1, 3), "v": (2, 3), "gate": (0, 2), "up": (1, 2)}  # which of how many


class _ModernBert(EncoderFamily):
    """ModernBERT stacks queries, keys and values, and the gate on what it gates."""

    def place(
        self, name: str, shape: tuple[int, ...], spec: EncoderSpec, prefix: str, names: Mapping[str, Any]
    ) -> Stowed:
        stowed, stem = self.stowed_name(name, prefix), name.split(".")[-2]
        if not name.startswith("layers.") or stem not in _STACKED:
            return Stowed(stowed)
        index, count = _STACKED[stem]
        rows = shape[0]
        return Stowed(stowed, shape=(count * rows, *shape[1:]), rows=part(index * rows, (index + 1) * rows))


def _rope(config: Config, local: bool) -> Rope:
    """The rotary embedding of local or global layers: in ``rope_parameters``, before transformers 5 in two keys."""
    kind, older = ("sliding_attention", "local_rope_theta") if local else ("full_attention", "global_rope_theta")
    scaling = config.section("rope_parameters").section(kind)
    default = config.number(older, 10000.0 if local else 160000.0)
    theta = scaling.number("rope_theta", default)
    head_dim = config.integer("hidden_size") // config.integer("num_attention_heads")
    return Rope(theta, rope_scaling(scaling, config, theta, head_dim))


def _spec(config: Config, head: Head) -> EncoderSpec:
    count, every = config.integer("num_hidden_layers"), config.integer("global_attn_every_n_layers", 3)
    kinds = config.get("layer_types") or ["sliding_attention" if i % every else "full_attention" for i in range(count)]
    window, bias = config.integer("local_attention", 128) // 2, config.flag("attention_bias", False)
    mlp = Mlp(
        config.integer("intermediate_size"),
        config.choice("hidden_activation", ACTIVATIONS, "gelu"),
        bias=config.flag("mlp_bias", False),
    )

    def attention(local: bool) -> EncoderAttention:
        reach = window if local else None
        return attention_of(
            config, "num_attention_heads", "hidden_size", bias=bias, rope=_rope(config, local), window=reach
        )

    layers = tuple(
        EncoderLayer(attention(kind == "sliding_attention"), mlp, pre_norm=True, attn_norm=index > 0)
        for index, kind in enumerate(kinds)
    )
    return EncoderSpec(
        "modernbert",
        config.integer("vocab_size"),
        config.integer("hidden_size"),
        config.integer("max_position_embeddings"),
        TokenEmbedding(config.integer("hidden_size")),
        layers,
        Normalization("layer", config.number("norm_eps", 1e-5), config.flag("norm_bias", False)),
        head,
        final_norm=True,
    )


def _classification(config: Config, labels: tuple[str, ...]) -> Classification:
    return Classification(
        labels,
        config.choice("classifier_pooling", {"cls": "cls", "mean": "mean"}, "cls"),
        dense=config.choice("classifier_activation", ACTIVATIONS, "gelu"),
        dense_bias=config.flag("classifier_bias", False),
        normed=True,
        scores=scores_of(config, labels),
    )


FAMILY = _ModernBert(
    "modernbert",
    ("modernbert",),
    _spec,
    _classification,
    tensors=_TENSORS,
    outside={"dense": "head.dense", "dense_norm": "head.norm", "classifier": "classifier"},
    body="model.",
    layers="layers.",
)
