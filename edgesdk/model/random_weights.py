"""Random weights for a spec: made on demand, the same for the same seed, for tests and ``edgesdk doctor``."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from .spec import DecoderSpec

if TYPE_CHECKING:
    import torch


class RandomWeights:
    """Normal matrices scaled by fan-in, norms near one, small biases; float32."""

    def __init__(self, spec: DecoderSpec, seed: int = 0) -> None:
        self._shapes, self._seed = spec.tensors(), seed

    def get(self, name: str) -> torch.Tensor:
        import torch

        shape = self._shapes[name]
        random = torch.Generator().manual_seed(self._seed + zlib.crc32(name.encode()))
        values = torch.randn(shape, generator=random)
        if name.endswith("norm.weight"):
            return 1 + 0.1 * values
        return values * (0.02 if len(shape) == 1 else shape[-1] ** -0.5)
