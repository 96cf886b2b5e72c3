"""Checkpoints that another tool quantized: one module for each ``quant_method`` of ``quantization_config``.

An opener reads headers (and small index tensors), never weights, and gives a :class:`~.folder.QuantizedFolder` whose
matrices come out as the tool's own integers and scales. To add a method, write a module and add its line below; other
packages add theirs through the entry-point group ``edgesdk.checkpoints``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ...errors import ModelError
from ...registry import Registry, unknown
from ..config import Config
from ..safetensors_file import SafetensorsFolder
from .folder import Matrix, QuantizedFolder

#: Reads a folder's headers with the help of its ``quantization_config``.
Opener: TypeAlias = Callable[[SafetensorsFolder, Config], QuantizedFolder]

CHECKPOINTS: Registry[Opener] = Registry(
    "quantization method",
    "edgesdk.checkpoints",
    {
        "awq": "edgesdk.model.quantized.awq:open_awq",
        "bitnet": "edgesdk.model.quantized.bitnet:open_bitnet",
        "compressed-tensors": "edgesdk.model.quantized.compressed_tensors:open_compressed_tensors",
        "gptq": "edgesdk.model.quantized.gptq:open_gptq",
        "torchao": "edgesdk.model.quantized.torchao:open_torchao",
    },
)


def open_quantized(folder: SafetensorsFolder, config: Config) -> QuantizedFolder:
    """Open a folder whose ``quantization_config`` is ``config``.

    Raises:
        ModelError: a method or a variant of it that cannot be carried exactly, or damaged tensors.
    """
    method = str(config.get("quant_method"))
    known = CHECKPOINTS.names()
    if method not in known:
        raise ModelError(
            f"{config.where}: {unknown('quantization method', method, known)}", hint="export the unquantized checkpoint"
        )
    return CHECKPOINTS.get(method)(folder, config)


__all__ = ["CHECKPOINTS", "Matrix", "Opener", "QuantizedFolder", "open_quantized"]
