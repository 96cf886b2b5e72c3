"""An opened encoder-decoder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import Origin, Tokenizer, Weights
from ..config import Config
from ..safetensors_file import SafetensorsFolder
from ..seq2seq_spec import Seq2SeqSpec
from ..unread import refuse_unread
from ..weights import CheckpointWeights
from . import SEQ2SEQS
from .base import Seq2SeqFamily

#: The shared embedding under the names of its two users, as older files repeat it.
_COPIES = (r"^(encoder|decoder)\.embed_tokens\.weight$",)


@dataclass(frozen=True)
class Seq2SeqModel:
    """A trained encoder-decoder: its architecture as data, its weights, its tokenizer."""

    spec: Seq2SeqSpec
    weights: Weights
    tokenizer: Tokenizer | None = None
    origin: Origin = field(default_factory=lambda: Origin("unnamed"))

    @property
    def compression(self) -> None:
        """What was done to the checkpoint before: encoder-decoders are opened as they were trained."""
        return None

    @property
    def longest(self) -> None:
        """Where the publisher cuts a text: nowhere."""
        return None

    def with_weights(self, weights: Weights) -> Seq2SeqModel:
        """The same model with other weights."""
        return replace(self, weights=weights)


def seq2seq_family(kind: str) -> Seq2SeqFamily | None:
    """The family of a ``model_type``, or None where it is no encoder-decoder that edgesdk knows."""
    families = (SEQ2SEQS.get(name) for name in SEQ2SEQS.names())
    return next((family for family in families if kind in family.model_types), None)


def open_seq2seq(
    family: Seq2SeqFamily,
    folder: Path,
    config: Config,
    tokenizer: Tokenizer,
    licence: str | None,
    texts: tuple[Path, ...],
) -> Seq2SeqModel:
    """An encoder-decoder over a folder whose configuration and tokenizer were read.

    Raises:
        ModelError: what is wrong with the checkpoint.
    """
    shards = SafetensorsFolder(folder)
    own_head = family.head in shards.headers and not shards.same(family.head, family.embedding)
    spec = family.spec(config, own_head)
    weights = CheckpointWeights(shards, family.places(spec), spec.tensors())
    notes = refuse_unread(str(folder), shards.unread(), _COPIES, shards.read)
    origin = Origin(folder.resolve().name, tuple(shards.files), licence, texts, notes=tuple(notes))
    return Seq2SeqModel(spec, weights, tokenizer, origin)
