"""Even out the channels of keys, so that an int8 cache with one scale a token holds them as if each had its own.

What it does: channel c of the keys is divided by ``max|k_c|**a`` and the channel of the queries that meets it is
multiplied, in the weights of ``k`` and ``q`` (or in the norms of their heads). Both channels of a rotary pair share a
scale, since the rotation mixes them. Scores stay what they were, and the runtime pays nothing.
When to use it: with an int8 cache (``-kv8``); keys have channels far larger than the rest.
What it costs: a forward pass over the calibration text; memory of one layer.
Example: ``edgesdk export MODEL --target android-arm64 --recipe w4g32-keys-kv8``.
Source: Lin et al., QServe (SmoothAttention), arXiv 2405.04532, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ..errors import RecipeError
from ..model.features import ALL, RECURRENT
from ..model.weights import dense
from .base import KeepsGrid, PassReport, PassResult, Setting
from .folding import key_fold
from .layerwise import walk
from .spool import Spool

if TYPE_CHECKING:
    import torch

    from ..model import Model
    from ..model.spec import Attention


@dataclass(frozen=True)
class KeySmoothing(KeepsGrid):
    """Options of the pass.

    Attributes:
        strength: a in the formula: 0 changes nothing, 1 makes all channels of the keys equally large.
    """

    takes: ClassVar[frozenset[str]] = ALL - RECURRENT - {"qk_norm_all", "qk_layer_norm", "qkv_clip"}

    strength: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise RecipeError(f"keys: 'strength' must lie between 0 and 1, found {self.strength}")

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        spool = Spool(setting.scratch / "keys.bin", model.weights)
        for index, inputs in walk(model, setting, "Smoothing keys"):
            keys, queries = key_fold(model.spec, index)
            if spool.entry(queries[-1]) is not None:
                continue
            attention = model.spec.layers[index].attention
            peaks = inputs.of("keys").peaks.view(attention.kv_heads, attention.head_dim)
            if attention.qk_norm:  # all heads share one norm
                peaks = peaks.amax(0, keepdim=True)
            scale = self._scale(peaks, attention)
            each = scale if attention.qk_norm else scale.repeat_interleave(attention.heads // attention.kv_heads, dim=0)
            changed = {name: _times(dense(model.weights.get(name)), 1 / scale.flatten()) for name in keys}
            changed |= {name: _times(dense(model.weights.get(name)), each.flatten()) for name in queries}
            spool.write_together(changed)
        return PassResult(replace(model, weights=spool), PassReport("keys", True))

    def _scale(self, peaks: torch.Tensor, attention: Attention) -> torch.Tensor:
        """Scales [heads, head_dim] for peaks of the same shape, of which rotary pairs share one."""
        import torch

        if attention.rope is not None:
            first, second = peaks.chunk(2, dim=-1)
            peaks = torch.maximum(first, second).repeat(1, 2)
        scale = peaks.clamp(min=1e-5) ** self.strength
        return scale / scale.log().mean(-1, keepdim=True).exp()


def _times(tensor: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return tensor * (scale.unsqueeze(1) if tensor.dim() == 2 else scale)
