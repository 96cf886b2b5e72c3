"""Mamba-2: a state space with one decay a head in every layer (arXiv 2405.21060)."""

from __future__ import annotations

from ..spec import DecoderSpec, Layer, Mamba2
from .base import Config, Family, refuse
from .mamba import CONTEXT, TENSORS

_NO_LIMIT = 1e6  # a configuration's infinity is a float, or a word of transformers' own


def step_limits(config: Config) -> tuple[float, float | None]:
    """The least of Mamba-2's step sizes, and the largest (None: no limit)."""
    lowest, highest = config.get("time_step_limit") or (0.0, None)
    return float(lowest), float(highest) if isinstance(highest, (int, float)) and highest < _NO_LIMIT else None


def _spec(config: Config) -> DecoderSpec:
    refuse(config, "Mamba-2 with another activation than SiLU", unless=config.get("hidden_act") in (None, "silu"))
    hidden = config.integer("hidden_size")
    least, most = step_limits(config)
    inner, heads = config.integer("expand", 2) * hidden, config.integer("num_heads")
    size = config.integer("head_dim", inner // heads)
    refuse(config, f"{heads} heads of {size} in {inner} channels", unless=size * heads == inner)
    mixer = Mamba2(
        inner,
        config.integer("state_size"),
        config.integer("conv_kernel"),
        heads,
        config.integer("n_groups"),
        bias=config.flag("use_bias", False),
        conv_bias=config.flag("use_conv_bias", True),
        least_step=least,
        most_step=most,
    )
    return DecoderSpec(
        "mamba2",
        config.integer("vocab_size"),
        hidden,
        CONTEXT,
        (Layer(mixer, None),) * config.integer("num_hidden_layers"),
        config.number("layer_norm_epsilon", 1e-5),
        tied=config.flag("tie_word_embeddings", False),
    )


FAMILY = Family("mamba2", ("mamba2",), _spec, TENSORS, layers="backbone.layers.", prefix="backbone.")
