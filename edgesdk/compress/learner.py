"""A model in float that learns from another: all its matrices, or low-rank additions to them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ModelError
from ..model.layers import DecoderLayer
from ..model.reference import ReferenceModel
from ..model.spec import is_linear
from ..model.weights import dense
from .student import divergence_of
from .training import fast_type

if TYPE_CHECKING:
    from ..model import Model
    from ..model.spec import Layer, Norm
    from .recovery import Recovery

_WARMUP = 0.03  # of the steps
_CLIP = 1.0


class Learner:
    """The student's parameters, the teacher, and the optimizer.

    Attributes:
        loss: divergence from the teacher in the last step, nats a token.
    """

    def __init__(self, model: Model, teacher: Model, options: Recovery) -> None:
        self._model, self._options = model, options
        self._teacher = ReferenceModel(teacher, dtype=fast_type())
        self._reference = ReferenceModel(model, resident=False)
        self.loss = math.nan
        self._free: dict[str, Tensor] = {}  # what the optimizer moves
        self._masks: dict[str, Tensor] = {}
        with torch.inference_mode(False):
            self._layers = [self._layer(index) for index in range(len(model.spec.layers))]
            for name in self._finals:
                self._free[name] = dense(model.weights.get(name)).clone().requires_grad_()
        self._head = dense(model.weights.get(model.spec.head_name)).to(fast_type())
        self._wanted_head = dense(teacher.weights.get(teacher.spec.head_name)).to(fast_type())
        self._same_states = model.spec.hidden == teacher.spec.hidden and options.teacher is None
        self._adam = torch.optim.Adam(list(self._free.values()), lr=options.rate, betas=(0.9, 0.98), fused=True)

    @property
    def _finals(self) -> list[str]:
        return [name for name in self._model.spec.tensors() if name.startswith("final_norm.")]

    def _layer(self, index: int) -> DecoderLayer:
        """A layer over parameters of the student."""
        spec, prefix = self._model.spec, f"layers.{index}."
        tensors: dict[str, Tensor] = {}
        low: dict[str, tuple[Tensor, Tensor]] = {}
        masks: dict[str, Tensor] = {}
        for name in spec.layer_tensors(index):
            tensor, short = dense(self._model.weights.get(name)).clone(), name.removeprefix(prefix)
            if is_linear(name) and self._options.method == "lora":
                low[short.removesuffix(".weight")] = self._addition(name, tensor.shape)
                if bool((tensor == 0).any()):
                    masks[short.removesuffix(".weight")] = tensor != 0
                tensor = tensor.to(fast_type())
            else:
                tensor.requires_grad_()
                self._free[name] = tensor
                if is_linear(name) and bool((tensor == 0).any()):
                    self._masks[name] = tensor.detach() != 0
            tensors[short] = tensor
        return _LearningLayer(spec.layers[index], spec.norm, spec.norm_eps, tensors, low, masks)

    def _addition(self, name: str, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Two thin matrices whose product is added to a matrix: at first nothing."""
        random = torch.Generator().manual_seed(len(self._free))
        down = torch.randn(self._options.rank, shape[1], generator=random) / math.sqrt(shape[1])
        up = torch.zeros(shape[0], self._options.rank)
        self._free[f"{name}:down"], self._free[f"{name}:up"] = down.requires_grad_(), up.requires_grad_()
        return down, up

    def step(self, ids: Tensor, progress: float) -> None:
        """Learn from ids [sequences, length]; ``progress`` is how much of the run lies behind, 0 to 1."""
        with torch.inference_mode():
            wanted = self._teacher.hidden([ids])[0].clone()
        with torch.inference_mode(False), torch.enable_grad():
            (x,) = self._reference.embed([ids.clone()])
            states = [x.clone()]
            fast = fast_type() != torch.float32
            with torch.autocast("cpu", dtype=fast_type()) if fast else nullcontext():
                for layer in self._layers:
                    states = self._reference.differentiable(layer, states)
            norm = {name: self._free[name] for name in self._finals}
            hidden = self._reference.normalized([states[0].float()], norm)[0].flatten(0, 1)
            target = wanted.clone().flatten(0, 1)
            divergence = divergence_of(hidden, target, self._head, self._wanted_head, self._model.spec.logit_softcap)
            loss = divergence
            if self._options.states and self._same_states:
                apart = (hidden - target.float()).square().sum(-1) / target.float().square().sum(-1).clamp(min=1e-12)
                loss = loss + self._options.states * apart.mean()
            loss.backward()  # type: ignore[no-untyped-call]
        self.loss = float(divergence.detach())
        if not math.isfinite(self.loss):
            raise ModelError("recovery: the divergence became NaN", hint="lower 'rate' in the recipe file")
        self._move(progress)

    def _move(self, progress: float) -> None:
        for name, mask in self._masks.items():
            gradient = self._free[name].grad
            if gradient is not None:
                gradient.mul_(mask)
        torch.nn.utils.clip_grad_norm_(self._free.values(), _CLIP)
        falling = 0.05 + 0.95 * (1 + math.cos(math.pi * progress)) / 2
        for group in self._adam.param_groups:
            group["lr"] = self._options.rate * min(1.0, (progress + 1e-3) / _WARMUP) * falling
        self._adam.step()
        self._adam.zero_grad()

    def learned(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor that changed, by canonical name."""
        for name, tensor in self._free.items():
            if ":" not in name:
                yield name, tensor.detach()
            elif name.endswith(":up"):
                whole = name.removesuffix(":up")
                addition = tensor.detach() @ self._free[f"{whole}:down"].detach()
                weight = dense(self._model.weights.get(whole))
                yield whole, (weight + addition).masked_fill(weight == 0, 0)

    def state(self) -> dict[str, Any]:
        """All that :meth:`restore` needs."""
        return {"free": {name: tensor.detach() for name, tensor in self._free.items()}, "adam": self._adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        with torch.no_grad():
            for name, tensor in self._free.items():
                tensor.copy_(state["free"][name])
        self._adam.load_state_dict(state["adam"])


class _LearningLayer(DecoderLayer):
    """A decoder layer whose matrices are leaves of the gradient, with low-rank additions where there are any."""

    def __init__(
        self,
        layer: Layer,
        norm: Norm,
        eps: float,
        tensors: dict[str, Tensor],
        low: dict[str, tuple[Tensor, Tensor]],
        masks: dict[str, Tensor],
    ) -> None:
        super().__init__(layer, norm, eps, tensors)
        self._low, self._masks = low, masks

    def linear(self, x: Tensor, name: str) -> Tensor:
        found = super().linear(x, name)
        if (pair := self._low.get(name)) is not None:
            down, up = pair
            mask = self._masks.get(name)
            found = found + (F.linear(F.linear(x, down), up) if mask is None else F.linear(x, (up @ down) * mask))
        return found
