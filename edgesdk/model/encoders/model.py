"""An opened encoder: what passes, converters and bundles are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ...errors import ModelError
from .. import Origin, Tokenizer, Weights
from ..encoder_spec import EncoderSpec


@dataclass(frozen=True)
class EncoderModel:
    """A trained encoder: its architecture as data, its weights, its tokenizer.

    Attributes:
        spec: the architecture.
        weights: by canonical name.
        tokenizer: None only for models made without one.
        origin: where it came from.
        longest: tokens of a text that its publisher cuts at, or None: all that it was trained for.
    """

    spec: EncoderSpec
    weights: Weights
    tokenizer: Tokenizer | None = None
    origin: Origin = field(default_factory=lambda: Origin("unnamed"))
    longest: int | None = None

    @property
    def compression(self) -> None:
        """What was done to the checkpoint before: encoders are opened as they were trained."""
        return None

    def with_weights(self, weights: Weights) -> EncoderModel:
        """The same model with other weights."""
        return replace(self, weights=weights)


def text_ids(tokenizer: Tokenizer, text: str, most: int) -> list[int]:
    """Ids of a text as an encoder reads it: with what the tokenizer puts around it, cut to ``most`` tokens.

    What stands behind the text (a separator) stays when it is cut.
    """
    return batch_ids(tokenizer, [text], most)[0]


def batch_ids(tokenizer: Tokenizer, texts: Sequence[str], most: int) -> list[list[int]]:
    """As :func:`text_ids`, for several texts.

    Raises:
        ModelError: a text is not valid Unicode.
    """
    backend = tokenizer.backend
    try:
        backend.enable_truncation(most)
        return [list(backend.encode(text, add_special_tokens=True).ids) for text in texts]
    except UnicodeEncodeError:
        raise ModelError("the text is not valid Unicode (it holds half of a surrogate pair)") from None
    finally:
        backend.no_truncation()
