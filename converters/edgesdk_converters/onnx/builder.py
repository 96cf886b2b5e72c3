"""A thin layer over onnx-ir: nodes by a call each, weights streamed into one external data file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import onnx_ir as ir

from .names import DATA_FILE

if TYPE_CHECKING:
    import torch

CONTRIB = "com.microsoft"
_ALIGNMENT = 64
_INLINE_BYTES = 1024  # smaller tensors stay inside the graph


class GraphBuilder:
    """Collects nodes and initializers; large tensors go straight to the data file and out of memory."""

    def __init__(
        self,
        folder: Path,
        data: BinaryIO,
        dtype: torch.dtype,
        stored: dict[str, ir.TensorProtocol] | None = None,
        *,
        repeats: bool = False,
    ) -> None:
        """Start a graph.

        Args:
            folder: of the program.
            data: the data file.
            dtype: the program's float type.
            stored: the tensors that several graphs over one data file share, by name.
            repeats: equal tensors are stored once; to find them, every tensor is hashed.
        """
        self.folder, self.dtype = folder, dtype
        self._stored = {} if stored is None else stored
        self._offsets: dict[bytes, int] | None = {} if repeats else None
        self.inputs: list[ir.Value] = []
        self.outputs: list[ir.Value] = []
        self._shared: dict[str, ir.Value] = {}
        self._data = data
        self._nodes: list[ir.Node] = []
        self._initializers: dict[str, ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> None:
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(shape)
        self.outputs.append(value)

    def op(self, kind: str, inputs: Sequence[ir.Value | None], name: str, **more: Any) -> ir.Value:
        """Add a node with one output and return it; see :meth:`multi`."""
        return self.multi(kind, inputs, name, outputs=1, **more)[0]

    def multi(
        self,
        kind: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        domain: str = "",
        outputs: int,
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """Add a node and return all its outputs; None inputs are optional ones left out."""
        values = [ir.Value(name=name if index == 0 else f"{name}:{index}") for index in range(outputs)]
        present = list(inputs)
        while present and present[-1] is None:
            present.pop()
        node = ir.node(kind, present, attributes=attributes or None, domain=domain, outputs=values, name=name)
        self._nodes.append(node)
        return values

    def shared(self, kind: str, inputs: Sequence[ir.Value | None], name: str, **attributes: Any) -> ir.Value:
        """Like :meth:`op`, but added once a name: for nodes over constants that several consumers use."""
        if name not in self._shared:
            self._shared[name] = self.op(kind, inputs, name, **attributes)
        return self._shared[name]

    def weight(self, name: str, tensor: torch.Tensor) -> ir.Value:
        """Add an initializer (once a name); the caller may drop ``tensor`` afterwards."""
        if name not in self._initializers:
            self._initializers[name] = self._store(name, tensor.contiguous())
        return self._initializers[name]

    def floats(self, name: str, tensor: torch.Tensor) -> ir.Value:
        """A float initializer in the program's own float type."""
        return self.weight(name, tensor.to(self.dtype))

    def constant(self, name: str, values: Sequence[int] | Sequence[list[int]] | int) -> ir.Value:
        """A small int64 initializer: a matrix, a vector, or a scalar."""
        import torch

        return self.weight(name, torch.tensor(values, dtype=torch.int64))

    def graph(self, name: str, opset: int) -> ir.Graph:
        return ir.Graph(
            self.inputs,
            self.outputs,
            nodes=self._nodes,
            initializers=list(self._initializers.values()),
            opset_imports={"": opset, CONTRIB: 1},
            name=name,
        )

    def _store(self, name: str, tensor: torch.Tensor) -> ir.Value:
        if name not in self._stored:
            self._stored[name] = self._kept(name, tensor)
        stored = self._stored[name]
        shape = ir.Shape(tuple(tensor.shape))
        return ir.Value(name=name, type=ir.TensorType(stored.dtype), shape=shape, const_value=stored)

    def _kept(self, name: str, tensor: torch.Tensor) -> ir.TensorProtocol:
        import torch

        data_type = onnx_type(tensor.dtype)
        flat = tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor.to(torch.uint8).reshape(-1)
        raw = flat.numpy()
        shape = ir.Shape(tuple(tensor.shape))
        stored: ir.TensorProtocol
        if raw.nbytes <= _INLINE_BYTES:
            stored = ir.Tensor(raw.view(data_type.numpy()).reshape(tuple(tensor.shape)), dtype=data_type, name=name)
        else:
            offset = self._written(raw.data)
            stored = ir.ExternalTensor(
                DATA_FILE, offset, raw.nbytes, data_type, shape=shape, name=name, base_dir=self.folder
            )
        return stored

    def _written(self, raw: memoryview) -> int:
        """Where the bytes are in the data file: written now, or before."""
        known, digest = self._offsets, b""
        if known is not None:
            digest = hashlib.sha256(raw).digest()
            if digest in known:
                return known[digest]
        self._data.write(b"\0" * (-self._data.tell() % _ALIGNMENT))
        offset = self._data.tell()
        self._data.write(raw)
        if known is not None:
            known[digest] = offset
        return offset


def onnx_type(dtype: torch.dtype) -> ir.DataType:
    """The ONNX element type of a torch type."""
    import torch

    return {
        torch.float32: ir.DataType.FLOAT,
        torch.float16: ir.DataType.FLOAT16,
        torch.bfloat16: ir.DataType.BFLOAT16,
        torch.uint8: ir.DataType.UINT8,
        torch.int8: ir.DataType.INT8,
        torch.int64: ir.DataType.INT64,
    }[dtype]
