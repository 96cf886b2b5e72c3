"""Mamba and Falcon-Mamba: a selective state space in every layer, and nothing else (arXiv 2312.00752, 2410.05355)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer, Mamba
from .base import Config, Family, Fill, refuse
from .places import Place, Unsqueezed

CONTEXT = 2048  # states have no end: what the published models were trained on

TENSORS: dict[str, Place] = {
    "embed.weight": "backbone.embeddings.weight",
    "final_norm": "backbone.norm_f",
    "head": "lm_head",
    "attn_norm": "norm",
    "in": "mixer.in_proj",
    "conv.weight": Unsqueezed("mixer.conv1d", (1,)),
    "conv.bias": "mixer.conv1d.bias",
    "x": "mixer.x_proj",
    **{f"{part}_norm": Fill(1.0) for part in ("dt", "b", "c")},
    "dt": "mixer.dt_proj",
    "ssm.a_log": "mixer.A_log",
    "ssm.dt_bias": "mixer.dt_bias",
    "ssm.d": "mixer.D",
    "out_norm": "mixer.norm",
    "out": "mixer.out_proj",
}


def _spec(config: Config) -> DecoderSpec:
    refuse(config, "Mamba with another activation than SiLU", unless=config.get("hidden_act") in (None, "silu"))
    normed = config.get("model_type") == "falcon_mamba"  # without weights
    mixer = Mamba(
        config.integer("intermediate_size", config.integer("expand", 2) * config.integer("hidden_size")),
        config.integer("state_size"),
        config.integer("conv_kernel"),
        config.integer("time_step_rank"),
        bias=config.flag("use_bias", False),
        conv_bias=config.flag("use_conv_bias", True),
        normed=normed,
        eps=config.number("mixer_rms_eps", 1e-6) if normed else None,
    )
    return DecoderSpec(
        "mamba",
        config.integer("vocab_size"),
        config.integer("hidden_size"),
        CONTEXT,
        (Layer(mixer, None),) * config.integer("num_hidden_layers"),
        config.number("layer_norm_epsilon", 1e-5),
        tied=config.flag("tie_word_embeddings", True),
    )


FAMILY = Family("mamba", ("mamba", "falcon_mamba"), _spec, TENSORS, layers="backbone.layers.", prefix="backbone.")
