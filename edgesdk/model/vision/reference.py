"""The torch reference of vision-language models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...session import ImageRows
from ..encoders.reference import TorchArithmetic
from ..reference import ReferenceModel, ReferenceSession
from ..vision_spec import ImageSpec
from . import network
from .model import VisionModel


class _Images(TorchArithmetic):
    """Images [images, channels, size, size]; implements :class:`network.ImageArithmetic`."""

    def __init__(self, base: TorchArithmetic, spec: ImageSpec, pixels: Tensor) -> None:
        self.share(base)
        self._spec, self._pixels = spec, pixels

    def patches(self) -> Tensor:
        found = F.conv2d(self._pixels, self.weight("patch.weight"), self.weight("patch.bias"), stride=self._spec.patch)
        return found.flatten(2).transpose(1, 2)

    def patch_positions(self) -> Tensor:
        return self.weight("patch_positions.weight")[network.position_numbers(self._spec)].unsqueeze(0)

    def shuffled(self, x: Tensor) -> Tensor:
        grid, edge, hidden = self._spec.grid, self._spec.shuffle, self._spec.hidden
        x = x.view(len(x), grid // edge, edge, grid // edge, edge, hidden)
        return x.transpose(2, 3).reshape(len(x), self._spec.rows, hidden * edge**2)


class _Seeing(ReferenceModel):
    """The decoder's reference, with rows of images in the place of image tokens."""

    images: ImageRows

    @torch.inference_mode()
    def embed(self, batches: Sequence[Tensor], start: int = 0) -> list[Tensor]:
        found = super().embed(batches, start)
        for x, ids in zip(found, batches, strict=True):
            rows = self.images.take(start, ids[0].tolist())
            if len(rows):
                x[0, ids[0] == self.images.token] = torch.from_numpy(rows)
        return found


class VisionReference(ReferenceSession):
    """The reference model behind the :class:`~edgesdk.session.VisionSession` interface."""

    def __init__(self, model: VisionModel, context: int | None = None) -> None:
        super().__init__(model.decoder, context)
        spec = model.spec
        self.image_size, self.image_rows, self.image_token = spec.image.size, spec.image.rows, spec.image_token
        self._spec, self._base = spec, TorchArithmetic(model.weights, list(spec.tensors()))
        self._seeing = _Seeing(model.decoder)
        self._seeing.images = ImageRows(spec.image_token, spec.text.hidden)
        self._reference = self._seeing

    @torch.inference_mode()
    def show(self, pixels: np.ndarray) -> np.ndarray:
        images = _Images(self._base, self._spec.image, torch.from_numpy(pixels).float().unsqueeze(0))
        rows = network.image_rows(images, self._spec.image)[0].numpy()
        self._seeing.images.add(rows)
        return rows

    def reset(self) -> None:
        super().reset()
        if hasattr(self, "_seeing"):
            self._seeing.images.clear()
