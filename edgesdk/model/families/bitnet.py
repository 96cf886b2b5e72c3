"""BitNet b1.58: ternary weights, squared ReLU, norms before the last matrix of each block (arXiv 2402.17764)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import LLAMA_TENSORS, Config, Family, llama_attention, llama_mlp, llama_spec


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("attention_bias", False)
    layer = Layer(
        llama_attention(config, qkv_bias=bias, out_bias=bias, sub_norm=True),
        llama_mlp(config, sub_norm=True),
    )
    return llama_spec("bitnet", config, (layer,) * config.integer("num_hidden_layers"))


FAMILY = Family(
    "bitnet",
    ("bitnet",),
    _spec,
    {**LLAMA_TENSORS, "o_norm": "self_attn.attn_sub_norm", "down_norm": "mlp.ffn_sub_norm"},
)
