"""What a family of encoder-decoders is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..config import Config
from ..seq2seq_spec import Seq2SeqSpec
from ..weights import Stowed


@dataclass(frozen=True)
class Seq2SeqFamily:
    """A mapping from one published architecture to a spec and to canonical weight names.

    Attributes:
        name: the family's name.
        model_types: ``model_type`` values of transformers configurations.
        spec: makes the spec from a configuration, and whether the head differs from the embedding.
        stowed: the checkpoint's name of a canonical tensor, for gated feed-forward blocks or plain ones.
        head: the checkpoint's name of the head.
        embedding: its name of the shared embedding.
    """

    name: str
    model_types: tuple[str, ...]
    spec: Callable[[Config, bool], Seq2SeqSpec]
    stowed: Callable[[str, bool], str]
    head: str = "lm_head.weight"
    embedding: str = "shared.weight"

    def places(self, spec: Seq2SeqSpec) -> dict[str, Stowed]:
        """Where each canonical tensor lies in a checkpoint."""
        return {name: Stowed(self.stowed(name, spec.layers[0].mlp.gated)) for name in spec.tensors()}
