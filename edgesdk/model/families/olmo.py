"""OLMo 1: layer norms without weights (arXiv 2402.00838)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import LLAMA_TENSORS, Config, Family, Fill, llama_attention, llama_mlp, llama_spec

_ONES = {f"{name}_norm.weight": Fill(1.0) for name in ("attn", "mlp", "final")}
_ZEROS = {f"{name}_norm.bias": Fill(0.0) for name in ("attn", "mlp", "final")}


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    attention = llama_attention(config, qkv_bias=bias, out_bias=bias, clip=config.optional("clip_qkv"))
    layer = Layer(attention, llama_mlp(config))
    return llama_spec("olmo", config, (layer,) * config.integer("num_hidden_layers"), norm="layer", norm_eps=1e-5)


FAMILY = Family("olmo", ("olmo",), _spec, {**LLAMA_TENSORS, **_ONES, **_ZEROS})
