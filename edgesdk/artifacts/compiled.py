"""Android's compiled XML, as APKs hold it and as app bundles do: elements near the root, and their attributes.

Sources: ResourceTypes.h of AOSP's libandroidfw for APKs (chunks, ``Res_value``), Resources.proto of aapt2 for bundles.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .entries import ArtifactError

DEPTH = 2  # elements further in are passed over
_XML, _POOL, _IDS, _START, _END = 0x0003, 0x0001, 0x0180, 0x0102, 0x0103
_CHUNK = struct.Struct("<HHI")  # what every chunk begins with: its kind, the size of its header, its size
_UTF8 = 1 << 8
_REFERENCES, _STRING, _BOOLEAN, _NULLS = (0x01, 0x07), 0x03, 0x12, (0x00,)
_NO_STRING = 0xFFFFFFFF
_SHOWN = 1000  # characters of a text that are read


@dataclass(frozen=True)
class Reference:
    """A resource, in whose place its value stands."""

    resource: int


Value = int | bool | str | Reference | None


@dataclass(frozen=True)
class Element:
    """An element.

    Attributes:
        path: its name, behind those of the elements around it.
        attributes: values by the attribute's id among Android's resources.
        named: the same by name, for attributes without an id.
    """

    path: tuple[str, ...]
    attributes: dict[int, Value]
    named: dict[str, Value]


class DamagedError(ArtifactError):
    """Not what the format allows."""


def elements(data: bytes) -> Iterator[Element]:
    """Elements of a compiled XML file of either form.

    Raises:
        DamagedError: it is neither.
    """
    try:
        if data[:4] == _CHUNK.pack(_XML, _CHUNK.size, 0)[:4]:
            yield from _chunked(data)
        elif data[:1] == b"\x0a":
            yield from _protobuf(data)
        else:
            raise DamagedError("neither of the forms in which Android compiles XML")
    except (struct.error, IndexError, UnicodeDecodeError) as failure:
        raise DamagedError(f"damaged ({failure})") from None


def chunks(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Kind, beginning, end of the header and end of each chunk in a part of a file.

    Raises:
        DamagedError: one reaches beyond what is there.
    """
    while start + _CHUNK.size <= stop:
        kind, header, size = _CHUNK.unpack_from(data, start)
        if not _CHUNK.size <= header <= size <= stop - start:
            raise DamagedError(f"the chunk at byte {start} has {size} bytes, and {stop - start} are there")
        yield kind, start, start + header, start + size
        start += size


class Pool:
    """The strings of a file, each read when it is asked for."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data, self._end = data, end
        self._count, _, flags, strings, _ = struct.unpack_from("<5I", data, start + 8)
        (header,) = struct.unpack_from("<H", data, start + 2)
        self._offsets, self._strings, self._wide = start + header, start + strings, not flags & _UTF8

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self._count or self._offsets + 4 * index + 4 > self._end:
            raise DamagedError(f"string {index} of {self._count}")
        at = self._strings + int(struct.unpack_from("<I", self._data, self._offsets + 4 * index)[0])
        if self._wide:
            length, at = self._length(at, "<H", 0x8000, 16)
            return self._data[at : min(at + 2 * min(length, _SHOWN), self._end)].decode("utf-16-le", "replace")
        _, at = self._length(at, "<B", 0x80, 8)  # in characters
        length, at = self._length(at, "<B", 0x80, 8)  # in bytes
        return self._data[at : min(at + min(length, _SHOWN), self._end)].decode("utf-8", "replace")

    def _length(self, at: int, form: str, more: int, bits: int) -> tuple[int, int]:
        size = bits // 8
        (length,) = struct.unpack_from(form, self._data, at)
        if not length & more:
            return length, at + size
        (low,) = struct.unpack_from(form, self._data, at + size)
        return ((length & ~more) << bits) | low, at + 2 * size


def typed(kind: int, number: int, pool: Pool | None) -> Value:
    """What a ``Res_value`` stands for; strings lie in the pool."""
    if kind in _REFERENCES:
        return Reference(number)
    if kind == _STRING:
        return None if pool is None or number == _NO_STRING else pool[number]
    if kind == _BOOLEAN:
        return number != 0
    return None if kind in _NULLS else number - (1 << 32) if number >> 31 else number


def _chunked(data: bytes) -> Iterator[Element]:
    pool: Pool | None = None
    ids: tuple[int, ...] = ()
    around: list[str] = []
    _, _, inside, end = next(chunks(data, 0, len(data)), (0, 0, 0, 0))
    for kind, start, header, stop in chunks(data, inside, end):
        if kind == _POOL and pool is None:
            pool = Pool(data, start, stop)
        elif kind == _IDS:
            ids = struct.unpack_from(f"<{(stop - header) // 4}I", data, header)
        elif kind == _START and pool is not None:
            name, first, size, count = struct.unpack_from("<4xI2H1H", data, header)
            around.append(pool[name] if len(around) < DEPTH else "")
            if len(around) <= DEPTH:
                yield _element(tuple(around), data[header + first : stop], size, count, pool, ids)
        elif kind == _END and around:
            around.pop()


def _element(path: tuple[str, ...], data: bytes, size: int, count: int, pool: Pool, ids: tuple[int, ...]) -> Element:
    """An element out of its attributes, of so many bytes each."""
    attributes: dict[int, Value] = {}
    named: dict[str, Value] = {}
    for number in range(min(count, len(data) // size if size else 0)):
        _, name, raw, _, kind, value = struct.unpack_from("<IIIHxBI", data, number * size)
        found = typed(kind, value, pool)
        if found is None and raw != _NO_STRING:
            found = pool[raw]
        if name < len(ids) and ids[name]:
            attributes[ids[name]] = found
        else:
            named[pool[name]] = found
    return Element(path, attributes, named)


Fields = Iterator[tuple[int, int | bytes]]


def fields(data: bytes) -> Fields:
    """Numbers and contents of a protocol buffer's fields, in their order.

    Raises:
        DamagedError: a field reaches beyond the end.
    """
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            number, at = _varint(data, at)
            yield tag >> 3, number
            continue
        length, at = (8, at) if kind == 1 else (4, at) if kind == 5 else _varint(data, at) if kind == 2 else (-1, at)
        if not 0 <= length <= len(data) - at:
            raise DamagedError(f"field {tag >> 3} reaches beyond the end")
        content = data[at : at + length]
        at += length
        yield tag >> 3, content if kind == 2 else int.from_bytes(content, "little")


def messages(data: bytes, number: int) -> Iterator[bytes]:
    """Contents of the fields with a number that hold bytes."""
    return (content for found, content in fields(data) if found == number and isinstance(content, bytes))


def item(data: bytes) -> Value:
    """What aapt2's ``Item`` stands for."""
    for number, content in fields(data):
        if not isinstance(content, bytes):
            continue
        if number == 1:
            return next(
                (Reference(each) for field, each in fields(content) if field == 2 and isinstance(each, int)), None
            )
        if number in (2, 3):
            return next((_text(each) for each in messages(content, 1)), "")
        if number == 7:
            return next((_primitive(*each) for each in fields(content)), None)
    return None


def _primitive(field: int, content: int | bytes) -> Value:
    if not isinstance(content, int) or field in (1, 2):
        return None
    if field == 8:
        return content != 0
    low = content & 0xFFFFFFFF
    return low - (1 << 32) if low >> 31 else low


def _protobuf(data: bytes) -> Iterator[Element]:
    waiting: list[tuple[tuple[str, ...], bytes]] = [((), data)]
    while waiting:
        around, node = waiting.pop()
        for element in messages(node, 1):
            path = (*around, next((_text(name) for name in messages(element, 3)), ""))
            attributes: dict[int, Value] = {}
            named: dict[str, Value] = {}
            for attribute in messages(element, 4):
                identity, name, value = _attribute(attribute)
                if identity:
                    attributes[identity] = value
                else:
                    named[name] = value
            yield Element(path, attributes, named)
            if len(path) < DEPTH:
                waiting.extend((path, child) for child in reversed([*messages(element, 5)]))


def _attribute(data: bytes) -> tuple[int, str, Value]:
    identity, name = 0, ""
    text: Value = None
    compiled: Value = None
    for number, content in fields(data):
        if number == 5 and isinstance(content, int):
            identity = content
        elif number == 2 and isinstance(content, bytes):
            name = _text(content)
        elif number == 3 and isinstance(content, bytes):
            text = _text(content)
        elif number == 6 and isinstance(content, bytes):
            compiled = item(content)
    return identity, name, text if compiled is None else compiled


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise DamagedError("a number without an end")


def _text(data: bytes) -> str:
    return data[:_SHOWN].decode("utf-8", "replace")
