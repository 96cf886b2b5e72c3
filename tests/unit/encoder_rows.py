"""One row for each encoder family and variant: a tiny transformers configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .cells import spread
from .family_rows import save_tokenizer

CONTEXT, VOCAB = 64, 96
LABELS = {0: "calm", 1: "glad", 2: "sad"}
_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 0,
}
_DISTIL = {"vocab_size": VOCAB, "dim": 64, "hidden_dim": 96, "n_layers": 3, "n_heads": 4}
_MOBILE = _SIZES | {"embedding_size": 32, "intra_bottleneck_size": 32, "num_feedforward_networks": 3}
_MODERN_IDS = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
_MODERN = _SIZES | _MODERN_IDS | {"local_attention": 12, "num_hidden_layers": 4}
_CLASSIFIES = "AutoModelForSequenceClassification"


@dataclass(frozen=True)
class Row:
    """A family's variant.

    Attributes:
        name: of the row.
        config: the transformers configuration class.
        values: what it is made with.
        auto: the class that makes the network.
        modules: sentence-transformers' pooling (``mean`` or ``cls``) and whether it normalizes; () for a plain folder.
    """

    name: str
    config: str
    values: dict[str, Any] = field(default_factory=lambda: _SIZES)
    auto: str = "AutoModel"
    modules: tuple[str, bool] | None = None


ROWS = [
    Row("bert", "BertConfig"),
    Row("bert-sentences", "BertConfig", modules=("mean", True)),
    Row("bert-cls", "BertConfig", _SIZES | {"hidden_act": "relu"}, modules=("cls", False)),
    Row("bert-relu2", "BertConfig", _SIZES | {"hidden_act": "relu2"}),
    Row("bert-labels", "BertConfig", auto=_CLASSIFIES),
    Row("tinybert", "BertConfig", _SIZES | {"hidden_size": 78, "num_attention_heads": 3, "intermediate_size": 120}),
    Row("distilbert", "DistilBertConfig", _DISTIL | {"max_position_embeddings": CONTEXT}),
    Row("distilbert-labels", "DistilBertConfig", _DISTIL | {"max_position_embeddings": CONTEXT}, auto=_CLASSIFIES),
    Row("roberta", "RobertaConfig", _SIZES | {"max_position_embeddings": CONTEXT + 2, "pad_token_id": 1}),
    Row("roberta-labels", "RobertaConfig", _SIZES | {"max_position_embeddings": CONTEXT + 2}, auto=_CLASSIFIES),
    Row("mobilebert", "MobileBertConfig", _MOBILE),
    Row("mobilebert-labels", "MobileBertConfig", _MOBILE, auto=_CLASSIFIES),
    Row("mobilebert-narrow", "MobileBertConfig", _MOBILE | {"use_bottleneck_attention": True, "trigram_input": False}),
    Row("modernbert", "ModernBertConfig", _MODERN),
    Row("modernbert-labels", "ModernBertConfig", _MODERN | {"classifier_pooling": "mean"}, auto=_CLASSIFIES),
    Row("modernbert-biases", "ModernBertConfig", _MODERN | {"norm_bias": True, "attention_bias": True}),
]


def save_encoder(row: Row, folder: Path) -> Any:
    """Save a random checkpoint with a word-level tokenizer; returns the transformers model."""
    import transformers

    torch.manual_seed(3)
    more = {"id2label": LABELS, "label2id": {v: k for k, v in LABELS.items()}} if row.auto == _CLASSIFIES else {}
    config = getattr(transformers, row.config)(**row.values, **more, attn_implementation="eager")
    network = getattr(transformers, row.auto).from_config(config, dtype=torch.float32).eval()
    spread(network)
    network.save_pretrained(folder)
    save_tokenizer(folder, config.vocab_size)
    if row.modules is not None:
        _save_modules(folder, *row.modules)
    return network


def _save_modules(folder: Path, pooling: str, unit: bool) -> None:
    """What sentence-transformers writes beside a model."""
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), *([("Normalize", "2_Normalize")] if unit else [])]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes), encoding="utf-8")
