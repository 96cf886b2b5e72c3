"""Recovery: what pruning took is learned again from the original model.

What it does: the smaller model runs text, and is trained so that its predictions, and the states behind them, come near
those of a teacher: the model before the first pass, or another one with the same tokens. All matrices of the layers
learn (``full``), or low-rank additions to them that are merged at the end (``lora``). Zeros that a pass made stay.
When to use it: after ``depth``, ``width``, ``hidden`` or ``vocabulary``; one-shot structured pruning of small models
does not ship without it. Also to teach a given smaller model (``teacher``). Give it much text: calibration text from a
file is used in full, up to ``sequences``.
What it costs: ``minutes``; memory of the model four times in float32 and of the teacher in half (``lora``: twice less).
Every few minutes its state goes to disk, and ``--resume`` goes on from there. Without ``steps`` their number follows
from the clock, so that two runs differ.
Example: ``edgesdk compress MODEL --recipe w4g32-depth75-heal --calibration corpus.txt --out DIR``.
Source: Hinton et al., arXiv 1503.02531; Muralidharan et al., Minitron, arXiv 2407.14679 (logits and states after
pruning); Hu et al., LoRA, arXiv 2106.09685.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..errors import ModelError, RecipeError
from ..files import replacing
from ..model.features import ALL, RECURRENT
from ..model.vocabulary import in_vocabulary_of
from .base import PassReport, PassResult, Setting, Shapes
from .kept import kept_tensor
from .spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ..model import Model
    from .learner import Learner

_SAVED = 120.0  # seconds between two states on disk
_TIMED = 4  # steps that tell how many the time has room for; the first of them is slower and does not count
_RESERVE = 0.95  # of the time limit that is planned


@dataclass(frozen=True)
class Recovery(Shapes):
    """Options of the pass.

    Attributes:
        minutes: time limit; without ``steps``, the number of steps follows from it.
        steps: of gradient descent, or None: as many as the time has room for.
        method: ``full`` or ``lora``.
        rank: of the additions, for ``lora``.
        rate: of the weights, at its highest.
        states: weight of the states' squared error, relative to their size, beside the predictions' divergence.
        batch: sequences of one step.
        sequences: of text from a file, at most.
        own_sequences: of text that the model writes itself, where no file is given: writing takes its time.
        teacher: a model to learn from instead of the original, with the same tokens.
        seed: of the order of the text.
    """

    takes: ClassVar[frozenset[str]] = ALL - RECURRENT

    minutes: float = 25.0
    steps: int | None = None
    method: Literal["full", "lora"] = "full"
    rank: int = 16
    rate: float = 8e-4
    states: float = 1.0
    batch: int = 4
    sequences: int = 2048
    own_sequences: int = 256
    teacher: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.minutes > 0 or (self.steps is not None and self.steps < 1):
            raise RecipeError("recovery: 'minutes' and 'steps' must be above 0")
        if min(self.rank, self.batch, self.sequences, self.own_sequences) < 1 or not self.rate > 0 or self.states < 0:
            raise RecipeError("recovery: 'rank', 'batch', 'sequences' and 'rate' must be above 0, 'states' at least 0")

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        spool = Spool(setting.scratch / "recovery.bin", model.weights)
        if spool.entry("final_norm.weight") is None:
            learner, note = self._learn(model, setting)
            spool.write_together(dict(learner.learned()), note)
            (setting.scratch / _STATE).unlink(missing_ok=True)
        return PassResult(replace(model, weights=spool), PassReport("recovery", True, notes=spool.notes))

    def _learn(self, model: Model, setting: Setting) -> tuple[Learner, str]:
        from .learner import Learner

        teacher = self._teacher(model, setting)
        ids = self._text(teacher, setting)
        learner = Learner(model, teacher, self)
        run = _Run(setting.scratch / _STATE, learner, self)
        with setting.progress.stage("Learning from the original", 1.0) as stage:
            for step in run.steps():
                learner.step(ids[self._rows(step, len(ids))], run.progress)
                stage.advance(run.advanced)
        tokens = run.done * self.batch * ids.shape[1]
        return learner, (
            f"recovery: {run.done} steps over {tokens:,} tokens; divergence from the teacher fell from {run.first:.3g} "
            f"to {run.last:.3g} nats a token on that text"
        )

    def _text(self, teacher: Model, setting: Setting) -> torch.Tensor:
        """Ids to learn from, int64 [sequences, length]; kept for a resumed run."""
        most = self.own_sequences if setting.calibration.file is None else self.sequences
        text = replace(setting.calibration, sequences=most)
        return kept_tensor(setting.scratch / "text.pt", lambda: text.tokens(teacher, setting.progress))

    def _teacher(self, model: Model, setting: Setting) -> Model:
        if self.teacher is None:
            return setting.original or model
        from ..model.opening import open_model

        teacher = open_model(self.teacher, setting.progress)
        given, wanted = teacher.tokenizer, model.tokenizer
        if given is None or wanted is None:
            raise ModelError("teacher and student need a tokenizer, to be known to see the same tokens")
        teacher = in_vocabulary_of(teacher, model)
        if given.backend.get_vocab() != wanted.backend.get_vocab() and teacher.tokenizer is given:
            raise ModelError(
                f"the teacher {self.teacher} and the model to teach have different tokens",
                hint="distillation compares predictions token by token: take a teacher of the same family",
            )
        return teacher

    def _rows(self, step: int, sequences: int) -> torch.Tensor:
        """Which sequences a step sees: every one once, in an order of its own, before any comes again."""
        import torch

        found = []
        for at in range(step * self.batch, (step + 1) * self.batch):
            random = torch.Generator().manual_seed(self.seed * 1_000_003 + at // sequences)
            found.append(torch.randperm(sequences, generator=random)[at % sequences])
        return torch.stack(found)


_STATE = "recovery-state.pt"


class _Run:
    """Steps until the planned number or the time is over, with the state on disk now and then.

    Attributes:
        progress: share of the planned steps that is done, 0 to 1.
        advanced: how much of it the last step was.
        done: steps taken, those of an interrupted run included.
        seconds: time taken, that of an interrupted run included.
        first: divergence at the beginning: mean over the first steps, nats a token.
        last: over the last ones.
    """

    def __init__(self, path: Path, learner: Learner, options: Recovery) -> None:
        import torch

        self._path, self._learner, self._limit = path, learner, 60 * options.minutes
        self._planned, self.done, self.seconds = options.steps, 0, 0.0
        self._losses: list[float] = []
        self.advanced = 0.0
        if path.is_file():
            state: dict[str, Any] = torch.load(path, weights_only=True)
            self._planned, self.done, self.seconds = state["planned"], state["done"], state["seconds"]
            self._losses = state["losses"]
            learner.restore(state["learner"])

    @property
    def progress(self) -> float:
        return 0.0 if self._planned is None else min(1.0, self.done / self._planned)

    @property
    def first(self) -> float:
        few = self._losses[:_TIMED]
        return sum(few) / len(few)

    @property
    def last(self) -> float:
        few = self._losses[-10:]
        return sum(few) / len(few)

    def steps(self) -> Iterator[int]:
        """Numbers of the steps to take; the learner has the loss of each when the next is asked for."""
        began, before, warm = time.monotonic(), self.seconds, 0.0
        saved = began
        while (self._planned is None or self.done < self._planned) and self.seconds < self._limit:
            earlier = self.progress
            yield self.done
            self._losses.append(self._learner.loss)
            self.done += 1
            now = time.monotonic()
            self.seconds = before + now - began
            if self.done == 1:
                warm = self.seconds
            if self._planned is None and self.done == _TIMED:
                each = (self.seconds - warm) / (_TIMED - 1)
                self._planned = _TIMED + max(0, int((_RESERVE * self._limit - self.seconds) / each))
            self.advanced = self.progress - earlier
            if now - saved > _SAVED:
                self._save()
                saved = time.monotonic()

    def _save(self) -> None:
        import torch

        state = {"planned": self._planned, "done": self.done, "seconds": self.seconds, "losses": self._losses}
        with replacing(self._path) as partial:
            torch.save({**state, "learner": self._learner.state()}, partial)
