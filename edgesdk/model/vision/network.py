"""The image's side of a vision-language model, written once; see :mod:`..encoders.network`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..encoders.network import Arithmetic, through
from ..vision_spec import ImageSpec

if TYPE_CHECKING:
    import torch

V = TypeVar("V")


class ImageArithmetic(Arithmetic[V], Protocol[V]):
    """What an image encoder needs beside."""

    def patches(self) -> V:
        """The product of every patch with the patch matrix, row by row: [images, patches, hidden]."""

    def patch_positions(self) -> V:
        """The position of every patch, [1, patches, hidden]."""

    def shuffled(self, x: V) -> V:
        """Squares of patches side by side: [images, rows, hidden * shuffle^2]."""


def image_rows(ops: ImageArithmetic[V], spec: ImageSpec, on_layer: Callable[[], object] = lambda: None) -> V:
    """Rows for the decoder, [images, rows, its hidden size]."""
    x = ops.add(ops.patches(), ops.patch_positions())
    for index, layer in enumerate(spec.layers):
        x = through(ops, spec.prefix(index), layer, spec.norm, x)
        on_layer()
    return ops.linear(ops.shuffled(ops.norm(x, "vision_norm", spec.norm)), "connector")


def position_numbers(spec: ImageSpec) -> torch.Tensor:
    """The row of the position table for every patch of a whole image, int64 [patches].

    Found as transformers finds it, in float32: a patch's place within the image, sought among the grid's boundaries.
    """
    import torch

    grid = spec.grid
    boundaries = torch.arange(1 / grid, 1.0, 1 / grid)
    places = (torch.arange(grid, dtype=torch.float32) * (1.0 / torch.tensor(grid))).clamp(max=1.0 - 1e-6)
    bucket = torch.bucketize(places, boundaries, right=True)
    return (bucket[:, None] * grid + bucket[None, :]).reshape(-1)
