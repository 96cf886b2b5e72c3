"""Which weights of a matrix become zero: a share of them, or some in every few neighbours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import RecipeError

if TYPE_CHECKING:
    import torch

_SHARE = re.compile(r"(-?\d+(?:\.\d+)?)\s*(%?)")
_RUN = re.compile(r"(\d+):(\d+)")
_RUNS = (2, 4, 8, 16, 32, 64)  # what blocks of columns hold whole
_ALLOWED = "give a share like 50%, or a pattern like 2:4 (two of every four are left; runs of 2, 4, 8, 16, 32 or 64)"


@dataclass(frozen=True)
class Pattern:
    """What is taken away.

    Attributes:
        share: of the weights that become zero, above 0 and below 1.
        run: neighbours of a row that are looked at together, the ``M`` of ``N:M``; 0 where there is no such rule.
    """

    share: float
    run: int = 0

    @property
    def removed(self) -> int:
        """Of each run, how many become zero."""
        return round(self.share * self.run)

    def refuse_misfit(self, name: str, columns: int) -> None:
        """Raise an error where runs do not divide a row."""
        if self.run and columns % self.run:
            raise RecipeError(
                f"{self}: {name} has rows of {columns} weights, no multiple of {self.run}",
                hint="leave the matrix out (pass option 'skip'), or take a percentage like 50%",
            )

    def lowest(self, scores: torch.Tensor, *, rows: bool) -> torch.Tensor:
        """Where the lowest scores of a matrix [out, in] lie: bool, the same shape.

        Without runs, the lowest of every row, or (not ``rows``) of the whole matrix.
        """
        import torch

        if self.run:
            groups = scores.reshape(-1, self.run)
            found = groups.topk(self.removed, dim=1, largest=False).indices
            return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, found, True).view(scores.shape)
        flat = scores if rows else scores.reshape(1, -1)
        count = round(self.share * flat.shape[1])
        found = flat.topk(count, dim=1, largest=False, sorted=False).indices
        return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, found, True).view(scores.shape)

    def __str__(self) -> str:
        return f"{self.run - self.removed}:{self.run}" if self.run else f"{100 * self.share:g}%"


def parse_pattern(text: str, where: str) -> Pattern:
    """A pattern as people write it: ``50%``, ``0.5``, ``2:4``; ``N:M`` leaves N of M neighbours (arXiv 2104.08378).

    Raises:
        RecipeError: neither, or nothing or everything would be taken away.
    """
    if match := _RUN.fullmatch(text.strip()):
        left, run = int(match[1]), int(match[2])
        if not 0 < left < run or run not in _RUNS:
            raise RecipeError(f"{where}: '{text}' leaves {left} of {run} weights", hint=_ALLOWED)
        return Pattern(1 - left / run, run)
    if match := _SHARE.fullmatch(text.strip()):
        share = float(match[1]) / (100 if match[2] else 1)
        if 0 < share < 1:
            return Pattern(share)
        raise RecipeError(f"{where}: sparsity {text} does not lie between 0 and 1 (0 % and 100 %)", hint=_ALLOWED)
    raise RecipeError(f"{where}: sparsity '{text}' cannot be read", hint=_ALLOWED)
