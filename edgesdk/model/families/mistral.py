"""Mistral 7B and its kin: Llama with a sliding window on every layer (arXiv 2310.06825).

GGUF files of Mistral say ``llama`` and carry no window; they open as that family.
"""

from __future__ import annotations

from ..config import Config
from ..spec import DecoderSpec, Layer
from .base import Family, llama_attention, llama_mlp, llama_spec, windowed


def _spec(config: Config) -> DecoderSpec:
    windows = windowed(config, config.integer("num_hidden_layers"))
    layers = tuple(Layer(llama_attention(config, window=window), llama_mlp(config)) for window in windows)
    return llama_spec("mistral", config, layers)


FAMILY = Family("mistral", ("mistral",), _spec)
