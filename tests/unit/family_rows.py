"""One row for each family and variant: a tiny transformers configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

CONTEXT = 64
_COMMON = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "head_dim": 16,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Row:
    """A family's variant: the transformers configuration class and what differs from the common tiny one."""

    name: str
    config: str
    changes: dict[str, Any] = field(default_factory=dict)


_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_GEMMA_ROPES = {
    "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
_LAYERS = ["sliding_attention", "sliding_attention", "full_attention"]

_GPT2 = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT, "n_inner": 96}
ROWS = [
    Row("llama", "LlamaConfig"),
    Row("llama-tied-multihead", "LlamaConfig", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    Row("llama-biases", "LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    Row("llama3-rope", "LlamaConfig", {"rope_parameters": _LLAMA3}),
    Row(
        "llama-linear-rope",
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    Row("mistral-window", "MistralConfig", {"sliding_window": 9}),
    Row("gpt2", "GPT2Config", _GPT2),
    Row("gpt2-untied-relu", "GPT2Config", _GPT2 | {"activation_function": "relu", "tie_word_embeddings": False}),
    Row("qwen2", "Qwen2Config", {"tie_word_embeddings": True}),
    Row("qwen2-window", "Qwen2Config", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    Row("qwen3", "Qwen3Config", {"head_dim": 32}),
    Row(
        "gemma3",
        "Gemma3TextConfig",
        {"sliding_window": 9, "layer_types": _LAYERS, "rope_parameters": _GEMMA_ROPES, "query_pre_attn_scalar": 24},
    ),
    Row(
        "gemma3-caps",
        "Gemma3TextConfig",
        {
            "sliding_window": 9,
            "layer_types": _LAYERS,
            "rope_parameters": _GEMMA_ROPES,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 5.0,
        },
    ),
]


def save_checkpoint(row: Row, folder: Path) -> Any:
    """Save a random checkpoint with a word-level tokenizer; returns the transformers model."""
    import transformers

    _apply_gemma3_attention_cap()
    torch.manual_seed(3)
    config = getattr(transformers, row.config)(**_COMMON | row.changes, attn_implementation="eager")
    network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            # The initial weights are too alike to show a mistake: norms at a constant, biases at zero, small matrices.
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.mul_(4)
    network.save_pretrained(folder)
    save_tokenizer(folder, config.vocab_size)
    return network


def _apply_gemma3_attention_cap() -> None:
    """transformers 5.23 reads Gemma 3's attention cap but does not pass it to the attention function: pass it."""
    from transformers.models.gemma3 import modeling_gemma3

    plain = modeling_gemma3.eager_attention_forward
    if getattr(plain, "caps", False):
        return

    def capped(module: Any, *arguments: Any, **named: Any) -> Any:
        return plain(module, *arguments, **named | {"softcap": module.attn_logit_softcapping})

    capped.caps = True  # type: ignore[attr-defined]
    modeling_gemma3.eager_attention_forward = capped


def save_tokenizer(folder: Path, size: int) -> None:
    """A word-level tokenizer of ``size`` words, w0 to w(size - 1)."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{index}": index for index in range(size)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
