"""Gemma 3, text: local and global layers with two RoPE bases, sandwich norms, scaled embedding (arXiv 2503.19786)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..spec import DecoderSpec, Rope
from .base import Config, Family, rope, windowed
from .gemma2 import HEAD_DIM, SANDWICH, sandwich
from .ropes import rope_scaling

_LOCAL_THETA = 10000.0
_PATTERN = 6  # every sixth layer is global, when the configuration does not say


def _ropes(config: Config, head_dim: int) -> dict[bool, Rope]:
    """The rotary embedding of global (False) and local (True) layers."""
    nested = config.section("rope_parameters")
    if "full_attention" in nested.values:
        found = {}
        for local, key in ((False, "full_attention"), (True, "sliding_attention")):
            part = nested.section(key)
            theta = part.number("rope_theta", _LOCAL_THETA if local else 1e6)
            found[local] = Rope(theta, rope_scaling(part, config, theta, head_dim))
        return found
    return {False: rope(config, head_dim, 1e6), True: Rope(config.number("rope_local_base_freq", _LOCAL_THETA))}


def _windows(config: Config, count: int) -> list[int | None]:
    if config.get("layer_types"):
        return windowed(config, count)
    window = config.integer("sliding_window")
    pattern = config.integer("sliding_window_pattern", _PATTERN)
    return [window if (index + 1) % pattern else None for index in range(count)]


def _spec(config: Config) -> DecoderSpec:
    ropes = _ropes(config, config.integer("head_dim", HEAD_DIM))
    windows = _windows(config, config.integer("num_hidden_layers"))
    return sandwich("gemma3", config, windows, ropes, qk_norm="head")


def _from_gguf(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_local_base_freq": metadata.get("rope.freq_base_swa", _LOCAL_THETA),
        "tie_word_embeddings": True,
    }


FAMILY = Family(
    "gemma3",
    ("gemma3_text",),
    _spec,
    SANDWICH,
    norm_offset=1.0,
    gguf_architectures=("gemma3",),
    gguf_config=_from_gguf,
)
