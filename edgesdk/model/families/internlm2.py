"""InternLM2: Llama with queries, key and value of each group in one matrix (arXiv 2403.17297)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import QKV, Config, Family, Fused, llama_attention, llama_mlp, llama_spec

_QKV = Fused("attention.wqkv", QKV, grouped="kv_heads")


def _spec(config: Config) -> DecoderSpec:
    bias = config.flag("bias", False)
    layer = Layer(llama_attention(config, qkv_bias=bias, out_bias=bias), llama_mlp(config))
    return llama_spec("internlm2", config, (layer,) * config.integer("num_hidden_layers"))


FAMILY = Family(
    "internlm2",
    ("internlm2",),
    _spec,
    {
        "embed.weight": "model.tok_embeddings.weight",
        "final_norm": "model.norm",
        "head": "output",
        "attn_norm": "attention_norm",
        "q": _QKV,
        "k": _QKV,
        "v": _QKV,
        "o": "attention.wo",
        "mlp_norm": "ffn_norm",
        "gate": "feed_forward.w1",
        "up": "feed_forward.w3",
        "down": "feed_forward.w2",
    },
)
