"""Reads packed weights back out of a written program, to prove that they are the pass's own integers and scales."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgesdk.model.tensors import QuantizedTensor, unpack_nibbles

from .format import check_file
from .packing import unpack_filter
from .subgraph import SCALES, VALUES, PackedFilter
from .wheel import DELEGATE_SCHEMA, PROGRAM_SCHEMA, decompile_flatbuffer

_EMBEDDINGS = {"quantized_decomposed::embedding_byte": 8, "quantized_decomposed::embedding_4bit": 4}
_KINDS = {"FLOAT": torch.float32, "BFLOAT16": torch.bfloat16, "CHAR": torch.int8, "BYTE": torch.uint8}


def read_packed(path: Path) -> dict[str, QuantizedTensor]:
    """Every packed matrix of a program by its name there (``layers.0.qkv`` ...); ``embed`` as its kernel reads it.

    Raises:
        EdgeError: the file is no whole program.
    """
    layout = check_file(path)
    content = np.memmap(path, mode="r")
    program = decompile_flatbuffer(PROGRAM_SCHEMA, bytes(content[: layout.program_bytes]))
    segments = [content[layout.data_start + segment["offset"] :][: segment["size"]] for segment in program["segments"]]
    named = {entry["key"]: segments[entry["segment_index"]] for entry in program["named_data"]}
    found: dict[str, QuantizedTensor] = {}
    plans = program["execution_plan"]
    for number in sorted({delegate["processed"]["index"] for plan in plans for delegate in plan["delegates"]}):
        for name, packed in _filters(_graph(bytes(segments[number])), named):
            found[name] = unpack_filter(packed)
    embedding = _embedding(plans[0], segments[0], program["constant_segment"]["offsets"])
    return found if embedding is None else {**found, "embedding": embedding}


def _graph(delegate: bytes) -> dict[str, Any]:
    start = int.from_bytes(delegate[10:14], "little")
    size = int.from_bytes(delegate[14:18], "little")
    return decompile_flatbuffer(DELEGATE_SCHEMA, delegate[start : start + size])


def _filters(graph: dict[str, Any], named: dict[str, np.ndarray]) -> Iterator[tuple[str, PackedFilter]]:
    for value in graph["xvalues"]:
        params = value["xvalue_union"].get("quant_params")
        if not params or not params.get("num_scales"):
            continue
        tensor = value["xvalue_union"]["tensor_value"]
        key = graph["constant_data"][tensor["constant_buffer_idx"]]["named_key"]
        name, (rows, inputs) = key.removesuffix(VALUES), tensor["dims"]
        group = params.get("group_size") or inputs
        bits = 8 if tensor["datatype"] == "xnn_datatype_qcint8" else 4
        values = _tensor(named[key], torch.int8 if bits == 8 else torch.uint8).view(rows, -1)
        kind = torch.float32 if group == inputs else torch.bfloat16
        yield name, PackedFilter(values, _tensor(named[name + SCALES], kind), bits, inputs, group)


def _embedding(plan: dict[str, Any], constants: np.ndarray, offsets: list[int]) -> QuantizedTensor | None:
    """The table of the first call of an embedding kernel."""
    for instruction in plan["chains"][0]["instructions"]:
        call = instruction["instr_args"]
        bits = _EMBEDDINGS.get(plan["operators"][call.get("op_index", 0)]["name"])
        if instruction["instr_args_type"] != "KernelCall" or bits is None:
            continue
        values, scales = (_constant(plan["values"][index]["val"], constants, offsets) for index in call["args"][:2])
        if bits == 4:  # the kernel reads the high half of a byte first, and the program swaps the pairs back
            values = unpack_nibbles(values)
        scales = scales.float().view(values.shape[0], -1)
        return QuantizedTensor(values, scales, bits, values.shape[1] // scales.shape[1])
    return None


def _constant(tensor: dict[str, Any], constants: np.ndarray, offsets: list[int]) -> torch.Tensor:
    kind, shape = _KINDS[tensor["scalar_type"]], tensor["sizes"]
    size = int(np.prod(shape)) * kind.itemsize
    start = offsets[tensor["data_buffer_idx"]]
    return _tensor(constants[start : start + size], kind).view(shape)


def _tensor(raw: np.ndarray, kind: torch.dtype) -> torch.Tensor:
    return torch.frombuffer(bytearray(raw.tobytes()), dtype=kind)
