"""Learning the integers and scales of rounded matrices by gradient descent.

Integers are trained as real numbers whose rounding is ignored by the gradient (the straight-through estimator, Bengio
et al., arXiv 1308.3432); scales through a factor near one, so that they keep their signs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.layers import DecoderLayer
from ..model.tensors import QuantizedTensor, portable_scales
from ..model.weights import dense
from .activations import in_int8

if TYPE_CHECKING:
    from ..model import Model

_LEARNED_BITS = 4  # wider integers are near enough


class RoundedMatrix:
    """A rounded matrix whose scales, and integers if asked, can be learned.

    Attributes:
        factors: of the scales, float32 [out, groups, 1].
        latent: the integers as real numbers, [out, groups, group]: float32 when they are learned, otherwise in the
            processor's fast type, which holds them exactly.
    """

    def __init__(self, tensor: QuantizedTensor, *, integers: bool, zeros_stay: bool) -> None:
        rows = tensor.shape[0]
        self._bits, self._group, self._shape = tensor.bits, tensor.group, tensor.shape
        self.scales = tensor.scales.unsqueeze(2)
        self.factors = torch.ones_like(self.scales).requires_grad_()
        values = tensor.values.to(torch.float32 if integers else fast_type())
        self.latent = values.view(rows, -1, tensor.group).requires_grad_(integers)
        if integers and zeros_stay:
            moving = self.latent.detach() != 0
            self.latent.register_hook(lambda gradient: gradient * moving)  # type: ignore[no-untyped-call]

    def __call__(self, x: Tensor) -> Tensor:
        """``x @ matrix.T``, float32."""
        found: Tensor
        if self.latent.requires_grad:
            limit = float(1 << (self._bits - 1))
            found = _Product.apply(x, self.latent, self.scales, self.factors, limit)  # type: ignore[no-untyped-call]
        else:
            found = _ScaledProduct.apply(x, self.latent, self.scales, self.factors)  # type: ignore[no-untyped-call]
        return found

    def tensor(self) -> QuantizedTensor:
        """The matrix as it was learned."""
        limit = 1 << (self._bits - 1)
        with torch.no_grad():
            values = self.latent.float().round().clamp(-limit, limit - 1).to(torch.int8).view(self._shape)
            scales = portable_scales(self.scales * self.factors).squeeze(2)
        return QuantizedTensor(values, scales, self._bits, self._group)


class TrainableLayer(DecoderLayer):
    """A decoder layer in which some matrices can be learned; the others are fixed.

    Attributes:
        rounds_inputs: the inputs of matrices are rounded to int8 with a scale a token, as the target's kernels will.
    """

    def __init__(
        self, model: Model, index: int, *, integers: bool, rounds_inputs: bool = False, zeros_stay: bool = False
    ) -> None:
        spec, prefix = model.spec, f"layers.{index}."
        self.rounds_inputs = rounds_inputs
        self._rounded: tuple[Tensor | None, Tensor | None] = (None, None)
        self.matrices: dict[str, RoundedMatrix] = {}
        floats: dict[str, Tensor] = {}
        for name in spec.layer_tensors(index):
            stored, short = model.weights.get(name), name.removeprefix(prefix)
            if isinstance(stored, QuantizedTensor) and learnable(stored):
                self.matrices[short.removesuffix(".weight")] = RoundedMatrix(
                    stored, integers=integers, zeros_stay=zeros_stay
                )
            else:
                floats[short] = dense(stored)
        super().__init__(spec.layers[index], spec.norm, spec.norm_eps, floats)

    def linear(self, x: Tensor, name: str) -> Tensor:
        if self.rounds_inputs:
            x = self._in_int8(x)
        matrix = self.matrices.get(name)
        if matrix is None:
            return super().linear(x, name)
        bias = f"{name}_bias"
        return matrix(x) + self.get_buffer(bias) if hasattr(self, bias) else matrix(x)

    def _in_int8(self, x: Tensor) -> Tensor:
        """The input with its rounding, whose gradient is that of ``x``; matrices with the same input share it."""
        if self._rounded[0] is not x:
            exact = x.detach()
            self._rounded = (x, x + in_int8(exact).sub_(exact))
        found = self._rounded[1]
        assert found is not None
        return found

    def forward(self, *inputs: Any) -> Tensor:
        found = super().forward(*inputs)
        self._rounded = (None, None)
        return found

    def learned(self, index: int) -> Iterator[tuple[str, QuantizedTensor]]:
        """The learned matrices of layer ``index``, by canonical name."""
        for name, matrix in self.matrices.items():
            yield f"layers.{index}.{name}.weight", matrix.tensor()


def learnable(tensor: QuantizedTensor) -> bool:
    """Whether a tensor is worth learning: few bits, and a symmetric grid."""
    return tensor.bits <= _LEARNED_BITS and tensor.zero_points is None


class Descent:
    """Adam whose rates fall along half a cosine over a number of steps, and that ends early at a time limit."""

    def __init__(self, parameters: Sequence[tuple[float, list[Tensor]]], steps: int, seconds: float) -> None:
        """``parameters`` with their rates."""
        groups: list[dict[str, Any]] = [{"params": tensors, "lr": rate} for rate, tensors in parameters if tensors]
        self._rates = [group["lr"] for group in groups]
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.99)) if groups else None
        self._steps, self._end = steps, time.monotonic() + seconds
        self.done = 0

    def __iter__(self) -> Iterator[int]:
        """Steps that may still be taken; after each, the gradients that the caller left are applied."""
        if self._adam is None:
            return
        for step in range(self._steps):
            if time.monotonic() >= self._end:
                return
            yield step
            fall = (1 + torch.cos(torch.tensor(torch.pi * step / self._steps))).item() / 2
            for group, rate in zip(self._adam.param_groups, self._rates, strict=True):
                group["lr"] = rate * fall
            self._adam.step()
            self._adam.zero_grad()
            self.done += 1

    @property
    def cut(self) -> bool:
        """Whether the time limit ended it."""
        return self._adam is not None and self.done < self._steps


class _Product(torch.autograd.Function):
    """``x @ (round(latent) * scales * factors).T`` in the processor's fast type, with gradients as described above."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, latent: Tensor, scales: Tensor, factors: Tensor, limit: float) -> Tensor:
        dtype = fast_type()
        rounded = latent.round().clamp_(-limit, limit - 1)
        each = portable_scales(scales * factors)
        weight = (rounded * each).to(dtype).flatten(1)
        short = x.to(dtype)
        ctx.save_for_backward(short, latent, rounded, each, scales, weight)
        ctx.limit = limit
        return F.linear(short, weight).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        short, latent, rounded, each, scales, weight = ctx.saved_tensors
        gradient = gradients[0].to(weight.dtype)
        of_x = (gradient @ weight).float()
        of_weight = (gradient.flatten(0, -2).T @ short.flatten(0, -2)).float().view(latent.shape)
        of_factors = (of_weight * rounded).sum(-1, keepdim=True) * scales
        of_latent = None
        if ctx.needs_input_grad[1]:
            outside = (latent < -ctx.limit - 0.5) | (latent > ctx.limit - 0.5)
            of_latent = (of_weight * each).masked_fill_(outside, 0)
        return of_x, of_latent, None, of_factors, None


class _ScaledProduct(torch.autograd.Function):
    """As :class:`_Product`, for integers that stay as they are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, scales: Tensor, factors: Tensor) -> Tensor:
        each = portable_scales(scales * factors)  # exact in bfloat16
        weight = (values * each.to(values.dtype)).flatten(1)
        short = x.to(values.dtype)
        ctx.save_for_backward(short, values, each, scales)
        return F.linear(short, weight).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        short, values, each, scales = ctx.saved_tensors
        gradient = gradients[0].to(values.dtype)
        weight = (values * each.to(values.dtype)).flatten(1)
        of_x = (gradient @ weight).float()
        of_weight = (gradient.flatten(0, -2).T @ short.flatten(0, -2)).view(values.shape)
        of_factors = (of_weight * values).sum(-1, keepdim=True, dtype=torch.float32) * scales
        return of_x, None, None, of_factors


def fast_type() -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware, otherwise float32."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
