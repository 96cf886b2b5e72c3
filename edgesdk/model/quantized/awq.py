"""AWQ checkpoints of AutoAWQ and GPTQModel (``quant_method`` "awq", layout "gemm", 4 bits).

Each matrix [out, in] is three tensors; a word holds eight neighbours of the output axis, the even ones in its low half:

    qweight  int32 [in, out / 8]      unsigned values
    qzeros   int32 [groups, out / 8]  unsigned zero points
    scales   float [groups, out]

What AWQ did to activations lies in the norms before, which are stored as floats.
Source: AutoAWQ's awq/modules/linear/gemm.py and awq/utils/packing_utils.py.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...errors import ModelError
from ..config import Config
from ..safetensors_file import FLOATS, SafetensorsFolder
from .folder import DAMAGED, UNQUANTIZED, Matrix, QuantizedFolder, modules, part
from .integers import on_grid, unpack

if TYPE_CHECKING:
    import torch

    from ..tensors import QuantizedTensor

#: Where in its word the value of each of eight neighbours lies.
_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)


def open_awq(folder: SafetensorsFolder, config: Config) -> QuantizedFolder:
    """Find every ``.qweight`` and what belongs to it.

    Raises:
        ModelError: another layout, other bits than 4, or damaged tensors.
    """
    layout = str(config.get("version") or config.get("checkpoint_format") or config.get("format") or "gemm").lower()
    if layout != "gemm":
        raise ModelError(
            f"{config.where}: the AWQ layout '{layout}' cannot be read, only 'gemm'",
            hint="quantize with version 'gemm', or " + UNQUANTIZED,
        )
    bits = config.integer("bits", config.integer("w_bit", 4))
    if bits != 4:
        raise ModelError(f"{config.where}: AWQ with {bits} bits; its layout 'gemm' has 4", hint=UNQUANTIZED)
    matrices = {f"{prefix}.weight": _matrix(folder, prefix) for prefix in modules(folder, config, ".qweight")}
    return QuantizedFolder(folder, config, matrices)


def _matrix(folder: SafetensorsFolder, prefix: str) -> Matrix:
    inputs, words = part(folder, f"{prefix}.qweight", {"I32"})
    groups, _ = part(folder, f"{prefix}.scales", FLOATS, (None, 8 * words))
    part(folder, f"{prefix}.qzeros", {"I32"}, (groups, words))
    if not groups or inputs % groups:
        raise ModelError(
            f"{folder.where}: tensor '{prefix}.scales' has {groups} rows, which do not divide {inputs} inputs",
            hint=DAMAGED,
        )
    grid = (4, 0 if groups == 1 else inputs // groups)
    return Matrix((8 * words, inputs), partial(_read, folder, prefix), grid)


def _read(folder: SafetensorsFolder, prefix: str) -> QuantizedTensor:
    values, zeros = (_columns(folder.read(f"{prefix}.{part}")).T for part in ("qweight", "qzeros"))
    return on_grid(values, folder.read(f"{prefix}.scales").T, zeros, 4)


def _columns(words: torch.Tensor) -> torch.Tensor:
    """Signed values of packed neighbours: int32 [rows, n] to int8 [rows, 8 n]."""
    packed = unpack(words, 4, 8 * words.shape[1]).view(words.shape[0], -1, 8)
    return packed[..., list(_PLACES)].flatten(1)
