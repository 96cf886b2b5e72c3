"""Models: opening checkpoints, their spec, their weights, and the reference model that defines the numerics."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .spec import DecoderSpec
from .tokenizer import Tokenizer
from .weights import Weights

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Origin:
    """Where a model came from.

    Attributes:
        name: a short name for people.
        files: the checkpoint's files; their hashes go into the manifest.
        licence: SPDX name or the publisher's own words, or None when the checkpoint says nothing.
        licence_files: licence texts that lie beside the checkpoint.
        bytes: size of the weight files.
    """

    name: str
    files: tuple[Path, ...] = ()
    licence: str | None = None
    licence_files: tuple[Path, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)


@dataclass(frozen=True)
class Model:
    """A trained small language model: its architecture as data, its weights, its tokenizer.

    ``tokenizer`` is None only for models made without one (random ones, in tests and ``edgesdk doctor``).
    """

    spec: DecoderSpec
    weights: Weights
    tokenizer: Tokenizer | None = None
    origin: Origin = field(default_factory=lambda: Origin("unnamed"))

    def with_weights(self, weights: Weights) -> Model:
        """The same model with other weights."""
        return replace(self, weights=weights)


__all__ = ["DecoderSpec", "Model", "Origin", "Tokenizer", "Weights"]
