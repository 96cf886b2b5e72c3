"""Phi-3, 3.5 and 4-mini: Llama with fused matrices, LongRoPE and a window (arXiv 2404.14219, 2503.01743)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import LLAMA_TENSORS, QKV, Config, Family, Fused, llama_attention, llama_mlp, llama_spec, refuse, windowed
from .ropes import rope_section

_QKV = Fused("self_attn.qkv_proj", QKV)
_GATED = Fused("mlp.gate_up_proj", ("gate", "up"))


def _spec(config: Config) -> DecoderSpec:
    kind = rope_section(config).get("rope_type") or rope_section(config).get("type") or "default"
    refuse(config, f"Phi-3 with rope type '{kind}'", unless=kind in ("default", "longrope", "su"))
    windows = windowed(config, config.integer("num_hidden_layers"))
    layers = tuple(Layer(llama_attention(config, window=window), llama_mlp(config)) for window in windows)
    return llama_spec("phi3", config, layers)


FAMILY = Family(
    "phi3",
    ("phi3",),
    _spec,
    {**LLAMA_TENSORS, "q": _QKV, "k": _QKV, "v": _QKV, "gate": _GATED, "up": _GATED},
)
