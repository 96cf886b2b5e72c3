"""MobileLLM: Llama whose blocks run twice each where layers are shared (arXiv 2402.14905)."""

from __future__ import annotations

from dataclasses import replace

from ..spec import DecoderSpec, Layer
from ..weights import Stowed
from .base import Config, Family, llama_attention, llama_mlp, llama_spec


def _spec(config: Config) -> DecoderSpec:
    layer = Layer(llama_attention(config), llama_mlp(config))
    repeats = 2 if config.flag("layer_sharing", False) else 1
    return llama_spec(
        "mobilellm",
        config,
        (layer,) * config.integer("num_hidden_layers") * repeats,
        tied=config.flag(config.key("share_embedding", "tie_word_embeddings"), False),
        repeats=repeats,
    )


class _MobileLlm(Family):
    """A shared block is stored once, and read for each of the layers that it is."""

    def transformers_places(self, spec: DecoderSpec) -> dict[str, Stowed]:
        places = super().transformers_places(spec)
        return {name: replace(place, name=_block(place.name, spec.repeats)) for name, place in places.items()}


def _block(name: str, repeats: int) -> str:
    if not name.startswith("model.layers."):
        return name
    _, _, index, rest = name.split(".", 3)
    return f"model.layers.{int(index) // repeats}.{rest}"


FAMILY = _MobileLlm("mobilellm", ("mobilellm",), _spec)
