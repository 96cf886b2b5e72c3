"""Gemma 3, text: local and global layers with two RoPE bases, sandwich norms, scaled embedding (arXiv 2503.19786)."""

from __future__ import annotations

from typing import Any

from ..spec import DecoderSpec, Rope
from .base import Config, Family, both_ways, rope, windowed
from .gemma2 import HEAD_DIM, SANDWICH, gguf_layer_types, gguf_query_scale, sandwich
from .ropes import rope_scaling

_LOCAL_THETA = 10000.0
_LARGEST = 62  # layers of the 27B, whose queries are scaled otherwise
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
    pattern = config.integer("sliding_window_pattern", _PATTERN)
    return windowed(config, count, lambda index: (index + 1) % pattern != 0)


def _spec(config: Config) -> DecoderSpec:
    ropes = _ropes(config, config.integer("head_dim", HEAD_DIM))
    windows = _windows(config, config.integer("num_hidden_layers"))
    both = config.flag("use_bidirectional_attention", False)
    if both:  # EmbeddingGemma: a window reaches half as far, in both directions
        windows = [None if window is None else window // 2 + 1 for window in windows]
    spec = sandwich("gemma3", config, windows, ropes, qk_norm="head")
    return both_ways(spec) if both else spec


def _from_gguf(own: Config) -> dict[str, Any]:
    return {
        "rope_local_base_freq": own.number("rope.freq_base_swa", _LOCAL_THETA),
        "sliding_window": own.get("attention.sliding_window"),
        "layer_types": gguf_layer_types(own, _PATTERN),
        "final_logit_softcapping": own.get("final_logit_softcapping"),
        "query_pre_attn_scalar": gguf_query_scale(own, _LARGEST),
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
