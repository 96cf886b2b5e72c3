"""A whole rounded model that learns from the float model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.reference import ReferenceModel
from ..model.weights import dense
from .training import Descent, TrainableLayer, fast_type

if TYPE_CHECKING:
    from ..model import Model
    from ..model.weights import Stored
    from .distill import Distillation

_ROWS = 256  # positions whose logits are in memory together


class Student:
    """The layers of a rounded model with their parameters.

    Attributes:
        done: steps taken.
        cut: whether the time limit ended them.
    """

    def __init__(self, model: Model, teacher: ReferenceModel, options: Distillation, *, zeros_stay: bool) -> None:
        """``teacher`` gives the head that its own final states go through; ``zeros_stay`` if integers learn."""
        self._model, self._reference = model, ReferenceModel(model, resident=False)
        with torch.inference_mode(False):
            self._layers = [
                TrainableLayer(
                    model,
                    index,
                    integers=options.integers,
                    rounds_inputs=options.activations == 8,
                    zeros_stay=zeros_stay,
                )
                for index in range(len(model.spec.layers))
            ]
            self._norms = {name: dense(model.weights.get(name)).clone() for name in _norm_names(model)}
        for name, tensor in self._norms.items():
            tensor.requires_grad_()
            if name.startswith("layers."):
                _, index, part = name.split(".", 2)
                self._layers[int(index)].register_buffer(part.replace(".", "_"), tensor)
        self._head = dense(model.weights.get(model.spec.head_name)).to(fast_type())
        self._wanted_head = dense(teacher.model.weights.get(teacher.spec.head_name)).to(fast_type())
        self.done, self.cut = 0, False

    def descent(self, options: Distillation) -> Iterator[int]:
        """Steps to take; :meth:`step` leaves the gradients of each."""
        matrices = [matrix for layer in self._layers for matrix in layer.matrices.values()]
        size = torch.stack([tensor.abs().mean() for tensor in self._norms.values()]).mean().item()
        groups = [
            (options.scale_rate, [matrix.factors for matrix in matrices]),
            (options.norm_rate * size, list(self._norms.values())),
            (options.rate, [matrix.latent for matrix in matrices] if options.integers else []),
        ]
        descent = Descent(groups, options.steps, 60 * options.minutes)
        yield from descent
        self.done, self.cut = descent.done, descent.cut

    def step(self, ids: Tensor, wanted: Tensor) -> float:
        """Leave gradients of the mean divergence on ids [sequences, length], whose teacher's final states are given.

        Returns: that divergence, nats a token.
        """
        with torch.inference_mode(False), torch.enable_grad():
            (x,) = self._reference.embed([ids.clone()])
            states = [x.clone()]
            for layer in self._layers:
                states = self._reference.differentiable(layer, states)
            hidden = self._reference.normalized(states, {name: self._norms[name] for name in self._finals})[0]
            loss = divergence_of(
                hidden.flatten(0, 1), wanted.clone().flatten(0, 1), self._head, self._wanted_head, self._cap
            )
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    @property
    def _cap(self) -> float | None:
        return self._model.spec.logit_softcap

    @property
    def _finals(self) -> list[str]:
        return [name for name in self._norms if name.startswith("final_norm.")]

    def learned(self) -> Iterator[tuple[str, Stored]]:
        """What was learned, by canonical name."""
        for index, layer in enumerate(self._layers):
            yield from layer.learned(index)
        for name, tensor in self._norms.items():
            yield name, tensor.detach()


def _norm_names(model: Model) -> list[str]:
    return [name for name in model.spec.tensors() if name.rpartition(".")[0].endswith("norm")]


def divergence_of(hidden: Tensor, wanted: Tensor, head: Tensor, wanted_head: Tensor, cap: float | None) -> Tensor:
    """Mean KL divergence, nats a token, of predictions from final states [rows, hidden]; its gradient is of ``hidden``.

    ``wanted`` [rows, its own hidden] are the states of the teacher, whose head is ``wanted_head``; ``cap`` is c in
    ``c * tanh(logits / c)`` of both. Logits are in memory a few rows at a time.
    """
    found: Tensor = _Divergence.apply(hidden, wanted, head, wanted_head, cap)  # type: ignore[no-untyped-call]
    return found


class _Divergence(torch.autograd.Function):
    """Mean KL divergence of predictions from hidden states [rows, hidden], without keeping their logits."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, wanted: Tensor, head: Tensor, wanted_head: Tensor, cap: float | None
    ) -> Tensor:
        total, gradients = torch.zeros(()), []
        for at in range(0, len(hidden), _ROWS):
            found = F.linear(hidden[at : at + _ROWS].to(head.dtype), head).float()
            slope = None
            if cap is not None:
                bent = torch.tanh(found / cap)
                found, slope = cap * bent, 1 - bent.square()
            target = F.linear(wanted[at : at + _ROWS].to(head.dtype), wanted_head).float()
            if cap is not None:
                target = cap * torch.tanh(target / cap)
            found, target = F.log_softmax(found, dim=-1), F.log_softmax(target, dim=-1)
            chance = target.exp()
            total += (chance * (target - found)).sum()
            gradient = found.exp_().sub_(chance)
            if slope is not None:
                gradient *= slope
            gradients.append((gradient.to(head.dtype) @ head).float())
        ctx.save_for_backward(torch.cat(gradients) / len(hidden))
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (of_hidden,) = ctx.saved_tensors
        return of_hidden * gradients[0], None, None, None, None
