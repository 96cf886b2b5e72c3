"""Qwen 2 and 2.5: Llama with biases on q, k and v (arXiv 2407.10671)."""

from __future__ import annotations

from ..config import Config
from ..spec import DecoderSpec, Layer
from .base import Family, llama_attention, llama_mlp, llama_spec, windowed


def windows(config: Config) -> list[int | None]:
    """Qwen turns windows on by ``use_sliding_window``, from layer ``max_window_layers`` upwards."""
    first, on = config.get("max_window_layers") or 0, config.flag("use_sliding_window", False)
    return windowed(config, config.integer("num_hidden_layers"), lambda index: index >= first, on=on)


def _spec(config: Config) -> DecoderSpec:
    layers = tuple(
        Layer(llama_attention(config, qkv_bias=True, window=window), llama_mlp(config)) for window in windows(config)
    )
    return llama_spec("qwen2", config, layers)


FAMILY = Family("qwen2", ("qwen2",), _spec, gguf_architectures=("qwen2",))
