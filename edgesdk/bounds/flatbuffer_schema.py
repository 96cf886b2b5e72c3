"""The tables of a flatbuffer as data, read from a schema in FlatBuffers' language (flatbuffers.dev, "Schema")."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

_FORMS = {
    "bool": "?",
    **dict.fromkeys(("byte", "int8"), "b"),
    **dict.fromkeys(("ubyte", "uint8"), "B"),
    **dict.fromkeys(("short", "int16"), "h"),
    **dict.fromkeys(("ushort", "uint16"), "H"),
    **dict.fromkeys(("int", "int32"), "i"),
    **dict.fromkeys(("uint", "uint32"), "I"),
    **dict.fromkeys(("float", "float32"), "f"),
    **dict.fromkeys(("long", "int64"), "q"),
    **dict.fromkeys(("ulong", "uint64"), "Q"),
    **dict.fromkeys(("double", "float64"), "d"),
}
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_INCLUDE = re.compile(r'include\s+"([^"]+)"\s*;')
_BLOCK = re.compile(r"\b(table|struct|enum|union)\s+(\w+)\s*(?::\s*(\w+)\s*)?(?:\([^)]*\)\s*)?\{([^}]*)\}")
_ROOT = re.compile(r"\broot_type\s+([\w.]+)\s*;")
_FIELD = re.compile(r"(\w+)\s*:\s*(\[)?\s*([\w.]+)\s*\]?\s*(?:=\s*([^;(]+?))?\s*(\([^)]*\))?\s*;")


@dataclass(frozen=True)
class Scalar:
    """A number; ``form`` is that of :mod:`struct`."""

    form: str
    size: int


@dataclass(frozen=True)
class Block:
    """A struct that lies where it is used."""

    size: int


@dataclass(frozen=True)
class Text:
    """A string."""


@dataclass(frozen=True)
class Ref:
    """Another table."""

    table: str


@dataclass(frozen=True)
class Either:
    """One of several tables; the field before says which, by these numbers."""

    members: Mapping[int, str] = field(hash=False)


@dataclass(frozen=True)
class Many:
    """A vector."""

    of: Scalar | Block | Text | Ref


if TYPE_CHECKING:  # boards with Python 3.8 know no unions
    Kind = Scalar | Block | Text | Ref | Either | Many


@dataclass(frozen=True)
class Field:
    """A field of a table: its place among the others, what it holds, and what a number is where it is absent."""

    slot: int
    kind: Kind
    default: float = 0


@dataclass(frozen=True)
class Schema:
    """Every table by name, and the one at the root."""

    tables: Mapping[str, Mapping[str, Field]]
    root: str


@lru_cache(maxsize=8)
def read_schema(path: Path) -> Schema:
    """A schema file and those that it includes.

    Raises:
        ValueError: it uses what is not read here.
    """
    text = _with_includes(path)
    blocks = {name: (kind, base, body) for kind, name, base, body in _BLOCK.findall(text)}
    root = _ROOT.search(text)
    if root is None:
        raise ValueError(f"{path.name}: no root_type")
    tables = {name: dict(_fields(body, blocks)) for name, (kind, _, body) in blocks.items() if kind == "table"}
    return Schema(tables, root[1].rpartition(".")[2])


def _with_includes(path: Path) -> str:
    text = _COMMENT.sub("", path.read_text(encoding="utf-8"))
    return "".join(_with_includes(path.parent / name) for name in _INCLUDE.findall(text)) + _INCLUDE.sub("", text)


if TYPE_CHECKING:
    _Blocks = Mapping[str, tuple[str, str, str]]


def _fields(body: str, blocks: _Blocks) -> Iterator[tuple[str, Field]]:
    slot = 0
    for name, many, named, default, _ in _FIELD.findall(body):
        kind = _kind(named.rpartition(".")[2], blocks)
        if isinstance(kind, Either):
            if many:
                raise ValueError(f"a vector of unions: {name}")
            yield f"{name}_type", Field(slot, Scalar("B", 1))
            slot += 1
        yield name, Field(slot, Many(kind) if many and not isinstance(kind, (Either, Many)) else kind, _number(default))
        slot += 1


def _kind(name: str, blocks: _Blocks) -> Kind:
    if name == "string":
        return Text()
    if name in _FORMS:
        return _scalar(name)
    if name not in blocks:
        raise ValueError(f"no type '{name}'")
    kind, base, body = blocks[name]
    if kind == "table":
        return Ref(name)
    if kind == "enum":
        return _scalar(base)
    if kind == "union":
        members = [member.rpartition(":")[2].strip() for member in body.split(",") if member.strip()]
        return Either(dict(enumerate(members, 1)))
    return Block(_struct_size(body, blocks)[0])


def _scalar(name: str) -> Scalar:
    return Scalar(_FORMS[name], struct.calcsize(f"<{_FORMS[name]}"))


def _struct_size(body: str, blocks: _Blocks) -> tuple[int, int]:
    """Bytes of a struct, and what they are aligned to."""
    size, widest = 0, 1
    for _, _, named, _, _ in _FIELD.findall(body):
        kind = _kind(named, blocks)
        if isinstance(kind, Scalar):
            part, alignment = kind.size, kind.size
        else:
            part, alignment = _struct_size(blocks[named][2], blocks)
        size = -(-size // alignment) * alignment + part
        widest = max(widest, alignment)
    return -(-size // widest) * widest, widest


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0
