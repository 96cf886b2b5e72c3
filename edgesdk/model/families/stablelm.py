"""StableLM 2 and 3B: layer norms, in 12B on heads too, rotary positions on a quarter of each (arXiv 2402.17834)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import LLAMA_TENSORS, Config, Family, Fill, llama_attention, llama_mlp, llama_spec, rope


def _spec(config: Config) -> DecoderSpec:
    turning = rope(config, config.integer("hidden_size") // config.integer("num_attention_heads"), default_part=0.25)
    layer = Layer(
        llama_attention(
            config,
            qkv_bias=config.flag("use_qkv_bias", False),
            rope=turning,
            qk_norm="layer" if config.flag("qk_layernorm", False) else None,
        ),
        llama_mlp(config),
        residual="shared" if config.flag("use_parallel_residual", False) else "serial",
    )
    layers = (layer,) * config.integer("num_hidden_layers")
    return llama_spec("stablelm", config, layers, norm="layer", norm_eps=config.number("layer_norm_eps", 1e-5))


_WEIGHTS = {f"heads.*.{part}_norm.weight": f"self_attn.{part}_layernorm.norms.*.weight" for part in "qk"}
_ZEROS = {f"heads.*.{part}_norm.bias": Fill(0.0) for part in "qk"}

FAMILY = Family("stablelm", ("stablelm",), _spec, {**LLAMA_TENSORS, **_WEIGHTS, **_ZEROS})
