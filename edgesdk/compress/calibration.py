"""Calibration text for passes that look at activations: the model's own, or from a file. Nothing leaves the machine.

Source of the self-generated default: LLM-QAT, arXiv 2305.17888.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EdgeError

if TYPE_CHECKING:
    import torch

    from ..model import Model
    from ..progress import Progress


@dataclass(frozen=True)
class Calibration:
    """Where calibration text comes from; the same options give the same tokens.

    Attributes:
        file: a text file, or None to sample from the model.
        sequences: how many sequences.
        length: tokens of each.
        seed: of the sampling.
    """

    file: Path | None = None
    sequences: int = 32
    length: int = 256
    seed: int = 0

    def tokens(self, model: Model, progress: Progress) -> torch.Tensor:
        """Token ids, int64 [sequences, length].

        Raises:
            EdgeError: the file is missing or holds less than one sequence.
        """
        length = min(self.length, model.spec.context)
        return self._sampled(model, length, progress) if self.file is None else self._read(model, self.file, length)

    def _sampled(self, model: Model, length: int, progress: Progress) -> torch.Tensor:
        from ..model.reference import ReferenceModel
        from .quality import may_stay, sample_text

        reference = ReferenceModel(model, resident=may_stay(model))
        return sample_text(reference, progress, sequences=self.sequences, length=length, seed=self.seed).ids

    def _read(self, model: Model, file: Path, length: int) -> torch.Tensor:
        import torch

        if model.tokenizer is None:
            raise EdgeError("calibration text needs a tokenizer, and this model has none")
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as failure:
            raise EdgeError(f"{file}: cannot be read as UTF-8 text ({failure})") from None
        ids = model.tokenizer.encode(text)[: self.sequences * length]
        whole = len(ids) // length
        if not whole:
            raise EdgeError(f"{file}: {len(ids)} tokens are less than one sequence of {length}", hint="give more text")
        return torch.tensor(ids[: whole * length]).view(whole, length)
