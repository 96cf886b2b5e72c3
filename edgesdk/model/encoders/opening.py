"""Opening encoders: a Hugging Face folder, sentence-transformers' or plain."""

from __future__ import annotations

from pathlib import Path

from ...errors import ModelError
from .. import Origin, Tokenizer
from ..config import Config
from ..encoder_spec import Classification
from ..safetensors_file import SafetensorsFolder
from ..unread import refuse_unread
from ..weights import CheckpointWeights
from . import ENCODERS
from .base import EncoderFamily, head_of
from .model import EncoderModel

#: Heads that a body was trained with, and that neither its vectors nor its labels are made with.
_OTHER_HEADS = (
    r"(^|\.)pooler\.",
    r"^cls\.(predictions|seq_relationship)\.",
    r"^lm_head\.",
    r"^vocab_(transform|layer_norm|projector)\.",
    r"^(head\.(dense|norm)|decoder)\.",
    r"\.bottleneck\.attention\.",  # MobileBERT with narrow attention has them, and passes them by
)


def encoder_family(kind: str) -> EncoderFamily | None:
    """The family of a ``model_type``, or None where it is no encoder that edgesdk knows."""
    families = (ENCODERS.get(name) for name in ENCODERS.names())
    return next((family for family in families if kind in family.model_types), None)


def open_encoder(
    family: EncoderFamily,
    folder: Path,
    config: Config,
    tokenizer: Tokenizer,
    licence: str | None,
    texts: tuple[Path, ...],
) -> EncoderModel:
    """An encoder over a folder whose configuration and tokenizer were read; its weights are read when they are used.

    Raises:
        ModelError: what is wrong with the checkpoint.
    """
    if config.get("quantization_config"):
        raise ModelError(f"{config.where}: quantized encoder checkpoints are not built: export the unquantized one")
    config.overruled("tie_word_embeddings")  # of a head that is left out
    head = head_of(family, config, folder)
    if not isinstance(head, Classification):
        config.overruled("classifier_activation", "classifier_bias")
    spec = family.spec(config, head)
    shards = SafetensorsFolder(folder)
    weights = CheckpointWeights(shards, family.places(spec, shards.headers), spec.tensors())
    notes = refuse_unread(str(folder), shards.unread(), _OTHER_HEADS, shards.read)
    origin = Origin(folder.resolve().name, tuple(shards.files), licence, texts, notes=tuple(notes))
    return EncoderModel(spec, weights, tokenizer, origin, _longest(folder, spec.context))


def _longest(folder: Path, context: int) -> int | None:
    """Where sentence-transformers cuts a text."""
    path = folder / "sentence_bert_config.json"
    if not path.is_file() or Config.read(path).get("max_seq_length") is None:
        return None
    return min(context, Config.read(path).integer("max_seq_length"))
