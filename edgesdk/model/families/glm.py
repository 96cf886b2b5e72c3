"""GLM-4 (and ChatGLM in transformers' own form): interleaved rotary pairs on half of each head (arXiv 2406.12793).

GLM-4-0414 (``glm4``) adds a norm behind each block.
"""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import LLAMA_TENSORS, Config, Family, Fused, llama_attention, llama_mlp, llama_spec, rope
from .places import Place, Places

_GATED = Fused("mlp.gate_up_proj", ("gate", "up"))


def _spec(config: Config) -> DecoderSpec:
    size = config.integer("head_dim", config.integer("hidden_size") // config.integer("num_attention_heads"))
    bias = config.flag("attention_bias", False)
    layer = Layer(
        llama_attention(config, head_dim=size, qkv_bias=bias, rope=rope(config, size, default_part=0.5)),
        llama_mlp(config),
        post_norms=config.get("model_type") == "glm4",
    )
    return llama_spec("glm", config, (layer,) * config.integer("num_hidden_layers"))


def _tensors(spec: DecoderSpec) -> Places:
    table: dict[str, Place] = {**LLAMA_TENSORS, "gate": _GATED, "up": _GATED}
    if spec.layers[0].post_norms:
        table |= {"post_attn_norm": "post_self_attn_layernorm", "post_mlp_norm": "post_mlp_layernorm"}
    return table


FAMILY = Family("glm", ("glm", "glm4"), _spec, _tensors, interleaved=True)
