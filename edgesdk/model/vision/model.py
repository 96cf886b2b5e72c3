"""An opened vision-language model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import ModelError
from .. import Model, Origin, Tokenizer, Weights
from ..config import Config
from ..families import FAMILIES
from ..safetensors_file import SafetensorsFolder
from ..unread import refuse_unread
from ..vision_spec import VisionSpec
from ..weights import CheckpointWeights, Stowed
from . import VISIONS
from .base import VisionFamily


@dataclass(frozen=True)
class VisionModel:
    """A trained vision-language model: its architecture as data, its weights, its tokenizer."""

    spec: VisionSpec
    weights: Weights
    tokenizer: Tokenizer | None = None
    origin: Origin = field(default_factory=lambda: Origin("unnamed"))

    @property
    def compression(self) -> None:
        """What was done to the checkpoint before: nothing that is kept."""
        return None

    @property
    def longest(self) -> int:
        """Tokens that a bundle is made for where the user does not say: images take many."""
        return min(2048, self.spec.context)

    @property
    def decoder(self) -> Model:
        """The decoder alone, over the same weights."""
        return Model(self.spec.text, self.weights, self.tokenizer, self.origin)

    def with_weights(self, weights: Weights) -> VisionModel:
        """The same model with other weights."""
        return replace(self, weights=weights)


def vision_family(kind: str) -> VisionFamily | None:
    """The family of a ``model_type``, or None where it is no vision-language model that edgesdk knows."""
    families = (VISIONS.get(name) for name in VISIONS.names())
    return next((family for family in families if kind in family.model_types), None)


def open_vision(
    family: VisionFamily,
    folder: Path,
    config: Config,
    tokenizer: Tokenizer,
    licence: str | None,
    texts: tuple[Path, ...],
) -> VisionModel:
    """A vision-language model over a folder whose configuration and tokenizer were read.

    Raises:
        ModelError: what is wrong with the checkpoint.
    """
    shards, section = SafetensorsFolder(folder), config.section("text_config")
    tied = config.flag("tie_word_embeddings", True) and "lm_head.weight" not in shards.headers
    text = section.changed(tie_word_embeddings=tied)
    kind = str(text.get("model_type") or "llama")
    families = (FAMILIES.get(name) for name in FAMILIES.names())
    decoder = next((each for each in families if kind in each.model_types), None)
    if decoder is None:
        raise ModelError(f"{section.where}: architecture '{kind}' belongs to no family that edgesdk knows")
    spec = family.spec(config, decoder.spec(text))
    spec = replace(spec, preparation=family.preparation(folder, spec.image.size))
    places = {name: Stowed(family.stowed(name)) for name in dict(spec.image.tensors(spec.text.hidden))}
    for name, place in decoder.transformers_places(spec.text).items():
        inner = place.name.removeprefix("model.")
        places[name] = place if inner == place.name else replace(place, name=family.text + inner)
    weights = CheckpointWeights(shards, places, spec.tensors())
    notes = refuse_unread(str(folder), shards.unread(), (), shards.read)
    origin = Origin(folder.resolve().name, tuple(shards.files), licence, texts, notes=tuple(notes))
    return VisionModel(spec, weights, tokenizer, origin)
