"""OPT and Galactica: learned positions behind two unused rows, biases everywhere (arXiv 2205.01068, 2211.09085).

opt-350m has its norms behind residual sums, and an embedding narrower than the stream.
"""

from __future__ import annotations

from dataclasses import replace

from ..spec import DecoderSpec, Layer
from .base import ACTIVATIONS, LLAMA_TENSORS, Behind, Config, Family, llama_attention, llama_mlp, llama_spec, refuse
from .places import Places


def _spec(config: Config) -> DecoderSpec:
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    bias, before = config.flag("enable_bias", True), config.flag("do_layer_norm_before", True)
    width = config.integer("word_embed_proj_dim", hidden)
    bare = before and config.flag("_remove_final_layer_norm", False)
    refuse(config, "OPT without a final norm", unless=not bare)
    refuse(config, "OPT with norms without weights", unless=config.flag("layer_norm_elementwise_affine", True))
    mlp = llama_mlp(
        config,
        size=config.integer("ffn_dim"),
        activation=config.choice("activation_function", ACTIVATIONS, "relu"),
        gated=False,
        bias=bias,
    )
    attention = llama_attention(config, rope=None, kv_heads=heads, qkv_bias=bias, out_bias=bias)
    return llama_spec(
        "opt",
        config,
        _layers(Layer(attention, mlp), config.integer("num_hidden_layers"), before),
        norm="layer",
        norm_eps=1e-5,
        embedding=None if width == hidden else width,
        learned_positions=True,
        tied=config.flag("tie_word_embeddings", True),
    )


def _layers(layer: Layer, count: int, before: bool) -> tuple[Layer, ...]:
    """Layers with norms before their blocks, or behind residual sums (opt-350m)."""
    if before:
        return (layer,) * count
    last = replace(layer, pre_norms=False, sum_norms="first")
    return (*(replace(last, sum_norms="both"),) * (count - 1), last)


def _tensors(spec: DecoderSpec) -> Places:
    """Behind residual sums, the final norm is the last layer's."""
    last = len(spec.layers) - 1
    summed = {"final_norm": f"model.decoder.layers.{last}.final_layer_norm"} if spec.layers[last].sum_norms else {}
    return {**_TENSORS, **summed}


_TENSORS: Places = {
    **LLAMA_TENSORS,
    "embed.weight": "model.decoder.embed_tokens.weight",
    "embed_proj": "model.decoder.project_in",
    "positions.weight": Behind("model.decoder.embed_positions", 2),
    "final_norm": "model.decoder.final_layer_norm",
    "head_proj": "model.decoder.project_out",
    "attn_norm": "self_attn_layer_norm",
    "attn_sum_norm": "self_attn_layer_norm",
    "o": "self_attn.out_proj",
    "mlp_norm": "final_layer_norm",
    "mlp_sum_norm": "final_layer_norm",
    "up": "fc1",
    "down": "fc2",
}

FAMILY = Family("opt", ("opt",), _spec, _tensors, layers="model.decoder.layers.")
