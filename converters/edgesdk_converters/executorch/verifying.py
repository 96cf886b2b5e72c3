"""Whether a program holds together, before the runtime follows its offsets and indices without looking.

What each index counts: exir/_serialize/program.fbs and runtime/executor/method.cpp of ExecuTorch 1.5.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edgesdk.bounds.flatbuffer import FlatbufferError, Table, ascii_text, verified
from edgesdk.bounds.flatbuffer_schema import read_schema
from edgesdk.errors import BundleError

from .delegates import check_xnnpack
from .format import check_file
from .wheel import PROGRAM_SCHEMA, folder

_SCALAR_BYTES = {
    **dict.fromkeys((0, 1, 11, 12, 13, 16, 17, 23, 24, 25, 26), 1),
    **dict.fromkeys((2, 5, 15, 22, 27), 2),
    **dict.fromkeys((3, 6, 14, 28), 4),
    **dict.fromkeys((4, 7, 29), 8),
}
_DIMENSIONS = 16  # kTensorDimensionLimit
_EXTERNAL = 1  # TensorDataLocation
_SEGMENT = 1  # DataLocation
_DAMAGED = "the file is damaged, or made to do harm: take the bundle from who made it, or export again"


def check_program(path: Path) -> None:
    """Check every offset, index, segment and tensor of a program, and those of XNNPACK's subgraphs in it.

    Raises:
        BundleError: what does not hold together.
    """
    layout = check_file(path)
    if not 0 < layout.program_bytes <= layout.data_start + (not layout.data_start) * path.stat().st_size:
        raise BundleError(f"{path}: its header contradicts itself", hint=_DAMAGED)
    schema = read_schema(folder() / PROGRAM_SCHEMA)
    with ExitStack() as stack:  # boards with Python 3.8 know no parentheses here
        file = stack.enter_context(path.open("rb"))
        mapped = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        view = stack.enter_context(memoryview(mapped))
        flat = stack.enter_context(view[: layout.program_bytes])
        data = stack.enter_context(view[layout.data_start : layout.data_start + layout.data_bytes])
        try:
            _Program(verified(flat, schema), data).check()
        except FlatbufferError as failure:
            raise BundleError(f"{path}: the program does not hold together: {failure}", hint=_DAMAGED) from None


class _Program:
    """A program whose flatbuffer is verified."""

    def __init__(self, program: Table, data: memoryview) -> None:
        self._program, self._data = program, data
        self._segments = [(int(it.get("offset")), int(it.get("size"))) for it in program.tables("segments")]
        self._inline = program.tables("backend_delegate_data")
        self._named = {bytes(it.get("key") or b""): int(it.get("segment_index")) for it in program.tables("named_data")}

    def check(self) -> None:
        for number, (offset, size) in enumerate(self._segments):
            if offset + size > len(self._data):
                raise FlatbufferError(f"segment {number} ends at byte {offset + size} of {len(self._data)}")
        _indices("the named data", self._named.values(), self._segments)
        if b"" in self._named:
            raise FlatbufferError("named data without a name")
        constant = self._program.get("constant_segment")
        self._constants = self._subsegments(constant) if constant is not None else []
        self._mutable = [self._subsegments(each) for each in self._program.tables("mutable_data_segments")]
        plans = self._program.tables("execution_plan")
        if not plans:
            raise FlatbufferError("no method")
        for plan in plans:
            self._plan(plan)

    def _subsegments(self, table: Table) -> list[int]:
        """How many bytes follow each offset in a segment."""
        offsets = table.numbers("offsets")
        if not offsets:
            return []
        _indices("the constants", [table.get("segment_index")], self._segments)
        size = self._segments[table.get("segment_index")][1]
        if max(offsets) > size:
            raise FlatbufferError(f"a constant begins at byte {max(offsets)} of {size}")
        return [size - offset for offset in offsets]

    def _plan(self, plan: Table) -> None:
        where = f"method '{ascii_text(_needed(plan, 'name'))}'"
        values = plan.tables("values")
        _needed(plan, "values"), _needed(plan, "inputs"), _needed(plan, "outputs"), _needed(plan, "chains")
        buffers = plan.numbers("non_const_buffer_sizes")
        if any(size < 0 for size in buffers):
            raise FlatbufferError(f"{where} plans a buffer of negative size")
        for number, value in enumerate(values):
            self._value(f"{where}, value {number}", value, values, buffers)
        _indices(f"{where}, inputs", plan.numbers("inputs"), values)
        _indices(f"{where}, outputs", plan.numbers("outputs"), values)
        for delegate in plan.tables("delegates"):
            self._delegate(where, delegate)
        for operator in plan.tables("operators"):
            _needed(operator, "name")
        for chain in plan.tables("chains"):
            self._chain(where, chain, plan, values)

    def _chain(self, where: str, chain: Table, plan: Table, values: Sequence[Table]) -> None:
        _indices(f"{where}, inputs of a chain", chain.numbers("inputs"), values)
        _indices(f"{where}, outputs of a chain", chain.numbers("outputs"), values)
        _needed(chain, "instructions")
        instructions = chain.tables("instructions")
        operators, delegates = plan.tables("operators"), plan.tables("delegates")
        for number, instruction in enumerate(instructions):
            at, call = f"{where}, instruction {number}", _needed(instruction, "instr_args")
            if call.name in ("KernelCall", "DelegateCall"):
                _needed(call, "args")
                _indices(f"{at}, arguments", call.numbers("args"), values)
            if call.name == "KernelCall":
                _indices(f"{at}, operator", [call.get("op_index")], operators)
            elif call.name == "DelegateCall":
                _indices(f"{at}, delegate", [call.get("delegate_index")], delegates)
            elif call.name == "MoveCall":
                _indices(f"{at}, move", [call.get("move_from"), call.get("move_to")], values)
            elif call.name == "JumpFalseCall":
                _indices(f"{at}, condition", [call.get("cond_value_index")], values)
                _indices(f"{at}, jump", [call.get("destination_instruction")], range(len(instructions) + 1))
            else:
                _indices(f"{at}, value", [call.get("value_index")], values)

    def _value(self, where: str, value: Table, values: Sequence[Table], buffers: Sequence[int]) -> None:
        held = value.get("val")
        if held is None:
            if value.get("val_type") > 1:
                raise FlatbufferError(f"{where} is missing")
            return
        if held.name == "Tensor":
            self._tensor(where, held, buffers)
        elif held.name == "String":
            _needed(held, "string_val")
        elif held.name in ("IntList", "TensorList", "OptionalTensorList"):
            _needed(held, "items")
            items = held.numbers("items")
            _indices(where, [it for it in items if it != -1 or held.name != "OptionalTensorList"], values)
        elif held.name in ("DoubleList", "BoolList"):
            _needed(held, "items")

    def _tensor(self, where: str, tensor: Table, buffers: Sequence[int]) -> None:
        sizes, order = tensor.numbers("sizes"), tensor.numbers("dim_order")
        width = _SCALAR_BYTES.get(tensor.get("scalar_type"))
        if width is None:
            raise FlatbufferError(f"{where} has the unknown type {tensor.get('scalar_type')}")
        if len(sizes) > _DIMENSIONS or any(size < 0 for size in sizes) or sorted(order) != list(range(len(sizes))):
            raise FlatbufferError(f"{where} has sizes {sizes[:8]} in the order {order[:8]}")
        if tensor.get("storage_offset"):
            raise FlatbufferError(f"{where} begins {tensor.get('storage_offset')} elements after its data")
        needed, allocation, more = (
            math.prod(sizes) * width,
            tensor.get("allocation_info"),
            tensor.get("extra_tensor_info"),
        )
        if allocation is not None:
            start = allocation.get("memory_offset_low") + (allocation.get("memory_offset_high") << 32)
            memory = allocation.get("memory_id")
            if not 0 < memory < len(buffers) or start + needed > buffers[memory]:
                raise FlatbufferError(f"{where} takes {needed} bytes from {start} on of buffer {memory}")
        index = tensor.get("data_buffer_idx")
        if more is not None and more.get("location") == _EXTERNAL:
            _needed(more, "fully_qualified_name")
        elif index:
            self._data_of(where, index, needed, more, constant=allocation is None)

    def _data_of(self, where: str, index: int, needed: int, more: Table | None, *, constant: bool) -> None:
        inline = self._program.tables("constant_buffer")
        if constant and inline:
            _indices(f"{where}, data", [index], inline)
            held = len(_needed(inline[index], "storage"))
        elif constant:
            _indices(f"{where}, data", [index], self._constants)
            held = self._constants[index]
        else:
            group = 0 if more is None else more.get("mutable_data_segments_idx")
            _indices(f"{where}, data", [group], self._mutable)
            _indices(f"{where}, data", [index], self._mutable[group])
            held = self._mutable[group][index]
        if needed > held:
            raise FlatbufferError(f"{where} takes {needed} bytes of data, and {held} are there")

    def _delegate(self, where: str, delegate: Table) -> None:
        name, processed = ascii_text(_needed(delegate, "id")), _needed(delegate, "processed")
        for option in delegate.tables("compile_specs"):
            _needed(option, "key")
        index = processed.get("index")
        if processed.get("location") == _SEGMENT:
            _indices(f"{where}, delegate", [index], self._segments)
            offset, size = self._segments[index]
            content = self._data[offset : offset + size]
        else:
            _indices(f"{where}, delegate", [index], self._inline)
            content = memoryview(bytes(_needed(self._inline[index], "data")))
        with content:
            if name == "XnnpackBackend":
                check_xnnpack(content, {key: self._segments[at][1] for key, at in self._named.items()})


def _needed(table: Table, name: str) -> Any:
    found = table.get(name)
    if found is None:
        raise FlatbufferError(f"{table.name} at byte {table.at} has no {name}")
    return found


def _indices(where: str, indices: Iterable[int], counted: Sequence[object] | range) -> None:
    for index in indices:
        if not 0 <= index < len(counted):
            raise FlatbufferError(f"{where}: {index} of {len(counted)}")
