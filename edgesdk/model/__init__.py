"""Models: opening checkpoints, their spec, their weights, and the reference model that defines the numerics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ModelError
from ..lines import check_line
from .spec import DecoderSpec
from .tokenizer import Tokenizer
from .weights import Weights

if TYPE_CHECKING:
    from pathlib import Path

    from .adapter import Adapter


@dataclass(frozen=True)
class Origin:
    """Where a model came from.

    Attributes:
        name: a short name for people.
        files: the checkpoint's files; their hashes go into the manifest.
        licence: SPDX name or the publisher's own words, or None when the checkpoint says nothing.
        licence_files: licence texts that lie beside the checkpoint.
        adapters: those that were merged into its weights; their files are among ``files``.
        notes: what reading the checkpoint passed over or decided, in words for the user.
        oracle: what transformers said of the checkpoint when it was compressed, as plain data; None: see
            :mod:`edgesdk.oracle`.
        bytes: size of the weight files.
    """

    name: str
    files: tuple[Path, ...] = ()
    licence: str | None = None
    licence_files: tuple[Path, ...] = ()
    adapters: tuple[Adapter, ...] = ()
    notes: tuple[str, ...] = ()
    oracle: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Raises ModelError: name or licence is not one printable line."""
        check_line(self.name, "the model's name", ModelError, "rename its folder or file")
        if self.licence is not None:
            check_line(
                self.licence, f"the licence of {self.name}", ModelError, "write its SPDX name into the checkpoint"
            )

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)


@dataclass(frozen=True)
class Compression:
    """What was done to a checkpoint's weights before they came here; its integers are carried, not rounded again.

    Attributes:
        name: of the recipe, or of the method of another tool (``gptq``, ``awq`` ...).
        grids: bits and group (0: a row) of every canonical tensor that is on a grid.
        activations: bits of the activations that it was made for, or None: the target's choice.
        kv_bits: bits of the key-value cache that it was made for, or None for float.
        observer: which range static scales of activations hold, where the runtime has such.
        passes: every pass with its options, as plain data.
        reports: what each pass reported, as plain data.
    """

    name: str
    grids: Mapping[str, tuple[int, int]]
    activations: int | None = None
    kv_bits: int | None = None
    observer: Literal["minmax", "percentile", "mse"] = "minmax"
    passes: tuple[dict[str, Any], ...] = ()
    reports: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Model:
    """A trained small language model: its architecture as data, its weights, its tokenizer.

    ``tokenizer`` is None only for models made without one (random ones, in tests and ``edgesdk doctor``);
    ``compression`` is what a checkpoint says that was compressed before; ``switchable`` are adapters that stay apart
    from the weights, for runtimes that can switch to one.
    """

    spec: DecoderSpec
    weights: Weights
    tokenizer: Tokenizer | None = None
    origin: Origin = field(default_factory=lambda: Origin("unnamed"))
    compression: Compression | None = None
    switchable: tuple[Adapter, ...] = ()

    def with_weights(self, weights: Weights) -> Model:
        """The same model with other weights."""
        return replace(self, weights=weights)


__all__ = ["Compression", "DecoderSpec", "Model", "Origin", "Tokenizer", "Weights"]
