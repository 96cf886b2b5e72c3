"""Where an ONNX program keeps its weights: every file that it names lies in the bundle, and holds what is taken of it.

The file is walked as protocol buffers are written (protobuf.dev, "Encoding"), so that only names are held in memory.
The numbers of the fields are those of onnx.proto3.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from edgesdk.errors import BundleError

_GRAPH, _FUNCTIONS = 7, 25  # of ModelProto
_NODES, _INITIALIZERS, _SPARSE = 1, 5, 15  # of GraphProto
_ATTRIBUTES, _FUNCTION_NODES = 5, 7  # of NodeProto and of FunctionProto
_TENSOR, _INNER, _TENSORS, _GRAPHS, _SPARSE_TENSOR, _SPARSE_TENSORS = 5, 6, 10, 11, 22, 23  # of AttributeProto
_EXTERNAL, _KEY, _VALUE = 13, 1, 2  # of TensorProto, and of what it says of another file
_NAME = 8  # of TensorProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_DEPTH = 100  # of graphs inside of graphs
_TEXT = 4096  # bytes of a name or a path
_MEMORY = "*/_ORT_MEM_ADDR_/*"  # ONNX Runtime takes the offset for an address in its own memory then
_DISTRUST = "do not trust this bundle"
_DAMAGED = "the file is damaged, or made to do harm: take the bundle from who made it, or export again"

#: Which fields of a message are messages, and of what kind.
_INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {_GRAPH: "graph", _FUNCTIONS: "function"},
    "graph": {_NODES: "node", _INITIALIZERS: "tensor", _SPARSE: "sparse"},
    "function": {_FUNCTION_NODES: "node"},
    "node": {_ATTRIBUTES: "attribute"},
    "attribute": {
        _TENSOR: "tensor",
        _INNER: "graph",
        _TENSORS: "tensor",
        _GRAPHS: "graph",
        _SPARSE_TENSOR: "sparse",
        _SPARSE_TENSORS: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
}


def check_program(path: Path, folder: Path, files: Mapping[str, int]) -> None:
    """Check that a program is whole, and where its external data lie.

    Args:
        path: the program.
        folder: of the bundle.
        files: bytes of each file of the bundle, by its path there.

    Raises:
        BundleError: it is cut short; or data lie outside of the bundle, in a file that is not listed or too short.
    """
    home = path.relative_to(folder).parent.as_posix()
    with path.open("rb") as file:
        if not file.seek(0, 2):
            raise BundleError(f"{path}: not a whole ONNX program (it is empty)", hint=_DAMAGED)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                for start, stop in _tensors(data):
                    _check_tensor(data, start, stop, home, files)
            except ValueError as failure:
                raise BundleError(f"{path}: not a whole ONNX program ({failure})", hint=_DAMAGED) from None
            except _ElsewhereError as failure:
                raise BundleError(f"{path}: {failure}", hint=_DISTRUST) from None


class _ElsewhereError(Exception):
    """Data of a tensor lie where they may not."""


def _tensors(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Where each tensor of a program lies, in graphs inside of graphs and in functions too."""
    waiting = [("model", 0, len(data), 0)]
    while waiting:
        kind, start, stop, depth = waiting.pop()
        if depth > _DEPTH:
            raise ValueError(f"graphs more than {_DEPTH} deep")
        if kind == "tensor":
            yield start, stop
            continue
        for number, wire, first, last in _fields(data, start, stop):
            inner = _INSIDE[kind].get(number)
            if inner is not None and wire == _BYTES:
                waiting.append((inner, first, last, depth + 1))


def _check_tensor(data: mmap.mmap, start: int, stop: int, home: str, files: Mapping[str, int]) -> None:
    name, external = "", {}
    for number, wire, first, last in _fields(data, start, stop):
        if wire == _BYTES and number == _NAME:
            name = _text(data, first, min(last, first + _TEXT))
        elif wire == _BYTES and number == _EXTERNAL:
            key, value = _pair(data, first, last)
            external[key] = value
    if not external:
        return
    where = f"tensor '{name[:60]}'"
    location = external.get("location", "")
    pure = PurePosixPath(location)
    if location.startswith(_MEMORY) or pure.is_absolute() or ".." in pure.parts or "\\" in location or not pure.parts:
        raise _ElsewhereError(f"{where} takes its data from {location[:80]!r}")
    place = (PurePosixPath(home) / pure).as_posix()
    if place not in files:
        raise _ElsewhereError(f"{where} takes its data from {location[:80]!r}, which the manifest does not list")
    offset, length = _whole(external.get("offset"), where), _whole(external.get("length"), where)
    if offset + length > files[place]:
        raise _ElsewhereError(f"{where} ends at byte {offset + length} of {location}, which has {files[place]}")


def _pair(data: mmap.mmap, start: int, stop: int) -> tuple[str, str]:
    found = {_KEY: "", _VALUE: ""}
    for number, wire, first, last in _fields(data, start, stop):
        if wire == _BYTES and number in found:
            if last - first > _TEXT:
                raise ValueError(f"a path of {last - first} bytes")
            found[number] = _text(data, first, last)
    return found[_KEY], found[_VALUE]


def _whole(text: str | None, where: str) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _ElsewhereError(f"{where} begins or ends at {text[:40]!r}")
    return int(text)


def _text(data: mmap.mmap, start: int, stop: int) -> str:
    return data[start:stop].decode("utf-8", "replace")


def _fields(data: mmap.mmap, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Each field of a message: its number, how it is written, and where its content begins and ends."""
    while at < stop:
        tag, at = _varint(data, at, stop)
        wire, start = tag & 7, at
        if wire == _VARINT:
            _, at = _varint(data, at, stop)
        elif wire == _FIXED64:
            at += 8
        elif wire == _FIXED32:
            at += 4
        elif wire == _BYTES:
            length, start = _varint(data, at, stop)
            at = start + length
        else:
            raise ValueError(f"a field of the unknown kind {wire} at byte {start}")
        if at > stop:
            raise ValueError(f"a field ends at byte {at} of {stop}")
        yield tag >> 3, wire, start, at


def _varint(data: mmap.mmap, at: int, stop: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            raise ValueError(f"a number ends at byte {at} of {stop}")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"a number of more than ten bytes at byte {at}")
