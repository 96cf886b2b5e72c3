"""Asking an encoder's bundle: texts become embeddings, or labels with scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .bundle import Bundle, kind_of
from .bundle.admission import admit
from .chat import bundle_tokenizer
from .converter import encoder_converter
from .errors import EdgeError
from .kinds import ENCODER
from .model.encoders.model import batch_ids

if TYPE_CHECKING:
    from .session import EncoderSession


def open_encoder_session(bundle: Bundle, threads: int | None = None) -> EncoderSession:
    """A session over the program of an encoder's bundle.

    Raises:
        EdgeError: it is no encoder, or the runtime is missing, of the wrong version, or refuses the program.
    """
    manifest = bundle.manifest
    if kind_of(manifest) != ENCODER:
        raise EdgeError(f"{manifest.model.name} is no encoder: edgesdk.Chat talks to it")
    admit(bundle, threads)
    converter = encoder_converter(manifest.program.converter, manifest.model.name)
    return converter.open(bundle.main, manifest.context, threads)


class Encoder:
    """A bundle's encoder with its tokenizer.

    Attributes:
        tokenizer: of the bundle.
        labels: names of a classifier's labels; () for one that embeds.
        context: tokens that a text is cut at.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        self.session = open_encoder_session(bundle, threads)
        self.context = self.session.context
        self.tokenizer = bundle_tokenizer(bundle)
        head: dict[str, Any] = bundle.manifest.model.spec["head"]
        self.labels: tuple[str, ...] = tuple(head.get("labels", ()))
        self._scores = head.get("scores", "none")

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of texts, float32 [texts, size].

        Raises:
            EdgeError: it is a classifier.
        """
        if self.labels:
            raise EdgeError("this bundle gives labels, no embeddings")
        return self._rows(texts)

    def classify(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Each text's labels with their scores, the best first.

        Raises:
            EdgeError: it gives embeddings.
        """
        if not self.labels:
            raise EdgeError("this bundle gives embeddings, no labels")
        found = []
        for row in self._rows(texts):
            scores = dict(zip(self.labels, _scored(row, self._scores).tolist(), strict=True))
            found.append(dict(sorted(scores.items(), key=lambda item: -item[1])))
        return found

    def count(self, text: str) -> int:
        """Tokens of a text, as the program sees them."""
        return len(batch_ids(self.tokenizer, [text], self.context)[0])

    def _rows(self, texts: Sequence[str]) -> np.ndarray:
        return self.session.encode(batch_ids(self.tokenizer, texts, self.context))


def _scored(logits: np.ndarray, kind: str) -> np.ndarray:
    """Scores of one row of logits."""
    if kind == "softmax":
        spread = np.exp(logits - logits.max())
        return np.asarray(spread / spread.sum())
    return np.asarray(1 / (1 + np.exp(-logits))) if kind == "sigmoid" else logits
