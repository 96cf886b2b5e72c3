"""Gemma 3, text: local and global layers with two RoPE bases, sandwich norms, scaled embedding (arXiv 2503.19786)."""

from __future__ import annotations

from typing import Any

from ..spec import DecoderSpec, Rope
from .base import Config, Family, both_ways, refuse, windowed
from .gemma2 import HEAD_DIM, SANDWICH, gguf_layer_types, gguf_query_scale, sandwich
from .ropes import rope_scaling

_LOCAL_THETA = 10000.0
_LARGEST = 62  # layers of the 27B, whose queries are scaled otherwise
_PATTERN = 6  # every sixth layer is global, when the configuration does not say


def _ropes(config: Config, head_dim: int) -> dict[bool, Rope]:
    """The rotary embedding of global (False) and local (True) layers; ``rope_scaling`` changes that of global ones."""
    nested, scaling = config.section("rope_parameters"), config.section("rope_scaling")
    wide = nested.section("full_attention").changed(**scaling.values)
    local = nested.section("sliding_attention")
    older = scaling.get("type") is not None and scaling.get("rope_type") is None
    refuse(
        config,
        "Gemma 3 with 'type' in 'rope_scaling', where transformers looks for 'rope_type' alone,",
        unless=not older,
    )
    whole = all(section.get("truncate") is not False for section in (wide, local))
    refuse(config, "Gemma 3 with 'truncate' false, which transformers passes over in nested sections,", unless=whole)
    ropes = {}
    for section, is_local, base in (
        (wide, False, config.number("rope_theta", 1e6)),
        (local, True, config.number("rope_local_base_freq", _LOCAL_THETA)),
    ):
        theta = section.number("rope_theta", base)
        ropes[is_local] = Rope(theta, rope_scaling(section, config, theta, head_dim))
    scaling.overruled(*(key for key in scaling.values if config.looked_at(f"rope_parameters.full_attention.{key}")))
    return ropes


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
