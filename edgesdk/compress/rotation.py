"""Rotations: spread outliers over all channels before rounding, folded into the weights.

What it does: ``hidden`` multiplies the residual stream by an orthogonal matrix (R1): embedding, and every matrix that
reads it or writes to it; norms' weights move into the matrices that follow. ``values`` rotates each head's values (R2)
in ``v`` and back in ``o``. The model computes the same, and the runtime pays nothing; the rotations inside attention
and the MLP that would cost time on the device (R3, R4) are left out. The matrices are Hadamard matrices with random
signs, times an orthogonal cosine matrix where the size is no power of two.
When to use it: before rounding to four bits and fewer, and for int8 activations with outliers. ``hidden`` gives a model
whose head is tied a head of its own, which costs its size: choose ``-h4``, or only ``values``.
What it costs: one pass over the weights; memory of the largest matrix.
Example: ``edgesdk compress MODEL --recipe w4g32-rot-gptq --out DIR``.
Source: Ashkboos et al., QuaRot, arXiv 2404.00456; Liu et al., SpinQuant, arXiv 2405.16406 (names R1 and R2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ..errors import RecipeError
from ..model.features import TURNED
from ..model.weights import dense
from ..progress import track
from .base import KeepsGrid, PassReport, PassResult, Setting
from .spool import Spool

if TYPE_CHECKING:
    import torch

    from ..model import DecoderSpec, Model


@dataclass(frozen=True)
class Rotation(KeepsGrid):
    """Options of the pass.

    Attributes:
        hidden: rotate the residual stream (R1).
        values: rotate each head's values (R2).
        seed: of the signs.
    """

    takes: ClassVar[frozenset[str]] = TURNED

    hidden: bool = True
    values: bool = True
    seed: int = 0

    def spec(self, spec: DecoderSpec) -> DecoderSpec:
        if not self.hidden:
            return spec
        refuse_unturnable(spec, "rotate the values alone: [[pass]] use = 'rotation', hidden = false (names: -rotv)")
        return replace(spec, tied=False)

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        spec = self.spec(model.spec)
        spool = Spool(setting.scratch / "rotation.bin", model.weights)
        hidden = orthogonal(spec.hidden, self.seed) if self.hidden else None
        for index in track(setting.progress, "Rotating weights", range(len(spec.layers))):
            turn = orthogonal(spec.layers[index].attention.head_dim, self.seed + 1 + index) if self.values else None
            for name, tensor in turned_layer(model, index, hidden, turn):
                if spool.entry(name) is None:
                    spool.write(name, tensor)
        if hidden is not None:
            for name, tensor in turned_ends(model, hidden):
                if spool.entry(name) is None:
                    spool.write(name, tensor)
        return PassResult(replace(model, spec=spec, weights=spool), PassReport("rotation", True))


def refuse_unturnable(spec: DecoderSpec, hint: str) -> None:
    """Raise an error where norms keep a residual stream from being turned."""
    if spec.norm != "rms" or any(layer.post_norms for layer in spec.layers):
        what = "layer norms" if spec.norm != "rms" else "norms after attention and MLP"
        raise RecipeError(f"the residual stream of family {spec.family} cannot be turned: it has {what}", hint=hint)


def turned_layer(
    model: Model, index: int, hidden: torch.Tensor | None, values: torch.Tensor | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of a layer in a turned residual stream, and with turned values.

    Args:
        model: to read from.
        index: of the layer.
        hidden: orthonormal columns [hidden, new hidden], or None: the stream stays.
        values: orthogonal [head_dim, head_dim], or None.
    """
    attention, prefix = model.spec.layers[index].attention, f"layers.{index}."
    for name in model.spec.layer_tensors(index):
        part, kind = name.removeprefix(prefix).split(".")
        if part in ("q_norm", "k_norm"):
            continue
        tensor = dense(model.weights.get(name))
        if hidden is not None:
            if part in ("attn_norm", "mlp_norm"):
                tensor = plain_norm(hidden)
            elif kind == "weight" and part in ("q", "k", "v", "gate", "up"):
                norm = "attn_norm" if part in ("q", "k", "v") else "mlp_norm"
                tensor = (tensor * dense(model.weights.get(f"{prefix}{norm}.weight"))) @ hidden
            elif part in ("o", "down"):
                tensor = hidden.T @ tensor
        if values is not None and part == "v":
            tensor = (values.T @ tensor.view(attention.kv_heads, attention.head_dim, -1)).view(tensor.shape)
        elif values is not None and name == f"{prefix}o.weight":
            tensor = (tensor.view(-1, attention.heads, attention.head_dim) @ values).view(tensor.shape)
        yield name, tensor


def turned_ends(model: Model, hidden: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Embedding, final norm and head in the turned stream; see :func:`turned_layer`."""
    norm = dense(model.weights.get("final_norm.weight"))
    yield "embed.weight", dense(model.weights.get("embed.weight")) @ hidden
    if model.spec.learned_positions:
        yield "positions.weight", dense(model.weights.get("positions.weight")) @ hidden
    yield "head.weight", (dense(model.weights.get(model.spec.head_name)) * norm) @ hidden
    yield "final_norm.weight", plain_norm(hidden)


def plain_norm(hidden: torch.Tensor) -> torch.Tensor:
    """Weights of a norm behind a turn: ones, or more where fewer channels are left to share the same square."""
    import torch

    return torch.full((hidden.shape[1],), math.sqrt(hidden.shape[0] / hidden.shape[1]))


def orthogonal(size: int, seed: int) -> torch.Tensor:
    """A random orthogonal matrix with entries of about the same magnitude, float32 [size, size]."""
    import torch

    power = size & -size  # the largest power of two that divides it
    found = torch.kron(_hadamard(power), _cosines(size // power))
    signs = torch.randint(0, 2, (size, 1), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return (found * signs).float()


def _hadamard(size: int) -> torch.Tensor:
    """Sylvester's Hadamard matrix of a power of two, scaled to be orthogonal, in float64."""
    import torch

    found = torch.ones((1, 1), dtype=torch.float64)
    while len(found) < size:
        found = torch.cat((torch.cat((found, found), 1), torch.cat((found, -found), 1)))
    return found / math.sqrt(size)


def _cosines(size: int) -> torch.Tensor:
    """The orthogonal cosine transform (DCT-II), in float64."""
    import torch

    rows, columns = torch.arange(size, dtype=torch.float64).unsqueeze(1), torch.arange(size, dtype=torch.float64)
    found = torch.cos(math.pi * rows * (2 * columns + 1) / (2 * size)) * math.sqrt(2 / size)
    found[0] /= math.sqrt(2)
    return found
