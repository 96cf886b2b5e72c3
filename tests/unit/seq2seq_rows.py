"""One row for each encoder-decoder family and variant: a tiny transformers configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .family_rows import save_tokenizer

CONTEXT, VOCAB = 64, 96
_T5 = {
    "vocab_size": VOCAB,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 96,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 0,
    "n_positions": CONTEXT,
}


@dataclass(frozen=True)
class Row:
    """A family's variant; ``own_head``: the head is a matrix of its own."""

    name: str
    config: str
    changes: dict[str, Any] = field(default_factory=dict)
    own_head: bool = False


ROWS = [
    Row("t5", "T5Config"),
    Row("t5-wide-heads", "T5Config", {"d_kv": 32, "num_decoder_layers": None}),
    Row("flan-t5", "T5Config", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, own_head=True),
    Row("t5-silu", "T5Config", {"feed_forward_proj": "gated-silu"}),
    Row("mt5", "MT5Config", {"tie_word_embeddings": False}, own_head=True),
]


def save_seq2seq(row: Row, folder: Path) -> Any:
    """Save a random checkpoint with a word-level tokenizer; returns the transformers model."""
    import transformers

    torch.manual_seed(3)
    config = getattr(transformers, row.config)(**_T5 | row.changes, attn_implementation="eager")
    network = transformers.AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        if row.own_head:  # as in published checkpoints; transformers 5 ties new ones
            network.lm_head.weight = torch.nn.Parameter(torch.randn(VOCAB, 64))
        for name, parameter in network.named_parameters():
            # The initial weights are too alike to show a mistake: norms at a constant, weak positions.
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            elif "relative" in name:
                parameter.mul_(8)
    network.save_pretrained(folder)
    save_tokenizer(folder, config.vocab_size)
    return network
