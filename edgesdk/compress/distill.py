"""Quantization-aware distillation: learn scales and norms of the whole model from the float model's predictions.

What it does: the rounded model runs calibration text, and the Kullback-Leibler divergence of its predictions from the
float model's is made small by gradient descent over the scales of rounded matrices and the weights of norms; integers
move too if asked.
When to use it: last, after rounding (and reconstruction): it sees how the errors of layers add up.
What it costs: ``steps`` forward and backward passes through the whole model: memory of the model in float32 twice (four
times with ``integers``), so it is for models that fit. Ends at the time limit, and says so.
Example: ``edgesdk compress MODEL --recipe w4g32-gptq-qat --out DIR``.
Source: Liu et al., LLM-QAT, arXiv 2305.17888; Chen et al., EfficientQAT, arXiv 2407.11062 (scales alone, end to end).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ..errors import RecipeError
from ..model.features import ALL, RECURRENT
from .base import KeepsGrid, PassReport, PassResult, Setting
from .layerwise import batches
from .spool import Spool

if TYPE_CHECKING:
    from ..model import Model
    from .student import Student


@dataclass(frozen=True)
class Distillation(KeepsGrid):
    """Options of the pass.

    Attributes:
        steps: of gradient descent.
        minutes: time limit.
        scale_rate: of the scales, as a share of them.
        norm_rate: of the norms' weights, as a share of their mean.
        activations: bits of the activations that are simulated: 8 (int8, a scale a token) or 32 (float).
        integers: whether integers move too.
        rate: of the integers, in steps of the grid.
        sequences: of one step.
        seed: of the order of the text.
    """

    takes: ClassVar[frozenset[str]] = ALL - RECURRENT

    steps: int = 22
    minutes: float = 20.0
    scale_rate: float = 0.002
    norm_rate: float = 0.002
    activations: int = 8
    integers: bool = False
    rate: float = 0.02
    sequences: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.minutes > 0 or self.sequences < 1:
            raise RecipeError("qat: 'steps', 'minutes' and 'sequences' must be above 0")
        if self.activations not in (8, 32):
            raise RecipeError(f"qat: 'activations' must be 8 or 32, found {self.activations}")

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        spool = Spool(setting.scratch / "qat.bin", model.weights)
        if spool.entry("final_norm.weight") is None:
            student = self._learn(model, setting)
            limit = f"the time limit of {self.minutes:g} minutes cut it at {student.done} of {self.steps} steps"
            spool.write_together(dict(student.learned()), limit if student.cut else None)
        return PassResult(replace(model, weights=spool), PassReport("qat", True, notes=spool.notes))

    def _learn(self, model: Model, setting: Setting) -> Student:
        import torch

        from ..model.reference import ReferenceModel
        from .student import Student

        ids = setting.tokens(model)
        teacher = ReferenceModel(setting.unrounded or model, resident=False)
        wanted = torch.cat(teacher.hidden(batches(ids)))
        teacher.release()
        student = Student(model, teacher, self, zeros_stay=setting.sparse)
        random = torch.Generator().manual_seed(self.seed)
        order = torch.cat([torch.randperm(len(ids), generator=random) for _ in range(self._rounds(len(ids)))])
        with setting.progress.stage("Distilling", self.steps) as stage:
            for step in student.descent(self):
                rows = order[step * self.sequences : (step + 1) * self.sequences]
                student.step(ids[rows], wanted[rows])
                stage.advance()
        return student

    def _rounds(self, sequences: int) -> int:
        return -(-self.steps * self.sequences // sequences)
