"""A session over an encoder-decoder in ONNX Runtime: a text is read once, an answer continued token by token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgesdk.session import refuse_answer, refuse_texts, usable

from .encoder_session import RUNTIME, load, run
from .names import ENCODER_FILE


class OnnxSeq2SeqSession:
    """Runs both programs of a bundle; see :class:`edgesdk.session.Seq2SeqSession` for the contract."""

    def __init__(self, model: Path, context: int, threads: int | None = None) -> None:
        """Load the programs.

        Args:
            model: the decoder; the encoder and the data file lie beside it.
            context: most tokens of a text, and of an answer.
            threads: threads of the matrix kernels; None leaves the choice to ONNX Runtime.

        Raises:
            BundleError: ONNX Runtime refuses a file.
        """
        with usable(model, RUNTIME):
            self._encoder, self._decoder = load(model.with_name(ENCODER_FILE), threads), load(model, threads)
            said = self._decoder.get_modelmeta().custom_metadata_map
            self.context, self.vocab, self.start = context, int(said["vocab"]), int(said["start"])
            self._source: dict[str, np.ndarray] = {}
            self._empty = {
                value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), dtype=np.float32)
                for value in self._decoder.get_inputs()
                if ".decoder." in value.name
            }
        self.reset()

    def reset(self) -> None:
        self.position, self._caches = 0, dict(self._empty)

    def encode(self, ids: Sequence[int]) -> None:
        refuse_texts([ids], None, self.context, self.vocab)
        given = np.array([list(ids)], dtype=np.int64)
        names = [output.name for output in self._encoder.get_outputs()]
        found = run(self._encoder, names, {"input_ids": given, "attention_mask": np.ones_like(given)})
        self._source = {_past(name): value for name, value in zip(names, found, strict=True)}
        self.reset()

    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        refuse_answer(self, tokens, bool(self._source))
        names = [output.name for output in self._decoder.get_outputs()]
        given = {"input_ids": np.array([list(tokens)], dtype=np.int64), **self._source, **self._caches}
        found = dict(zip(names, run(self._decoder, names, given), strict=True))
        logits: np.ndarray = found.pop("logits")[0]
        self._caches = {_past(name): value for name, value in found.items()}
        self.position += len(tokens)
        return logits


def _past(present: str) -> str:
    """The name that a cache goes in by."""
    return present.replace("present.", "past_key_values.", 1)
