"""The spec of an encoder-decoder: an encoder, and a decoder whose layers look at its states."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .encoder_spec import EncoderLayer, EncoderSpec, Normalization, RelativePositions, Tensors


@dataclass(frozen=True)
class Seq2SeqSpec:
    """An encoder-decoder (T5, arXiv 1910.10683).

    Attributes:
        family: the name of the family that made the spec.
        encoder: what reads the text; its embedding is the decoder's too.
        layers: the decoder's, in order; each also attends to the encoder's states, with as many heads.
        norm: every norm of the decoder.
        relative: the decoder's position bias; its queries see only what is before them.
        start: the token that an answer begins after.
        tied: the head is the embedding.
        output_scale: factor on the decoder's states, before the head.
    """

    family: str
    encoder: EncoderSpec
    layers: tuple[EncoderLayer, ...]
    norm: Normalization
    relative: RelativePositions
    start: int
    tied: bool = True
    output_scale: float = 1.0

    @property
    def vocab(self) -> int:
        return self.encoder.vocab

    @property
    def hidden(self) -> int:
        return self.encoder.hidden

    @property
    def context(self) -> int:
        return self.encoder.context

    @property
    def head_name(self) -> str:
        """The canonical name of the tensor that the head multiplies with."""
        return "embed.weight" if self.tied else "head.weight"

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensors().values())

    @staticmethod
    def prefix(index: int) -> str:
        """What stands before the names of a decoder layer's weights."""
        return f"layers.decoder.{index}."

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Canonical weight names and shapes, in order of use; linear weights are [out, in]."""
        return {**self.encoder.tensors(), **dict(self._decoder_tensors())}

    def _decoder_tensors(self) -> Tensors:
        yield "decoder_relative.weight", (self.relative.buckets, self.layers[0].attention.heads)
        for index, layer in enumerate(self.layers):
            prefix, size = self.prefix(index), layer.attention.size
            yield from layer.tensors(prefix, self.hidden, self.norm)
            yield from self.norm.tensors(f"{prefix}cross_norm", self.hidden)
            for name, shape in (("q", (size, self.hidden)), ("k", (size, self.hidden)), ("v", (size, self.hidden))):
                yield f"{prefix}cross_{name}.weight", shape
            yield f"{prefix}cross_o.weight", (self.hidden, size)
        yield from self.norm.tensors("decoder_norm", self.hidden)
        if not self.tied:
            yield "head.weight", (self.vocab, self.hidden)
