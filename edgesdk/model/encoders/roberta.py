"""RoBERTa: BERT whose positions are counted from behind the padding token (arXiv 1907.11692)."""

from __future__ import annotations

from ..config import Config
from ..encoder_spec import Classification, EncoderSpec, Head
from .base import BERT_TENSORS, EncoderFamily, scores_of
from .bert import bert_spec


def _spec(config: Config, head: Head) -> EncoderSpec:
    padding = config.get("pad_token_id")
    return bert_spec("roberta", config, head, first_position=(1 if padding is None else int(padding)) + 1)


def _classification(config: Config, labels: tuple[str, ...]) -> Classification:
    return Classification(labels, scores=scores_of(config, labels))


FAMILY = EncoderFamily(
    "roberta",
    ("roberta", "xlm-roberta", "camembert"),
    _spec,
    _classification,
    tensors={name: stowed for name, stowed in BERT_TENSORS.items() if name != "dense"},
    outside={"dense": "classifier.dense", "classifier": "classifier.out_proj"},
    body="roberta.",
)
