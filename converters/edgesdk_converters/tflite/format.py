"""Reading a ``.tflite`` file without a runtime: TFLM trusts every offset in it, so a damaged file must stop here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgesdk.errors import BundleError, MissingExtraError

from .verifying import IDENTIFIER, check_program

_DAMAGED = "the file is damaged or incomplete: copy it again, or export again"


@dataclass(frozen=True, eq=False)
class Contents:
    """A parsed file.

    Attributes:
        name: of the file.
        content: its bytes.
        model: the schema's objects.
        codes: the operator name of each operator code.
        kinds: the type name of each tensor type's number.
    """

    name: str
    content: bytes
    model: Any
    codes: tuple[str, ...]
    kinds: dict[int, str]

    @property
    def graph(self) -> Any:
        """The first subgraph, the only one that TFLM runs."""
        return self.model.subgraphs[0]

    def code(self, operator: Any) -> str:
        found: str = self.codes[operator.opcodeIndex]
        return found

    def kind(self, tensor: Any) -> str:
        return self.kinds[tensor.type]

    def data(self, tensor: Any) -> np.ndarray | None:
        """The bytes of a constant, or None for a tensor in memory."""
        found: np.ndarray | None = self.model.buffers[tensor.buffer].data
        return found if tensor.buffer and found is not None and len(found) else None


def scales_of(tensor: Any) -> np.ndarray:
    """The scales of a tensor, empty when it has none."""
    if tensor.quantization is None or tensor.quantization.scale is None:
        return np.zeros(0, np.float32)
    return np.asarray(tensor.quantization.scale)


def zero_of(tensor: Any) -> int:
    """The zero point of a tensor with one scale."""
    found = None if tensor.quantization is None else tensor.quantization.zeroPoint
    return 0 if found is None or not len(found) else int(found[0])


def read_file(path: Path) -> Contents:
    """Parse a file.

    Raises:
        BundleError: no such file, not a TFLite program, or one that was cut short.
        MissingExtraError: the schema is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "ai_edge_litert", "tflite") from None

    content = read_bytes(path)
    check_program(path)
    try:
        model = schema.ModelT.InitFromPackedBuf(content)
        names = {number: name for name, number in vars(schema.BuiltinOperator).items() if name.isupper()}
        kinds = {number: name for name, number in vars(schema.TensorType).items() if name.isupper()}
        codes = tuple(_named(code, names) for code in model.operatorCodes)
        found = Contents(path.name, content, model, codes, kinds)
        _check(found)
    except Exception as failure:  # a wrong offset ends in any of struct.error, ValueError, IndexError, KeyError ...
        raise BundleError(f"{path}: not a whole TFLite program ({failure})", hint=_DAMAGED) from None
    return found


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that says it is a TFLite program."""
    try:
        content = path.read_bytes()
    except OSError as failure:
        raise BundleError(f"{path}: cannot be read ({failure.strerror})") from None
    if content[4:8] != IDENTIFIER:
        raise BundleError(f"{path}: not a TFLite program", hint=_DAMAGED)
    return content


def _named(code: Any, names: Mapping[int, str]) -> str:
    """An operator's name; a custom one's own."""
    found = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return found if found != "CUSTOM" or code.customCode is None else code.customCode.decode()


def _check(found: Contents) -> None:
    """Every number that a runtime follows lies inside what it counts."""
    tensors = found.graph.tensors
    for tensor in tensors:
        found.model.buffers[tensor.buffer], found.kinds[tensor.type]
    for operator in found.graph.operators:
        found.code(operator)
        for index in (*operator.inputs, *operator.outputs):
            if not -1 <= index < len(tensors):
                raise IndexError(f"tensor {index} of {len(tensors)}")
    for index in (*found.graph.inputs, *found.graph.outputs):
        tensors[index]
