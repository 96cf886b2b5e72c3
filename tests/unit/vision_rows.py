"""One row for each vision-language family and variant: a tiny transformers configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .cells import spread
from .family_rows import save_tokenizer

CONTEXT, VOCAB, IMAGE_TOKEN, SIZE = 64, 96, 90, 24
TEXT = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 4,
}


@dataclass(frozen=True)
class Row:
    """A family's variant."""

    name: str
    config: str
    changes: dict[str, Any] = field(default_factory=dict)


ROWS = [
    Row("smolvlm", "SmolVLMConfig"),
    Row("smolvlm-tied", "SmolVLMConfig", {"tie_word_embeddings": True}),
    Row("idefics3", "Idefics3Config", {"scale_factor": 3}),
]


def save_vision(row: Row, folder: Path) -> Any:
    import transformers

    torch.manual_seed(3)
    values = {"text_config": TEXT, "vision_config": _VISION, "image_token_id": IMAGE_TOKEN, "scale_factor": 2}
    config = getattr(transformers, row.config)(**values | row.changes)
    network = transformers.AutoModelForImageTextToText.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    spread(network)
    network.save_pretrained(folder)
    save_tokenizer(folder, VOCAB)
    return network
