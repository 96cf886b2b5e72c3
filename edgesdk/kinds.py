"""What a program does with a text: kinds of models, by the names that manifests use."""

from __future__ import annotations

DECODER, ENCODER, SEQ2SEQ, VISION = "decoder", "encoder", "seq2seq", "vision-language"
_DESCRIBED = {
    DECODER: "a decoder",
    ENCODER: "an encoder",
    SEQ2SEQ: "an encoder-decoder",
    VISION: "a vision-language model",
}
#: Every kind that is known.
KINDS = tuple(_DESCRIBED)


def described(kind: str) -> str:
    """A kind in words, with its article."""
    return _DESCRIBED.get(kind, f"of an unknown kind '{kind}'")
