"""Ternary checkpoints of BitNet b1.58 (``quant_method`` "bitnet", arXiv 2402.17764) in a family's own architecture.

Each matrix [out, in] is two tensors:

    weight        uint8 [out / 4, in]  value + 1 in 2 bits: byte row r holds rows r, r + out / 4, r + out / 2 ... of the
                                       matrix, the first in the lowest bits
    weight_scale  float [1]            one scale for the matrix

The "bitlinear" class divides by the scale, "autobitlinear" multiplies. Activations are int8, one scale a token.
Source: transformers' integrations/bitnet.py and quantizers/quantizer_bitnet.py, 5.23.
"""

from __future__ import annotations

from functools import partial

from ...errors import ModelError
from ..config import Config
from ..safetensors_file import FLOATS, SafetensorsFolder
from ..tensors import QuantizedTensor
from .folder import DAMAGED, Matrix, QuantizedFolder, modules, part

_SCALE = ".weight_scale"


def open_bitnet(folder: SafetensorsFolder, config: Config) -> QuantizedFolder:
    """Find every ``.weight_scale`` and the packed weight that belongs to it.

    Raises:
        ModelError: weights that transformers rounds as it runs, norms inside of linear layers, or damaged tensors.
    """
    if config.get("quantization_mode") == "online":
        raise ModelError(
            f"{config.where}: quantization_mode 'online' stores float weights and rounds them at every step",
            hint="save it packed (quantization_mode 'offline'), or remove quantization_config and compress the floats",
        )
    if config.get("use_rms_norm"):
        raise ModelError(
            f"{config.where}: use_rms_norm puts a norm inside of each linear layer, which no family here has",
            hint="open a checkpoint without it",
        )
    divides = config.choice("linear_class", {"bitlinear": True, "autobitlinear": False}, "bitlinear")
    matrices = {f"{prefix}.weight": _matrix(folder, prefix, divides) for prefix in modules(folder, config, _SCALE)}
    return QuantizedFolder(folder, config, matrices, activations=8)


def _matrix(folder: SafetensorsFolder, prefix: str, divides: bool) -> Matrix:
    rows, inputs = part(folder, f"{prefix}.weight", {"U8"})
    scale = f"{prefix}{_SCALE}"
    part(folder, scale, FLOATS, () if folder.headers[scale].shape == () else (1,))
    return Matrix((4 * rows, inputs), partial(_read, folder, prefix, divides), (2, 0))


def _read(folder: SafetensorsFolder, prefix: str, divides: bool) -> QuantizedTensor:
    import torch

    packed = folder.read(f"{prefix}.weight")
    values = torch.cat([packed >> shift & 3 for shift in (0, 2, 4, 6)])
    if bool((values == 3).any()):
        raise ModelError(
            f"{folder.where}: tensor '{prefix}.weight' holds values that are not -1, 0 or 1",
            hint=DAMAGED,
        )
    scale = folder.read(f"{prefix}{_SCALE}").float().reshape(1, 1)
    scales = (scale.reciprocal() if divides else scale).expand(values.shape[0], 1)
    return QuantizedTensor((values - 1).view(torch.int8), scales.contiguous(), 2, values.shape[1])
