"""Flatbuffers that nobody vouches for: every table, vector and text that is reached lies inside of the buffer.

The format: flatbuffers.dev, "FlatBuffer Internals". Runtimes follow its offsets without looking.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from .flatbuffer_schema import Block, Either, Field, Many, Ref, Scalar, Schema, Text

if TYPE_CHECKING:
    from .flatbuffer_schema import Kind

_WIDTH = 4  # bytes of an offset or a length
_VISITS = 10_000_000  # tables, vectors and texts
_LARGEST = (1 << 31) - 1  # of a flatbuffer: its offsets are signed


class FlatbufferError(ValueError):
    """A flatbuffer reaches outside of itself."""


class Table:
    """A table of a verified flatbuffer; fields by name."""

    def __init__(self, data: memoryview, schema: Schema, name: str, at: int) -> None:
        self._data, self.schema, self.name, self.at = data, schema, name, at

    def get(self, name: str) -> Any:
        """A number, a text as bytes, a table, a list of those, a view of numbers, or None where it is absent.

        The table of a union is None where it is none of the schema's.
        """
        field = self.schema.tables[self.name][name]
        place = _place(self._data, self.at, field)
        if place is None:
            return field.default if isinstance(field.kind, Scalar) else None
        if isinstance(field.kind, Either):
            number = _number(self._data, self.at, Field(field.slot - 1, Scalar("B", 1)))
            member = field.kind.members.get(number)
            return None if member is None else self._value(Ref(member), place)
        return self._value(field.kind, place)

    def tables(self, name: str) -> list[Table]:
        """A vector of tables; empty where it is absent."""
        found: list[Table] = self.get(name) or []
        return found

    def numbers(self, name: str) -> list[int]:
        """A vector of numbers; empty where it is absent."""
        found = self.get(name)
        return list(found) if found is not None else []

    def _value(self, kind: Kind, place: int) -> Any:
        if isinstance(kind, Scalar):
            return struct.unpack_from("<" + kind.form, self._data, place)[0]
        if isinstance(kind, Block):
            return bytes(self._data[place : place + kind.size])
        target = place + _offset(self._data, place)
        if isinstance(kind, Ref):
            return Table(self._data, self.schema, kind.table, target)
        count = _offset(self._data, target)
        start = target + _WIDTH
        if isinstance(kind, Text):
            return bytes(self._data[start : start + count])
        assert isinstance(kind, Many)
        if isinstance(kind.of, Scalar):
            return memoryview(self._data[start : start + count * kind.of.size]).cast(kind.of.form)  # type: ignore[call-overload]
        size = _size(kind.of)
        return [self._value(kind.of, start + number * size) for number in range(count)]


def verified(data: memoryview, schema: Schema) -> Table:
    """The root of a flatbuffer, all of whose offsets, lengths and tables lie inside of it.

    Raises:
        FlatbufferError: what does not, and where.
    """
    if len(data) > _LARGEST:
        raise FlatbufferError(f"{len(data)} bytes are more than a flatbuffer can have")
    _Walk(data, schema).run()
    return Table(data, schema, schema.root, _offset(data, 0))


class _Walk:
    """Visits what is reached from the root, each place once for each thing that it is taken for."""

    def __init__(self, data: memoryview, schema: Schema) -> None:
        self._data, self._schema = data, schema
        self._seen: set[tuple[int, Kind]] = set()
        self._waiting: list[tuple[int, Kind]] = []

    def run(self) -> None:
        self._reach(0, Ref(self._schema.root))
        while self._waiting:
            target, kind = self._waiting.pop()
            if isinstance(kind, Ref):
                self._table(target, kind.table)
            else:
                self._vector(target, kind)

    def _reach(self, place: int, kind: Kind) -> None:
        """Follow an offset to a table, a vector or a text."""
        self._inside(place, _WIDTH)
        offset = _offset(self._data, place)
        target = place + offset
        if offset < _WIDTH:
            raise FlatbufferError(f"the offset at byte {place} is {offset}")
        self._inside(target, _WIDTH)
        if target % _WIDTH:
            raise FlatbufferError(
                f"the offset at byte {place} leads to byte {target}, which is no multiple of {_WIDTH}"
            )
        if (target, kind) in self._seen:
            return
        if len(self._seen) == _VISITS:
            raise FlatbufferError(f"more than {_VISITS} parts")
        self._seen.add((target, kind))
        self._waiting.append((target, kind))

    def _table(self, at: int, name: str) -> None:
        table = at - int(struct.unpack_from("<i", self._data, at)[0])
        self._inside(table, _WIDTH)
        size, length = struct.unpack_from("<HH", self._data, table)
        if table % 2 or size < _WIDTH or size % 2 or length < _WIDTH:
            raise FlatbufferError(f"the table at byte {at} has a description of {size} bytes for {length}")
        self._inside(table, size)
        self._inside(at, length)
        for field in self._schema.tables[name].values():
            place = _place(self._data, at, field)
            if place is not None:
                width = field.kind.size if isinstance(field.kind, (Scalar, Block)) else _WIDTH
                if place - at < _WIDTH or place - at + width > length:
                    raise FlatbufferError(f"a field of the table at byte {at} lies outside of it")
                self._field(at, place, field)

    def _field(self, at: int, place: int, field: Field) -> None:
        if isinstance(field.kind, Either):
            number = _number(self._data, at, Field(field.slot - 1, Scalar("B", 1)))
            if number not in field.kind.members:
                raise FlatbufferError(f"the table at byte {at} holds something of the unknown kind {number}")
            self._reach(place, Ref(field.kind.members[number]))
        elif not isinstance(field.kind, (Scalar, Block)):
            self._reach(place, field.kind)

    def _vector(self, at: int, kind: Kind) -> None:
        count = _offset(self._data, at)
        if isinstance(kind, Text):
            self._inside(at + _WIDTH, count + 1)
            if self._data[at + _WIDTH + count]:
                raise FlatbufferError(f"the text at byte {at} has no end")
            return
        assert isinstance(kind, Many)
        size = _size(kind.of)
        self._inside(at + _WIDTH, count * size)
        if isinstance(kind.of, (Text, Ref)):
            for number in range(count):
                self._reach(at + _WIDTH + number * size, kind.of)

    def _inside(self, at: int, size: int) -> None:
        if at < 0 or at + size > len(self._data):
            raise FlatbufferError(f"bytes {at} to {at + size} of {len(self._data)}")


def _place(data: memoryview, at: int, field: Field) -> int | None:
    """Where a table's field lies, or None where the table has none."""
    table = at - int(struct.unpack_from("<i", data, at)[0])
    entry = _WIDTH + 2 * field.slot
    if entry + 2 > struct.unpack_from("<H", data, table)[0]:
        return None
    offset = int(struct.unpack_from("<H", data, table + entry)[0])
    return at + offset if offset else None


def _number(data: memoryview, at: int, field: Field) -> int:
    place = _place(data, at, field)
    return 0 if place is None or not 0 <= place < len(data) else data[place]


def _offset(data: memoryview, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _size(kind: Kind) -> int:
    return kind.size if isinstance(kind, (Scalar, Block)) else _WIDTH


def ascii_text(text: bytes | None) -> str:
    """A text of a flatbuffer for a message, cut to 60 characters."""
    return (text or b"").decode("utf-8", "replace")[:60]
