"""Integer checkpoints of compressed-tensors and llm-compressor (``quant_method`` "compressed-tensors").

A group of ``config_groups`` says for its targets how many bits, and whether a scale serves the matrix (``tensor``), a
row (``channel``) or a run of inputs (``group``). Formats, for a matrix [out, in]:

    pack-quantized    weight_packed int32 [out, in * bits / 32], weight_shape int64 [2]; weight_zero_point int32
                      [out * bits / 32, groups], packed along the outputs
    int-quantized,    weight int8 [out, in]; weight_zero_point int8 like the scales
    naive-quantized

with weight_scale float [out, groups] (or [1]) and, in older files, weight_g_idx int [in], the group of each input.
Packed fields are values plus half of the range, lowest first, as one stream of bits; older releases left the last 2
bits of a word of 3-bit fields empty. Values and zero points are signed.
Source: compressed-tensors 0.20 and 0.9.4 (compressors/pack_quantized, quantization/lifecycle/forward.py).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...errors import ModelError
from ..config import Config
from ..safetensors_file import FLOATS, SafetensorsFolder
from .folder import DAMAGED, FOREIGN, Matrix, QuantizedFolder, modules, part
from .gptq import SCATTERED
from .integers import check_range, group_order, off_grid, on_grid, unpack
from .schemes import PACKED, Scheme, read_schemes, scheme_of

if TYPE_CHECKING:
    import torch

    from ..weights import Stored

_SCALE = ".weight_scale"


def open_compressed_tensors(folder: SafetensorsFolder, config: Config) -> QuantizedFolder:
    """Find every ``.weight_scale`` and what belongs to it; only shapes and group indices are read.

    Raises:
        ModelError: a format that is not integers with scales, or damaged tensors.
    """
    schemes = read_schemes(config)
    prefixes = modules(folder, config, _SCALE)
    matrices = {f"{prefix}.weight": _matrix(folder, prefix, scheme_of(prefix, schemes, config)) for prefix in prefixes}
    bits = {scheme.activations for scheme in schemes}
    notes = tuple(dict.fromkeys(note for scheme in schemes for note in scheme.notes))
    if config.get("kv_cache_scheme"):
        notes += ("the checkpoint's scales of a quantized key-value cache are not used",)
    return QuantizedFolder(folder, config, matrices, bits.pop() if len(bits) == 1 else None, notes)


def _matrix(folder: SafetensorsFolder, prefix: str, scheme: Scheme) -> Matrix:
    import torch

    outputs, inputs = _shape(folder, prefix, scheme)
    size = scheme.group or inputs
    groups = -(-inputs // size)
    scale = f"{prefix}{_SCALE}"
    if scheme.whole:
        part(folder, scale, FLOATS, (1,) * len(folder.headers[scale].shape))
    else:
        part(folder, scale, FLOATS, (outputs, groups))
    index = torch.arange(inputs) // size
    if (name := f"{prefix}.weight_g_idx") in folder.headers:
        part(folder, name, {"I32", "I64"}, (inputs,))
        stored = folder.read(name)
        index = index if bool((stored == -1).any()) else stored
    order = group_order(f"{folder.where}: tensor '{name}'", index, groups)
    read = partial(_read, folder, prefix, scheme, (outputs, inputs), index, order)
    if order is None:
        return Matrix((outputs, inputs), read, None, SCATTERED)
    return Matrix((outputs, inputs), read, (scheme.bits, 0 if groups == 1 else size))


def _shape(folder: SafetensorsFolder, prefix: str, scheme: Scheme) -> tuple[int, int]:
    """[out, in], after checking that the stored integers have room for it."""
    if scheme.layout != PACKED:
        outputs, inputs = part(folder, f"{prefix}.weight", {"I8"})
        return outputs, inputs
    outputs, words = part(folder, f"{prefix}.weight_packed", {"I32"})
    part(folder, f"{prefix}.weight_shape", {"I64", "I32"}, (2,))
    rows, inputs = folder.read(f"{prefix}.weight_shape").tolist()
    if rows != outputs or inputs < 1 or words not in _widths(inputs, scheme.bits):
        raise ModelError(
            f"{folder.where}: tensor '{prefix}.weight_packed' is {outputs} x {words} words, which do not hold "
            f"{rows} x {inputs} values of {scheme.bits} bits",
            hint=FOREIGN,
        )
    return outputs, inputs


def _read(
    folder: SafetensorsFolder,
    prefix: str,
    scheme: Scheme,
    shape: tuple[int, int],
    index: torch.Tensor,
    order: torch.Tensor | None,
) -> Stored:
    if scheme.layout == PACKED:
        values = _unpacked(folder.read(f"{prefix}.weight_packed"), scheme.bits, shape[1])
    else:
        values = folder.read(f"{prefix}.weight")
        check_range(f"{folder.where}: tensor '{prefix}.weight'", values, scheme.bits)
    scales = folder.read(f"{prefix}{_SCALE}")
    scales = scales.reshape(1, 1).expand(shape[0], 1) if scheme.whole else scales
    zeros = _zeros(folder, prefix, scheme.bits, scales)
    if order is None:
        return off_grid(values, scales, zeros, index)
    return on_grid(values, scales[:, order], None if zeros is None else zeros[:, order], scheme.bits)


def _zeros(folder: SafetensorsFolder, prefix: str, bits: int, scales: torch.Tensor) -> torch.Tensor | None:
    """Signed zero points like ``scales``, int8 [out, groups], or None."""
    name = f"{prefix}.weight_zero_point"
    if name not in folder.headers:
        return None
    outputs, groups = scales.shape
    if folder.headers[name].kind == "I32":
        words, _ = part(folder, name, {"I32"}, (None, groups))
        if words not in _widths(outputs, bits):
            raise ModelError(
                f"{folder.where}: tensor '{name}' has {words} rows, which do not hold {outputs} values of {bits} bits",
                hint=DAMAGED,
            )
        return _unpacked(folder.read(name).T, bits, outputs).T
    part(folder, name, {"I8"}, folder.headers[f"{prefix}{_SCALE}"].shape)
    zeros = folder.read(name)
    check_range(f"{folder.where}: tensor '{name}'", zeros, bits)
    return zeros.reshape(-1, groups).expand(outputs, groups)


def _widths(count: int, bits: int) -> tuple[int, int]:
    """Words that hold so many fields: as one stream, and with whole fields in each word."""
    return -(-count * bits // 32), -(-count // (32 // bits))


def _unpacked(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    import torch

    if words.shape[1] == _widths(count, bits)[0]:
        return unpack(words, bits, count)
    fields = words.unsqueeze(2) >> torch.arange(0, 33 - bits, bits) & (1 << bits) - 1
    return (fields - (1 << bits - 1)).to(torch.int8).flatten(1)[:, :count]
