"""OPT and Galactica: learned positions behind two unused rows, biases everywhere (arXiv 2205.01068, 2211.09085)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer
from .base import ACTIVATIONS, LLAMA_TENSORS, Behind, Config, Family, llama_attention, llama_mlp, llama_spec, refuse


def _spec(config: Config) -> DecoderSpec:
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    bias = config.flag("enable_bias", True)
    before = config.flag("do_layer_norm_before", True) and not config.flag("_remove_final_layer_norm", False)
    refuse(config, "OPT with norms behind its blocks (opt-350m)", unless=before)
    refuse(config, "OPT with a projected embedding", unless=config.integer("word_embed_proj_dim", hidden) == hidden)
    refuse(config, "OPT with norms without weights", unless=config.flag("layer_norm_elementwise_affine", True))
    mlp = llama_mlp(
        config,
        size=config.integer("ffn_dim"),
        activation=config.choice("activation_function", ACTIVATIONS, "relu"),
        gated=False,
        bias=bias,
    )
    layer = Layer(llama_attention(config, rope=None, kv_heads=heads, qkv_bias=bias, out_bias=bias), mlp)
    return llama_spec(
        "opt",
        config,
        (layer,) * config.integer("num_hidden_layers"),
        norm="layer",
        norm_eps=1e-5,
        learned_positions=True,
        tied=config.flag("tie_word_embeddings", True),
    )


FAMILY = Family(
    "opt",
    ("opt",),
    _spec,
    {
        **LLAMA_TENSORS,
        "embed.weight": "model.decoder.embed_tokens.weight",
        "positions.weight": Behind("model.decoder.embed_positions", 2),
        "final_norm": "model.decoder.final_layer_norm",
        "attn_norm": "self_attn_layer_norm",
        "o": "self_attn.out_proj",
        "mlp_norm": "final_layer_norm",
        "up": "fc1",
        "down": "fc2",
    },
    layers="model.decoder.layers.",
)
