"""Zamba: Mamba in every layer, and one transformer block that some of them share (arXiv 2405.16712).

A hybrid layer of the checkpoint is two here: the block, aside of the stream, and the Mamba layer that sees what the
block gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..spec import Attention, DecoderSpec, Layer, Mamba, Mixer
from ..weights import Heads, Stowed
from .base import ACTIVATIONS, LLAMA_TENSORS, Config, Family, llama_attention, llama_mlp, llama_spec, refuse
from .places import Blocks, Place, Unsqueezed

#: What the tables of both generations share; ``USE`` stands for the number of a shared block's use.
TENSORS: dict[str, Place] = {
    **LLAMA_TENSORS,
    "final_norm": "model.final_layernorm",
    "in": "mamba.in_proj",
    "conv.weight": Unsqueezed("mamba.conv1d", (1,)),
    "conv.bias": "mamba.conv1d.bias",
    "out": "mamba.out_proj",
    "mlp_norm": "pre_ff_layernorm",
    "gate": "feed_forward.gate_proj",
    "up": "feed_forward.up_proj",
    "down": "feed_forward.down_proj",
    "aside": "linear",
}


@dataclass(frozen=True)
class SharedBlocks(Family):
    """A family whose hybrid layers share transformer blocks, which take turns; a layer calls its block ``module``.

    The checkpoint has each block once, under the number of the first layer that uses it.
    """

    module: str = "shared_transf"

    def transformers_places(self, spec: DecoderSpec) -> dict[str, Stowed]:
        places, own = super().transformers_places(spec), _numbers(spec)
        asides = [number for number, layer in zip(own, spec.layers, strict=True) if layer.residual == "aside"]
        blocks = -(-len(asides) // spec.repeats)
        found = {}
        for name, place in places.items():
            if not name.startswith("layers."):
                found[name] = place
                continue
            index = int(name.split(".")[1])
            rest = place.name.removeprefix(f"{self.layers}{index}.")
            number, layer = own[index], spec.layers[index]
            if layer.residual == "aside" and rest != "linear.weight":
                use = asides.index(number)
                number, rest = asides[use % blocks], f"{self.module}.{rest.replace('USE', str(use))}"
            elif layer.residual != "aside" and number in asides:
                rest = f"mamba_decoder.{rest}"
            found[name] = replace(place, name=f"{self.layers}{number}.{rest}")
        return found


def _numbers(spec: DecoderSpec) -> list[int]:
    """Which layer of the checkpoint each layer belongs to."""
    found, number = [], 0
    for layer in spec.layers:
        found.append(number)
        number += layer.residual != "aside"
    return found


def with_shared_blocks(
    family: str, config: Config, mixer: Mixer, block: Layer, kinds: list[str], blocks: int
) -> DecoderSpec:
    """A decoder of ``mixer`` alone, where ``blocks`` times ``block`` take turns aside of the layers that are hybrid."""
    uses, count = kinds.count("hybrid"), config.integer("num_hidden_layers")
    refuse(config, f"kinds of {len(kinds)} of {count} layers", unless=len(kinds) == count)
    others = set(kinds) - {"hybrid", "mamba", "linear_attention"}
    refuse(config, f"a layer of kind {', '.join(sorted(others))}", unless=not others)
    blocks = max(1, min(blocks, uses))
    repeats = max(1, -(-uses // blocks))
    refuse(config, f"{blocks} blocks at {uses} layers", unless=uses == 0 or -(-uses // repeats) == blocks)
    layers = [layer for kind in kinds for layer in ([block] if kind == "hybrid" else []) + [Layer(mixer, None)]]
    return llama_spec(
        family,
        config,
        tuple(layers),
        norm_eps=config.number("rms_norm_eps", 1e-5),
        tied=config.flag("tie_word_embeddings", True),
        repeats=repeats,
    )


def aside_attention(config: Config, **changes: Any) -> Attention:
    """Attention over the stream and the embedding beside it."""
    heads = config.integer("num_attention_heads")
    size = config.integer("attention_head_dim", 2 * config.integer("hidden_size") // heads)
    return llama_attention(config, head_dim=size, scale=(size / 2) ** -0.5, **changes)


def _spec(config: Config) -> DecoderSpec:
    hidden = config.integer("hidden_size")
    width = config.integer("attention_hidden_size", 2 * hidden)
    refuse(config, f"attention over {width} channels", unless=width == 2 * hidden)
    refuse(config, "Mamba with another activation than SiLU", unless=config.get("hidden_mamba_act") in (None, "silu"))
    rank = config.get("mamba_dt_rank")
    mamba = Mamba(
        config.integer("mamba_expand", 2) * hidden,
        config.integer("mamba_d_state", 16),
        config.integer("mamba_d_conv", 4),
        -(-hidden // 16) if rank == "auto" else config.integer("mamba_dt_rank", -(-hidden // 16)),
        bias=config.flag("mamba_proj_bias", False),
        conv_bias=config.flag("mamba_conv_bias", True),
        heads=config.integer("n_mamba_heads", 2),
    )
    mlp = llama_mlp(config, activation=config.choice("hidden_act", ACTIVATIONS, "gelu"))
    block = Layer(aside_attention(config, rope=None), mlp, residual="aside")
    kinds = config.get(config.key("layers_block_type", "layer_types"))
    if kinds is None:
        kinds = _kinds(config)
    config.overruled("attn_layer_period", "attn_layer_offset")
    return with_shared_blocks("zamba", config, mamba, block, kinds, 1)


def _kinds(config: Config) -> list[str]:
    """What a configuration means that does not say: the third layer, and then one in a period."""
    period, offset = config.integer("attn_layer_period", 6), config.integer("attn_layer_offset", 4)
    later = range(config.integer("num_hidden_layers") - 3)
    return ["mamba", "mamba", "hybrid", *("hybrid" if at % period == offset else "mamba" for at in later)]


def _tensors(spec: DecoderSpec) -> dict[str, Place]:
    heads = next(layer.mixer.heads for layer in spec.layers if isinstance(layer.mixer, Mamba))
    head, number = ("heads.*.", "*") if heads > 1 else ("", "0")
    return {
        **TENSORS,
        f"{head}x.weight": f"mamba.x_proj_weight[{number}]",
        f"{head}dt.weight": f"mamba.dt_proj_weight[{number}]",
        f"{head}dt.bias": f"mamba.dt_proj_bias[{number}]",
        "ssm.a_log": Blocks("mamba.A_log", heads),
        "ssm.d": Blocks("mamba.D", heads),
    }


class _Zamba(SharedBlocks):
    """The first matrix of Mamba has the rows of its two halves in turns."""

    def transformers_places(self, spec: DecoderSpec) -> dict[str, Stowed]:
        places, shapes = super().transformers_places(spec), spec.tensors()
        turns = {name: Heads(1, shapes[name][0], True) for name in places if name.split(".")[2:3] == ["in"]}
        return {name: replace(place, heads=turns.get(name, place.heads)) for name, place in places.items()}


FAMILY = _Zamba("zamba", ("zamba",), _spec, _tensors)
