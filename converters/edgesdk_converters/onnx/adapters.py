"""LoRA adapters that a program can switch to: two more inputs for a matrix, and ``.onnx_adapter`` files that fill them.

The inputs are initializers that callers may override, of rank zero by default: the product with them is then nothing.
ONNX Runtime's own adapters (``RunOptions.add_active_adapter``) and onnxruntime-genai's bind them by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from edgesdk.errors import ModelError

if TYPE_CHECKING:
    from edgesdk.model import Model
    from edgesdk.model.adapter import Adapter

FOLDER, SUFFIX = "adapters", ".onnx_adapter"
_VERSION = 1  # of an adapter and of its model, for users of the format to compare; nothing here does
_PRODUCT = re.compile(r"(layers\.\d+)\.(\w+)\.(?:out|product)")
_STACKED = {"qkv": ("q", "k", "v")}


def add_inputs(graph: ir.Graph, model: Model) -> None:
    """Give every product with a matrix that one of the adapters changes the inputs of an update.

    Raises:
        ModelError: the program multiplies with such a matrix in a way that has no place for an update.
    """
    left = {name for adapter in model.switchable for name in adapter.matrices}
    for node in list(graph):
        name, parts = _matrices(node)
        if left.isdisjoint(parts):
            continue
        shapes = [model.spec.tensors()[part] for part in parts]
        _add(graph, node, name, shapes[0][1], sum(rows for rows, _ in shapes))
        left.difference_update(parts)
    if left:
        raise ModelError(
            f"this program has no place for an update of {min(left)}, which an adapter changes",
            hint="merge the adapter: --adapter FOLDER",
        )


def write_adapters(graph: ir.Graph, model: Model, folder: Path) -> dict[str, str]:
    """Write a file for each adapter into a bundle; returns their names with the files'."""
    from onnxruntime import AdapterFormat, OrtValue

    (folder / FOLDER).mkdir()
    files = {}
    for adapter in model.switchable:
        parameters = {
            name: OrtValue.ortvalue_from_numpy(array) for name, array in _parameters(graph, model, adapter).items()
        }
        format_ = AdapterFormat()
        format_.set_adapter_version(_VERSION)
        format_.set_model_version(_VERSION)
        format_.set_parameters(parameters)
        files[adapter.name] = f"{FOLDER}/{adapter.name}{SUFFIX}"
        format_.export_adapter(str(folder / files[adapter.name]))
    return files


def _matrices(node: ir.Node) -> tuple[str, list[str]]:
    """The name of a product in the graph, and the matrices that it stacks; none for any other node."""
    found = _PRODUCT.fullmatch(node.name or "")
    if found is None or node.op_type not in ("MatMul", "MatMulNBits"):
        return "", []
    layer, part = found.groups()
    return f"{layer}.{part}", [f"{layer}.{each}.weight" for each in _STACKED.get(part, (part,))]


def _input_names(name: str) -> tuple[str, str]:
    return f"{name}.lora_A", f"{name}.lora_B"


def _add(graph: ir.Graph, node: ir.Node, name: str, columns: int, rows: int) -> None:
    x, product = node.inputs[0], node.outputs[0]
    assert x is not None
    float_type = graph.outputs[0].dtype
    assert float_type is not None
    rank, (first, second) = f"{name}.rank", _input_names(name)
    inputs = []
    for key, shape, empty in ((first, (columns, rank), (columns, 0)), (second, (rank, rows), (0, rows))):
        default = ir.Tensor(np.zeros(empty, dtype=float_type.numpy()), dtype=float_type, name=key)
        value = ir.Value(name=key, type=ir.TensorType(float_type), shape=ir.Shape(shape), const_value=default)
        graph.register_initializer(value)
        graph.inputs.append(value)
        inputs.append(value)
    uses = list(product.uses())
    narrow = ir.node("MatMul", [x, inputs[0]], name=f"{name}.lora.narrow")
    wide = ir.node("MatMul", [narrow.outputs[0], inputs[1]], name=f"{name}.lora.wide")
    total = ir.node("Add", [product, wide.outputs[0]], name=f"{name}.lora.sum")
    for each in (narrow, wide, total):
        each.outputs[0].name = each.name
    graph.insert_after(node, [narrow, wide, total])
    for use in uses:
        use.node.replace_input_with(use.idx, total.outputs[0])


def _parameters(graph: ir.Graph, model: Model, adapter: Adapter) -> Mapping[str, np.ndarray]:
    """What an adapter gives the inputs, in the order of the graph."""
    dtype = graph.outputs[0].dtype
    assert dtype is not None
    found: dict[str, np.ndarray] = {}
    for node in graph:
        name, parts = _matrices(node)
        if set(parts).isdisjoint(adapter.matrices):
            continue
        a, b = _stacked(model, adapter, parts)
        for key, tensor in zip(_input_names(name), (a.T, b.T), strict=True):
            found[key] = np.ascontiguousarray(tensor.numpy().astype(dtype.numpy()))
    return found


def _stacked(model: Model, adapter: Adapter, parts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """One update for stacked matrices: a [ranks, in] and b [outs, ranks]; those with the same A share its ranks."""
    a: list[torch.Tensor] = []
    blocks: list[tuple[int, int, torch.Tensor]] = []  # first row, first rank, values
    row = 0
    for part in parts:
        rows = model.spec.tensors()[part][0]
        if part in adapter.matrices:
            update = adapter.update(part)
            at = next((index for index, known in enumerate(a) if torch.equal(known, update.a)), len(a))
            if at == len(a):
                a.append(update.a)
            blocks.append((row, sum(len(known) for known in a[:at]), update.b))
        row += rows
    joined = torch.cat(a)
    b = torch.zeros(row, len(joined))
    for first, rank, values in blocks:
        b[first : first + values.shape[0], rank : rank + values.shape[1]] = values
    return joined, b
