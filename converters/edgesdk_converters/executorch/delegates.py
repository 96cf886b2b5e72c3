"""Whether a subgraph of XNNPACK holds together: its header, its flatbuffer, the values that its nodes name.

What each id counts: backends/xnnpack/serialization/schema.fbs and runtime/XNNCompiler.cpp of ExecuTorch 1.5.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping

from edgesdk.bounds.flatbuffer import FlatbufferError, Table, ascii_text, verified
from edgesdk.bounds.flatbuffer_schema import Scalar, read_schema

from .wheel import DELEGATE_SCHEMA, folder

_HEADER = struct.Struct("<4x4sHIIIQ")
_MAGIC = b"XH00"
_INVALID = 0xFFFFFFFF  # XNN_INVALID_VALUE_ID
_DIMENSIONS = 6  # XNN_MAX_TENSOR_DIMS
_HALF_BYTES = {0: 0, 1: 8, 2: 4, 3: 2, 4: 2, 5: 8, 6: 2, 7: 8, 8: 1, 9: 2, 10: 1, 11: 2, 12: 8, 13: 8, 14: 4}


def check_xnnpack(content: memoryview, named: Mapping[bytes, int]) -> None:
    """Check a subgraph.

    Args:
        content: what the program holds for it.
        named: bytes of each constant that has a name in the program.

    Raises:
        FlatbufferError: what does not hold together.
    """
    if len(content) < _HEADER.size or bytes(content[4:8]) != _MAGIC:
        raise FlatbufferError("a subgraph of XNNPACK without a header")
    _, length, start, size, constants, constant_bytes = _HEADER.unpack(content[: _HEADER.size])
    if start + size > len(content) or constants + constant_bytes > len(content) or length < _HEADER.size:
        raise FlatbufferError(f"a subgraph of XNNPACK ends at byte {start + size} of {len(content)}")
    with content[start : start + size] as flat:
        graph = verified(flat, read_schema(folder() / DELEGATE_SCHEMA))
        held = list(_constants(graph, named, len(content) - constants))
        ids = {int(tensor.get("id_out")): tensor for tensor in _tensors(graph)}
        for tensor in ids.values():
            _check_tensor(tensor, held, graph.get("num_externs"))
        for value in graph.tables("xvalues"):
            _check_scales(value.get("xvalue_union"), held)
        for node in graph.tables("xnodes"):
            _check_node(node.get("xnode_union"), ids, graph)
        for key in ("input_ids", "output_ids"):
            _refuse_unknown(graph.numbers(key), ids, key)


def _constants(graph: Table, named: Mapping[bytes, int], room: int) -> Iterator[int]:
    """Bytes of each constant; the first means none."""
    for entry in graph.tables("constant_data"):
        name = bytes(entry.get("named_key") or b"")
        offset, size = int(entry.get("offset")), int(entry.get("size"))
        if name and name not in named:
            raise FlatbufferError(f"a subgraph of XNNPACK takes the constant '{ascii_text(name)}', which is not there")
        if not name and offset + size > room:
            raise FlatbufferError(f"a constant of XNNPACK ends at byte {offset + size} of {room}")
        yield named[name] if name else size


def _tensors(graph: Table) -> Iterator[Table]:
    for value in graph.tables("xvalues"):
        held = value.get("xvalue_union")
        if held is not None and held.name == "XNNQuantizedTensorValue":
            held = held.get("tensor_value")
        if held is None:
            raise FlatbufferError("a value of XNNPACK without a tensor")
        yield held


def _check_tensor(tensor: Table, held: list[int], externs: int) -> None:
    dims, where = tensor.numbers("dims"), f"value {tensor.get('id_out')} of XNNPACK"
    if len(dims) != tensor.get("num_dims") or len(dims) > _DIMENSIONS:
        raise FlatbufferError(f"{where} has {tensor.get('num_dims')} dimensions, and {len(dims)} lengths")
    width = _HALF_BYTES.get(tensor.get("datatype"))
    if width is None:
        raise FlatbufferError(f"{where} is of the unknown type {tensor.get('datatype')}")
    external = tensor.get("external_id")
    if external != _INVALID and external >= max(externs, 1):
        raise FlatbufferError(f"{where} is the external value {external} of {externs}")
    index = tensor.get("constant_buffer_idx")
    if index and (index >= len(held) or math.prod(dims) * width // 2 > held[index]):
        raise FlatbufferError(f"{where} takes {math.prod(dims) * width // 2} bytes of constant {index} of {len(held)}")


def _check_scales(value: Table, held: list[int]) -> None:
    params = value.get("quant_params") if value.name == "XNNQuantizedTensorValue" else None
    if params is None or params.name not in ("PerChannelQuant", "PerChannelGroupQuant"):
        return
    dims = value.get("tensor_value").numbers("dims")
    channel, index, count = params.get("channel_dim"), params.get("scale_buffer_idx"), params.get("num_scales")
    if not 0 <= channel < len(dims):
        raise FlatbufferError(f"scales along dimension {channel} of {len(dims)}")
    width, needed = 4, dims[channel]
    if params.name == "PerChannelGroupQuant":
        group = params.get("group_size")
        if group < 1:
            raise FlatbufferError(f"groups of {group} values")
        width, needed = 2, dims[channel] * (math.prod(dims) // max(1, dims[channel]) // group)
    inline = params.get("scale")
    if index and (index >= len(held) or count * width > held[index] or count < needed):
        raise FlatbufferError(f"{count} scales for {needed} channels in constant {index} of {len(held)}")
    if not index and (inline is None or len(inline) < needed) and params.name == "PerChannelQuant":
        raise FlatbufferError(f"{0 if inline is None else len(inline)} scales for {needed} channels")


def _check_node(node: Table | None, ids: Mapping[int, Table], graph: Table) -> None:
    if node is None:
        raise FlatbufferError("a node of XNNPACK is missing")
    fields = graph.schema.tables[node.name]
    named = (name for name, field in fields.items() if name.endswith("_id") and isinstance(field.kind, Scalar))
    optional = ("bias_id", "input3_id", "input4_id", "input5_id", "mask_id")
    wanted = {name: int(node.get(name)) for name in named}
    _refuse_unknown((number for name, number in wanted.items() if name not in optional), ids, node.name)
    for name, field in fields.items():
        if not isinstance(field.kind, Scalar) and node.get(name) is None:
            raise FlatbufferError(f"{node.name} of XNNPACK has no {name}")
    count = next((node.get(name) for name in ("num_dims",) if name in fields), None)
    lists = [node.numbers(name) for name, field in fields.items() if not isinstance(field.kind, Scalar)]
    if count is not None and any(len(numbers) != count for numbers in lists):
        raise FlatbufferError(f"{node.name} of XNNPACK has {count} dimensions, and lists of other lengths")


def _refuse_unknown(numbers: Iterator[int] | list[int], ids: Mapping[int, Table], what: str) -> None:
    for number in numbers:
        if number not in ids:
            raise FlatbufferError(f"{what} of XNNPACK names value {number}, which is not there")
