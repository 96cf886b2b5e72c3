"""Qwen 2 and 2.5: Llama with biases on q, k and v (arXiv 2407.10671)."""

from __future__ import annotations

from ..config import Config
from ..spec import DecoderSpec, Layer
from .base import Family, llama_attention, llama_mlp, llama_spec, windowed


def windows(config: Config) -> list[int | None]:
    """Qwen turns windows on by ``use_sliding_window``, from layer ``max_window_layers`` upwards."""
    count = config.integer("num_hidden_layers")
    if not config.flag("use_sliding_window", False):
        return [None] * count
    if config.get("layer_types"):
        return windowed(config, count)
    first, window = config.get("max_window_layers") or 0, config.integer("sliding_window")
    return [window if index >= first else None for index in range(count)]


def _spec(config: Config) -> DecoderSpec:
    layers = tuple(
        Layer(llama_attention(config, qkv_bias=True, window=window), llama_mlp(config)) for window in windows(config)
    )
    return llama_spec("qwen2", config, layers)


FAMILY = Family("qwen2", ("qwen2",), _spec, gguf_architectures=("qwen2",))
