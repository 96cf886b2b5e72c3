"""SmolLM3: Llama without rotary positions on every fourth layer (Hugging Face, 2025; NoPE: arXiv 2501.18795)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import Config, Family, llama_attention, llama_mlp, llama_spec, refuse, windowed


def _spec(config: Config) -> DecoderSpec:
    bias, count = config.flag("attention_bias", False), config.integer("num_hidden_layers")
    every = config.integer("no_rope_layer_interval", 4)
    turning = config.get("no_rope_layers") or [(index + 1) % every for index in range(count)]
    refuse(config, f"'no_rope_layers' for {len(turning)} of {count} layers", unless=len(turning) == count)
    on = config.flag("use_sliding_window", False)
    windows = windowed(config, count, lambda index: not turning[index], on=on)
    layers = []
    for turns, window in zip(turning, windows, strict=True):
        changes = {} if turns else {"rope": None}
        attention = llama_attention(config, qkv_bias=bias, out_bias=bias, window=window, **changes)
        layers.append(Layer(attention, llama_mlp(config, bias=config.flag("mlp_bias", False))))
    return llama_spec("smollm3", config, tuple(layers))


FAMILY = Family("smollm3", ("smollm3",), _spec)
