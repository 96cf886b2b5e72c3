"""``genai_config.json``: what onnxruntime-genai reads beside the model (its docs: reference/config)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesdk.model.spec import Attention

from .names import MODEL_FILE

if TYPE_CHECKING:
    from edgesdk.model import Model

#: Our family to the model type that onnxruntime-genai dispatches on.
_TYPES = {"llama": "llama", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}


def uniform(model: Model) -> bool:
    """Whether all layers have caches of the same shape and nothing else, as onnxruntime-genai takes for granted."""
    caches = {
        (layer.mixer.kv_heads, layer.mixer.head_dim) if isinstance(layer.mixer, Attention) else None
        for layer in model.spec.layers
    }
    return len(caches) == 1 and None not in caches


def genai_config(model: Model, context: int) -> dict[str, Any]:
    """The configuration for the program that the converter writes for ``model``, whose layers are :func:`uniform`."""
    spec = model.spec
    attention = spec.layers[0].attention
    special = model.tokenizer.special if model.tokenizer else None
    stop = list(special.stop) if special else []
    pad = special.pad if special and special.pad is not None else (stop[0] if stop else 0)
    bos = special.bos if special and special.bos is not None else (stop[0] if stop else 0)
    return {
        "model": {
            "bos_token_id": bos,
            "context_length": context,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": MODEL_FILE,
                "head_size": attention.head_dim,
                "hidden_size": spec.hidden,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                "num_attention_heads": attention.heads,
                "num_hidden_layers": len(spec.layers),
                "num_key_value_heads": attention.kv_heads,
            },
            "eos_token_id": stop if len(stop) > 1 else (stop[0] if stop else 0),
            "pad_token_id": pad,
            "type": _TYPES.get(spec.family, "llama"),
            "vocab_size": spec.vocab,
        },
        "search": {
            "do_sample": False,
            "max_length": context,
            "num_beams": 1,
            "past_present_share_buffer": True,
            "temperature": 1.0,
            "top_k": 1,
            "top_p": 1.0,
        },
    }
