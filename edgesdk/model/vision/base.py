"""What a family of vision-language models is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..config import Config
from ..spec import DecoderSpec
from ..vision_spec import Preparation, VisionSpec


@dataclass(frozen=True)
class VisionFamily:
    """A mapping from one published architecture to a spec and to canonical weight names.

    Attributes:
        name: the family's name.
        model_types: ``model_type`` values of transformers configurations.
        spec: makes the spec from a configuration and the decoder's spec, which its own family made.
        stowed: the checkpoint's name of a canonical tensor of the image's side.
        text: what stands in the place of ``model.`` before the decoder's names.
        preparation: what becomes of images, from the checkpoint's folder and the edge of a picture; None where the
            folder does not say.
    """

    name: str
    model_types: tuple[str, ...]
    spec: Callable[[Config, DecoderSpec], VisionSpec]
    stowed: Callable[[str], str]
    text: str
    preparation: Callable[[Path, int], Preparation | None]
