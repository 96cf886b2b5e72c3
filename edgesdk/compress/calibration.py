"""Calibration text for passes that look at activations: the model's own, or from a file. Nothing leaves the machine.

Both come from :mod:`edgesdk.passages`. Source of the self-generated default: LLM-QAT, arXiv 2305.17888.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from ..errors import EdgeError, ModelError
from ..passages.cutting import rows
from ..passages.loops import DegenerateTextError, repeats_itself

if TYPE_CHECKING:
    import torch

    from ..model import Model
    from ..progress import Progress

SELF = "self"
_MOST_TOKENS = 4_000_000  # of a file that are looked at


@dataclass(frozen=True)
class Calibration:
    """Where calibration text comes from; the same options give the same tokens.

    Attributes:
        file: a text file, or chats as JSON lines (``{"messages": [...]}`` or ``{"text": ...}``), or None to sample from
            the model.
        sequences: how many sequences.
        length: tokens of each, the tokenizer's prefix included.
        seed: of the sampling, or of the choice among the windows of a file.
    """

    file: Path | None = None
    sequences: int = 64
    length: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.length < 2:
            raise EdgeError("calibration needs at least one sequence of two tokens")

    def source(self, model: Model) -> str:
        """What the text is: a file's name, or what the model writes its own text behind (``self: answers`` ...)."""
        if self.file is not None:
            return self.file.name
        from ..passages.sampling import beginnings

        return beginnings(model.tokenizer, self._length(model)).name

    def _length(self, model: Model) -> int:
        return min(self.length, model.spec.context)

    def tokens(self, model: Model, progress: Progress) -> torch.Tensor:
        """Token ids, int64 [sequences, length], each behind the tokenizer's prefix; fewer where the file has no more.

        Raises:
            EdgeError: the file cannot be read as text, or holds less than one sequence.
            DegenerateTextError: the text, or what the model writes, repeats itself.
        """
        import torch

        length = self._length(model)
        if self.file is not None:
            return torch.tensor(self._read(model, self.file, length, progress))
        from ..model.reference import ReferenceModel
        from ..passages.own import own_rows
        from ..passages.reference import may_stay

        reference = ReferenceModel(model, resident=may_stay(model))
        return torch.tensor(own_rows(reference, model.tokenizer, self.sequences, length, self.seed, progress))

    def _read(self, model: Model, file: Path, length: int, progress: Progress) -> list[list[int]]:
        """Rows of the file, drawn evenly in one sweep over it (reservoir sampling)."""
        if model.tokenizer is None:
            raise ModelError("calibration text needs a tokenizer, and this model has none")
        random, seen = Random(self.seed), 0
        chosen: list[list[int]] = []
        with progress.stage("Reading calibration text", None):
            for row in rows(model.tokenizer, file, length):
                seen += 1
                if len(chosen) < self.sequences:
                    chosen.append(row)
                elif (place := random.randrange(seen)) < self.sequences:
                    chosen[place] = row
                if seen * length >= _MOST_TOKENS:
                    break
        if repeats_itself(chosen):
            raise DegenerateTextError(
                f"{file}: says the same over and over, and a loop teaches nothing about other text",
                hint="give text of the kind that the model is for, or leave out --calibration",
            )
        return chosen
