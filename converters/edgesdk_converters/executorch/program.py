"""Writes an ExecuTorch program (.pte) without tracing: methods of kernel and delegate calls, planned memory, data.

Tensors go to a file as they come: see :class:`.data.DataFile`.
Source: program.fbs, schema.fbs, the emitter and the serializers of ExecuTorch 1.5.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .data import ALIGNMENT, DataFile
from .format import HEADER, MAGIC
from .wheel import DELEGATE_SCHEMA, PROGRAM_SCHEMA, compile_flatbuffers

_PLANNED_ALIGNMENT = 64
_SLACK = 64  # XNNPACK's kernels may read this far past the end of a tensor
_ACTIVATIONS, _STATES = 1, 2  # numbers of the planned memories; 0 stands for constants
_KINDS = {
    torch.float32: "FLOAT",
    torch.float16: "HALF",
    torch.bfloat16: "BFLOAT16",
    torch.float64: "DOUBLE",
    torch.int64: "LONG",
    torch.int8: "CHAR",
    torch.uint8: "BYTE",
    torch.bool: "BOOL",
}
_WIDTHS = {name: kind.itemsize for kind, name in _KINDS.items()}

_Document = dict[str, Any]


@dataclass(frozen=True)
class Slot:
    """A tensor of a method: its number there, its shape (an upper bound when dynamic) and its type."""

    index: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Number:
    """An integer variable of a method: its number there."""

    index: int


@dataclass(frozen=True)
class Flag:
    """A truth value of a method: its number there."""

    index: int


class Method:
    """One method under construction; calls run in the order in which they are added."""

    def __init__(self, name: str, data: DataFile) -> None:
        self.name, self._data = name, data
        self._values: list[tuple[str, _Document]] = []
        self._literals: dict[tuple[type[Any], Any], int] = {}
        self._inputs: list[int] = []
        self._outputs: list[int] = []
        self._calls: list[_Document] = []
        self._operators: dict[str, int] = {}
        self._delegates: dict[int, int] = {}
        self._loops: list[tuple[int, int]] = []  # first and last call of each
        self._parts: dict[int, tuple[int, int]] = {}  # of tensors in planned memory: whose part, from which byte

    def input(self, dtype: torch.dtype, shape: Sequence[int], *, dynamic: bool = False) -> Slot:
        """An input of the method."""
        slot = self.tensor(dtype, shape, dynamic=dynamic)
        self._inputs.append(slot.index)
        return slot

    def output(self, slot: Slot) -> None:
        """Make a tensor an output of the method."""
        self._outputs.append(slot.index)

    def tensor(self, dtype: torch.dtype, shape: Sequence[int], *, dynamic: bool = False) -> Slot:
        """A tensor in planned memory; a dynamic one is at most this large."""
        return self._tensor(dtype, shape, memory=_ACTIVATIONS, dynamism="DYNAMIC_BOUND" if dynamic else "STATIC")

    def part(self, whole: Slot, index: int) -> Slot:
        """One element of a tensor in planned memory that is not dynamic, in the same memory: [1]."""
        slot = self._tensor(whole.dtype, (1,))
        self._parts[slot.index] = (whole.index, index * whole.dtype.itemsize)
        return slot

    def state(self, dtype: torch.dtype, shape: Sequence[int]) -> Slot:
        """A tensor that keeps its content from call to call."""
        return self._tensor(dtype, shape, memory=_STATES)

    def constant(self, name: str, tensor: torch.Tensor) -> Slot:
        """A constant that kernels read."""
        return self._tensor(tensor.dtype, tuple(tensor.shape), buffer=self._data.constant(name, tensor))

    def variable(self) -> Number:
        """An integer that a call fills in."""
        return Number(self._value("Int", {"int_val": 0}))

    def flag(self) -> Flag:
        """A truth value that a call fills in."""
        return Flag(self._value("Bool", {"bool_val": False}))

    def literal(self, value: object) -> int:
        """None, a bool, an integer, a float, or a tuple of integers."""
        key = (type(value), value)
        if key not in self._literals:
            if isinstance(value, tuple):
                self._literals[key] = self._value("IntList", {"items": [self.literal(item) for item in value]})
            else:
                self._literals[key] = self._value(*_literal(value))
        return self._literals[key]

    def call(self, operator: str, arguments: Sequence[object], *out: Slot | Number | Flag) -> None:
        """Call a kernel: ``namespace::name.overload``; arguments are slots, variables, or literals."""
        numbers = [self._argument(argument) for argument in arguments]
        results = [each.index for each in out]
        if isinstance(out[0], Slot):  # kernels name their results twice: one by one, and as what they return
            results.append(results[0] if len(out) == 1 else self._value("TensorList", {"items": list(results)}))
        operation = self._operators.setdefault(operator, len(self._operators))
        self._calls.append({"op_index": operation, "args": numbers + results})

    def delegate(self, number: int, arguments: Sequence[Slot]) -> None:
        """Call the delegate whose bytes have this number in the program."""
        place = self._delegates.setdefault(number, len(self._delegates))
        self._calls.append({"delegate_index": place, "args": [slot.index for slot in arguments]})

    @contextmanager
    def each(self, count: Number, size: int = 1) -> Iterator[tuple[Number, Number]]:
        """Run the calls that are added inside for every block of ``size`` of ``count`` things, at least once.

        Gives where a block begins and where the next one would, which may be beyond the count.
        """
        at, following, done = self.variable(), self.variable(), self.flag()
        self.call("executorch_prim::add.Scalar", [0, 0], at)
        first = len(self._calls)
        self.call("executorch_prim::add.Scalar", [at, size], following)
        yield at, following
        self.call("executorch_prim::add.Scalar", [at, size], at)
        self.call("executorch_prim::ge.Scalar", [at, count], done)
        self._loops.append((first, len(self._calls)))
        self._calls.append({"cond_value_index": done.index, "destination_instruction": first})

    @contextmanager
    def only_if(self, flag: Slot | Flag) -> Iterator[None]:
        """Run the calls that are added inside only where the flag (as a tensor: a bool) is true."""
        jump = {"cond_value_index": flag.index, "destination_instruction": 0}
        self._calls.append(jump)
        yield
        jump["destination_instruction"] = len(self._calls)

    def plan(self, delegate_segment: int) -> tuple[_Document, int]:
        """The finished method and the bytes of planned memory that it needs.

        ``delegate_segment`` is the segment of delegate number 0; the others follow it.
        """
        sizes = [0, self._place_activations(), self._place_states()]
        plan = {
            "name": self.name,
            "container_meta_type": _container(len(self._inputs), len(self._outputs)),
            "values": [{"val_type": kind, "val": value} for kind, value in self._values],
            "inputs": self._inputs,
            "outputs": self._outputs,
            "chains": [{"inputs": [], "outputs": [], "instructions": [_instruction(call) for call in self._calls]}],
            "operators": [_operator(name) for name in self._operators],
            "delegates": [
                {"id": "XnnpackBackend", "processed": {"location": "SEGMENT", "index": delegate_segment + number}}
                for number in self._delegates
            ],
            "non_const_buffer_sizes": sizes,
        }
        return plan, sum(sizes)

    def _argument(self, argument: object) -> int:
        return argument.index if isinstance(argument, Slot | Number | Flag) else self.literal(argument)

    def _value(self, kind: str, value: _Document) -> int:
        self._values.append((kind, value))
        return len(self._values) - 1

    def _tensor(
        self, dtype: torch.dtype, shape: Sequence[int], *, memory: int = 0, buffer: int = 0, dynamism: str = "STATIC"
    ) -> Slot:
        described = {
            "scalar_type": _KINDS[dtype],
            "sizes": list(shape),
            "dim_order": list(range(len(shape))),
            "data_buffer_idx": buffer,
            "shape_dynamism": dynamism,
        }
        if memory:
            described["allocation_info"] = _place(memory, 0)
        return Slot(self._value("Tensor", described), tuple(shape), dtype)

    def _place_states(self) -> int:
        end = 0
        for tensor in self._planned(_STATES).values():
            tensor["allocation_info"] = _place(_STATES, end)
            end += _planned_bytes(tensor)
        return end and end + _SLACK

    def _place_activations(self) -> int:
        """Give tensors that live at different times the same memory: largest first, each at the lowest free place."""
        planned, spans = self._planned(_ACTIVATIONS), self._spans()
        placed: list[tuple[int, int, int, int]] = []  # offset, stop, first and last call
        for index in sorted(planned, key=lambda number: -_planned_bytes(planned[number])):
            first, last = spans[index]
            size, offset = _planned_bytes(planned[index]), 0
            for start, stop, born, dead in sorted(placed):
                if first <= dead and born <= last and offset + size > start:
                    offset = max(offset, stop)
            placed.append((offset, offset + size, first, last))
            planned[index]["allocation_info"] = _place(_ACTIVATIONS, offset)
        for index, (whole, start) in self._parts.items():
            place = planned[whole]["allocation_info"]
            offset = place["memory_offset_low"] + (place["memory_offset_high"] << 32)
            self._values[index][1]["allocation_info"] = _place(_ACTIVATIONS, offset + start)
        return max((stop for _, stop, _, _ in placed), default=0) + _SLACK

    def _planned(self, memory: int) -> dict[int, _Document]:
        return {
            index: value
            for index, (_, value) in enumerate(self._values)
            if value.get("allocation_info", {}).get("memory_id") == memory
        }

    def _spans(self) -> dict[int, tuple[int, int]]:
        """First and last call that touches each value; inputs live from the start, outputs to the end.

        What a loop shares with the calls around it lives as long as the loop.
        """
        spans: dict[int, tuple[int, int]] = dict.fromkeys(self._inputs, (-1, -1))
        for position, call in enumerate(self._calls):
            for index in call.get("args") or [call["cond_value_index"]]:
                index, _ = self._parts.get(index, (index, 0))
                first, _ = spans.get(index, (position, position))
                spans[index] = (first, position)
        for index in self._outputs:
            spans[index] = (spans[index][0], len(self._calls))
        for start, stop in self._loops:
            for index, (first, last) in spans.items():
                if first < start <= last or first <= stop < last:
                    spans[index] = (min(first, start), max(last, stop))
        return spans


class ProgramFile:
    """A program: methods, delegates and data."""

    def __init__(self, data: DataFile) -> None:
        self.data = data
        self._methods: list[Method] = []
        self._facts: list[_Document] = []
        self._delegates: list[_Document] = []

    def delegate(self, document: _Document) -> int:
        """Add a delegate, as a document of its schema; returns its number."""
        self._delegates.append(document)
        return len(self._delegates) - 1

    def method(self, method: Method) -> None:
        """Add a finished method."""
        self._methods.append(method)

    def fact(self, name: str, value: bool | int | Sequence[int]) -> None:
        """Add a method that returns a constant: how runners learn about a program."""
        listed = isinstance(value, Sequence)
        values = [_literal(item) for item in (value if isinstance(value, Sequence) else [value])]
        self._facts.append(
            {
                "name": name,
                "container_meta_type": {"encoded_out_str": _tree("list" if listed else None, len(values))},
                "values": [{"val_type": kind, "val": item} for kind, item in values],
                "inputs": [],
                "outputs": list(range(len(values))),
                "chains": [{"inputs": [], "outputs": [], "instructions": []}],
                "operators": [],
                "delegates": [],
                "non_const_buffer_sizes": [0],
            }
        )

    def write(self, path: Path) -> dict[str, int]:
        """Write the program and take the data in; returns the planned memory of each method, in bytes."""
        for number, content in enumerate(compile_flatbuffers(DELEGATE_SCHEMA, self._delegates)):
            self.data.add(_delegate_name(number), torch.frombuffer(_with_header(content), dtype=torch.uint8))
        fields = self.data.segments()
        first = len(fields["segments"]) - len(self._delegates)
        del fields["named_data"][first - 1 :]  # delegates are found by their segments
        planned = [(method.name, *method.plan(first)) for method in self._methods]
        plans = [plan for _, plan, _ in planned]
        (flat,) = compile_flatbuffers(PROGRAM_SCHEMA, [{"execution_plan": plans + self._facts, **fields}])
        self._join(path, flat)
        return {name: size for name, _, size in planned}

    def _join(self, path: Path, flat: bytes) -> None:
        """The flatbuffer with the extended header after its identifier, then the data."""
        source, size = self.data.finish()
        base = math.ceil((HEADER.size + len(flat)) / ALIGNMENT) * ALIGNMENT
        header = HEADER.pack(MAGIC, HEADER.size, HEADER.size + len(flat), base, size)
        root = int.from_bytes(flat[:4], "little") + HEADER.size
        with path.open("wb") as out:
            out.write((root.to_bytes(4, "little") + flat[4:8] + header + flat[8:]).ljust(base, b"\0"))
            with source.open("rb") as stream:
                shutil.copyfileobj(stream, out, 1 << 20)


#: Zeros, magic, length, offset and size of the flatbuffer, offset and size of constants; XNNHeader.cpp.
_DELEGATE_HEADER = struct.Struct("<4x4sHIIIQ")
_DELEGATE_START = 32


def _with_header(content: bytes) -> bytearray:
    """A delegate's flatbuffer with the header that says where it is."""
    stop = math.ceil((_DELEGATE_START + len(content)) / 16) * 16
    header = _DELEGATE_HEADER.pack(b"XH00", _DELEGATE_HEADER.size, _DELEGATE_START, len(content), stop, 0)
    return bytearray((header.ljust(_DELEGATE_START, b"\0") + content).ljust(stop, b"\0"))


def _delegate_name(number: int) -> str:
    return f"delegate.{number}"


def _place(memory: int, offset: int) -> _Document:
    return {"memory_id": memory, "memory_offset_low": offset & 0xFFFFFFFF, "memory_offset_high": offset >> 32}


def _planned_bytes(tensor: _Document) -> int:
    size: int = math.prod(tensor["sizes"]) * _WIDTHS[tensor["scalar_type"]]
    return math.ceil(size / _PLANNED_ALIGNMENT) * _PLANNED_ALIGNMENT


def _instruction(call: _Document) -> _Document:
    kinds = {"op_index": "KernelCall", "delegate_index": "DelegateCall", "cond_value_index": "JumpFalseCall"}
    return {"instr_args_type": next(kind for field, kind in kinds.items() if field in call), "instr_args": call}


def _operator(name: str) -> _Document:
    namespace, _, overload = name.partition(".")
    return {"name": namespace, "overload": overload}


def _literal(value: object) -> tuple[str, _Document]:
    if value is None:
        return "Null", {}
    if isinstance(value, bool):
        return "Bool", {"bool_val": value}
    if isinstance(value, int):
        return "Int", {"int_val": value}
    assert isinstance(value, float)
    return "Double", {"double_val": value}


def _container(inputs: int, outputs: int) -> _Document:
    """How bindings pack inputs and outputs: positional, and the output alone or as a tuple."""
    (_, arguments), keywords = json.loads(_tree("tuple", inputs)), _node("builtins.dict", "[]", [])
    packed = json.dumps([1, _node("builtins.tuple", "null", [arguments, keywords])])
    return {"encoded_inp_str": packed, "encoded_out_str": _tree(None if outputs == 1 else "tuple", outputs)}


def _tree(kind: str | None, leaves: int) -> str:
    leaf = _node(None, None, [])
    return json.dumps([1, leaf if kind is None else _node(f"builtins.{kind}", "null", [leaf] * leaves)])


def _node(kind: str | None, context: str | None, children: list[Any]) -> _Document:
    return {"type": kind, "context": context, "children_spec": children}
