"""The spec of a vision-language model: an image encoder, a connector, and a decoder that reads both images and text."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .encoder_spec import EncoderLayer, Normalization, Tensors
from .spec import DecoderSpec


@dataclass(frozen=True)
class ImageSpec:
    """What makes rows for the decoder of a square image (SigLIP, arXiv 2303.15343; connector of Idefics3, 2408.12637).

    Attributes:
        size: edge of an image, in pixels.
        patch: edge of a patch.
        channels: of an image.
        hidden: width of the residual stream.
        layers: over all patches, in order.
        norm: every norm.
        shuffle: edge of the square of patches that becomes one row.
    """

    size: int
    patch: int
    channels: int
    hidden: int
    layers: tuple[EncoderLayer, ...]
    norm: Normalization
    shuffle: int

    @property
    def grid(self) -> int:
        """Patches along an edge."""
        return self.size // self.patch

    @property
    def rows(self) -> int:
        """Rows for the decoder."""
        return (self.grid // self.shuffle) ** 2

    @staticmethod
    def prefix(index: int) -> str:
        """What stands before the names of a layer's weights."""
        return f"layers.vision.{index}."

    def tensors(self, hidden: int) -> Tensors:
        """Names and shapes; ``hidden`` is the width of the decoder."""
        yield "patch.weight", (self.hidden, self.channels, self.patch, self.patch)
        yield "patch.bias", (self.hidden,)
        yield "patch_positions.weight", (self.grid**2, self.hidden)
        for index, layer in enumerate(self.layers):
            yield from layer.tensors(self.prefix(index), self.hidden, self.norm)
        yield from self.norm.tensors("vision_norm", self.hidden)
        yield "connector.weight", (hidden, self.hidden * self.shuffle**2)


@dataclass(frozen=True)
class Preparation:
    """How an image becomes square pictures for the encoder, and what a prompt says of them.

    Attributes:
        longest: what the longer edge of an image is resized to first, in pixels.
        tiles: whether an image is cut into tiles, which are pictures beside it as a whole.
        mean: of each channel, subtracted from values that :attr:`scale` was applied to.
        std: of each channel, divided by.
        scale: of values from 0 to 255.
        resample: Pillow's number of the filter.
        around: what stands before each picture, and behind the last.
        whole: what stands before the picture of the whole image.
        tile: what stands before a tile, with ``{row}`` and ``{column}`` from 1.
    """

    longest: int
    tiles: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    resample: int
    around: str
    whole: str
    tile: str


@dataclass(frozen=True)
class VisionSpec:
    """A vision-language model.

    Attributes:
        family: the name of the family that made the spec.
        image: what makes rows of images.
        text: the decoder.
        image_token: the token in whose place a row of an image stands.
        preparation: of image files; None where the checkpoint does not say how.
    """

    family: str
    image: ImageSpec
    text: DecoderSpec
    image_token: int
    preparation: Preparation | None = None

    @property
    def vocab(self) -> int:
        return self.text.vocab

    @property
    def context(self) -> int:
        return self.text.context

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensors().values())

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Canonical weight names and shapes: the image's, then the decoder's own."""
        return {**dict(self.image.tensors(self.text.hidden)), **self.text.tensors()}
