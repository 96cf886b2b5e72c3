"""GPTQ checkpoints of GPTQModel, AutoGPTQ and transformers (``quant_method`` "gptq").

Each matrix [out, in] is four tensors, packed along the first of their two axes as one stream of bits (lowest first,
little-endian int32 words; 3-bit fields straddle words):

    qweight  int32 [in * bits / 32, out]      unsigned values, packed along the inputs
    qzeros   int32 [groups, out * bits / 32]  unsigned zero points, packed along the outputs
    scales   float [groups, out]
    g_idx    int32 [in]                       the group of each input; missing: runs of ``group_size``

The first format ("gptq") stores zero points less one, the second ("gptq_v2") as they are. GPTQModel, which transformers
uses, takes one off and adds it to whole packed words, so that a zero point of 0 borrows from its neighbour; it is added
here the same way (in 3 bits field by field, as there). AutoGPTQ wrote such words damaged, whoever reads them.

Source: gptqmodel 7.7 (utils/model.py, nn_modules/qlinear/__init__.py), AutoGPTQ's qlinear_cuda.py.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...errors import ModelError
from ..config import Config
from ..safetensors_file import FLOATS, SafetensorsFolder
from .folder import BITS, FOREIGN, UNQUANTIZED, Matrix, QuantizedFolder, modules, part
from .integers import group_order, off_grid, on_grid, unpack

if TYPE_CHECKING:
    import torch

    from ..weights import Stored

SCATTERED = (
    "inputs that share a scale do not lie side by side in runs of one length (act-order, desc_act), so no "
    "grid holds them; a recipe rounds them a second time"
)


def open_gptq(folder: SafetensorsFolder, config: Config) -> QuantizedFolder:
    """Find every ``.qweight`` and what belongs to it; only ``g_idx`` is read.

    Raises:
        ModelError: another layout, or damaged tensors.
    """
    layout = config.get("checkpoint_format") or config.get("format") or "gptq"
    if layout not in ("gptq", "gptq_v2"):
        raise ModelError(
            f"{config.where}: the GPTQ layout '{layout}' is made for one kind of kernel and cannot be read",
            hint="save it with format 'gptq' or 'gptq_v2', or " + UNQUANTIZED,
        )
    prefixes = modules(folder, config, ".qweight")
    if (bits := config.integer("bits")) not in BITS:
        raise ModelError(f"{config.where}: GPTQ with {bits} bits; {BITS} can be carried", hint=UNQUANTIZED)
    matrices = {f"{prefix}.weight": _matrix(folder, config, prefix, layout == "gptq") for prefix in prefixes}
    return QuantizedFolder(folder, config, matrices)


def _matrix(folder: SafetensorsFolder, config: Config, prefix: str, less_one: bool) -> Matrix:
    import torch

    rows, outputs = part(folder, f"{prefix}.qweight", {"I32"})
    groups, _ = part(folder, f"{prefix}.scales", FLOATS, (None, outputs))
    indexed = f"{prefix}.g_idx" in folder.headers
    if indexed:
        (inputs,) = part(folder, f"{prefix}.g_idx", {"I32", "I64"}, (None,))
        index = folder.read(f"{prefix}.g_idx")
    else:
        inputs = rows * 32 // config.integer("bits")
        size = inputs if config.get("group_size") in (None, -1) else config.integer("group_size")
        index = torch.arange(inputs) // size
    bits = _bits(folder, config, prefix, rows, inputs)
    part(folder, f"{prefix}.qzeros", {"I32"}, (groups, -(-outputs * bits // 32)))
    order = group_order(f"{folder.where}: tensor '{prefix}.g_idx'", index, groups)
    read = partial(_read, folder, prefix, bits, less_one, index, order)
    if order is None:
        return Matrix((outputs, inputs), read, None, SCATTERED)
    return Matrix((outputs, inputs), read, (bits, 0 if groups == 1 else inputs // groups))


def _bits(folder: SafetensorsFolder, config: Config, prefix: str, rows: int, inputs: int) -> int:
    """The configuration's bits, unless the matrix has others of its own (GPTQModel's ``dynamic``)."""
    usual = config.integer("bits")
    for bits in (usual, *BITS):
        if rows == -(-inputs * bits // 32):
            return bits
    raise ModelError(
        f"{folder.where}: tensor '{prefix}.qweight' has {rows} rows, which {usual} bits of {inputs} inputs do not fill",
        hint=FOREIGN,
    )


def _read(
    folder: SafetensorsFolder, prefix: str, bits: int, less_one: bool, index: torch.Tensor, order: torch.Tensor | None
) -> Stored:
    scales = folder.read(f"{prefix}.scales").T
    values = unpack(folder.read(f"{prefix}.qweight").T, bits, index.shape[0])
    zeros = _zeros(folder.read(f"{prefix}.qzeros"), bits, scales.shape[0], less_one).T
    if order is None:
        return off_grid(values, scales, zeros, index)
    return on_grid(values, scales[:, order], zeros[:, order], bits)


def _zeros(words: torch.Tensor, bits: int, outputs: int, less_one: bool) -> torch.Tensor:
    """Signed zero points, int8 [groups, out]."""
    if less_one and bits != 3:
        words = words + sum(1 << shift for shift in range(0, 32, bits))
    zeros = unpack(words, bits, outputs)
    return (zeros + 5 & 7) - 4 if less_one and bits == 3 else zeros
