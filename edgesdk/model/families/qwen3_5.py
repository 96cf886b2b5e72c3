"""Qwen 3.5, text: Qwen3-Next's layers with dense blocks or experts, alone or inside of a model that sees."""

from __future__ import annotations

from ..spec import DecoderSpec, FeedForward
from .base import Config, Family, Fused, llama_mlp, llama_spec
from .qwen3_next import GATED, gated_layers
from .qwen_moe import FUSED, qwen_ffn, qwen_moe


def _spec(config: Config) -> DecoderSpec:
    text, tied = config, config.flag("tie_word_embeddings", False)
    if config.values.get("text_config") is not None:
        text = config.section("text_config")
        tied = tied or text.flag("tie_word_embeddings", False)
    count = text.integer("num_hidden_layers")
    ffns: list[FeedForward]
    if text.get("num_experts"):
        moe = qwen_moe(text, shared=True, chosen=True)
        ffns = [qwen_ffn(text, moe, index) for index in range(count)]
    else:
        ffns = [llama_mlp(text)] * count
    return llama_spec("qwen3_5", text, gated_layers(text, ffns), tied=tied)


_QKV = Fused("linear_attn.in_proj_qkv", ("q", "k", "v"))

FAMILY = Family(
    "qwen3_5",
    ("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"),
    _spec,
    {
        **GATED,
        **{f"delta.{part}": _QKV for part in "qkv"},
        "delta.z": "linear_attn.in_proj_z",
        "delta.decay": "linear_attn.in_proj_a",
        "delta.beta": "linear_attn.in_proj_b",
    },
    FUSED,
    norm_offset=1.0,
    inside="model.language_model.",
)
