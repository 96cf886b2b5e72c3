"""What a reference in a manifest comes to: values of ``resources.arsc`` in APKs, of ``resources.pb`` in app bundles.

Sources: those of :mod:`.compiled`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .compiled import DamagedError, Pool, Reference, Value, chunks, fields, item, messages, typed

_TABLE, _POOL, _PACKAGE, _TYPE = 0x0002, 0x0001, 0x0200, 0x0201
_SPARSE, _SHORT = 1, 2  # flags of a type: how its entries are found
_COMPLEX, _COMPACT = 1, 8  # flags of an entry
_LINKS = 8  # references to references


def resolved(value: Value, resources: bytes | None) -> Value:
    """A value that is no reference; None where it cannot be found out.

    Of a resource with several values the one without qualifiers counts, or else the first.
    """
    for _ in range(_LINKS):
        if not isinstance(value, Reference) or resources is None:
            break
        try:
            value = _looked_up(value.resource, resources)
        except (struct.error, IndexError, DamagedError):
            return None
    return None if isinstance(value, Reference) else value


def _looked_up(resource: int, data: bytes) -> Value:
    packed = int.from_bytes(data[:2], "little") == _TABLE
    found = list(_in_table(data, resource) if packed else _in_protobuf(data, resource))
    return next((value for plain, value in found if plain), found[0][1] if found else None)


def _in_table(data: bytes, resource: int) -> Iterator[tuple[bool, Value]]:
    """Values of a resource, and whether each is for any device."""
    package, kind, index = resource >> 24, resource >> 16 & 255, resource & 0xFFFF
    (_, _, header, end) = next(chunks(data, 0, len(data)))
    pool: Pool | None = None
    for chunk, start, inside, stop in chunks(data, header, end):
        if chunk == _POOL and pool is None:
            pool = Pool(data, start, stop)
        elif chunk == _PACKAGE and struct.unpack_from("<I", data, start + 8)[0] & 255 == package:
            for each, at, entries, last in chunks(data, inside, stop):
                if each == _TYPE and data[at + 8] == kind:
                    value = _entry(data, at, entries, last, index)
                    if value is not None:
                        yield _unqualified(data, at + 20, entries), typed(*value, pool)


def _entry(data: bytes, start: int, offsets: int, stop: int, index: int) -> tuple[int, int] | None:
    """Kind and number of an entry of a type; None where there is none, or it is no single value."""
    flags, count, first = struct.unpack_from("<xB2xII", data, start + 8)
    offset = None
    if flags & _SPARSE:
        for number in range(min(count, (stop - offsets) // 4)):
            entry, quarter = struct.unpack_from("<HH", data, offsets + 4 * number)
            if entry == index:
                offset = quarter * 4
    elif index < count and flags & _SHORT:
        (short,) = struct.unpack_from("<H", data, offsets + 2 * index)
        offset = None if short == 0xFFFF else short * 4
    elif index < count:
        (whole,) = struct.unpack_from("<I", data, offsets + 4 * index)
        offset = None if whole == 0xFFFFFFFF else whole
    if offset is None or start + first + offset + 8 > stop:
        return None
    at = start + first + offset
    size, marks = struct.unpack_from("<HH", data, at)
    if marks & _COMPACT:
        return marks >> 8, int(struct.unpack_from("<I", data, at + 4)[0])
    if marks & _COMPLEX:
        return None
    kind, number = struct.unpack_from("<3xBI", data, at + size)
    return kind, number


def _unqualified(data: bytes, start: int, stop: int) -> bool:
    """Whether a configuration asks for nothing: all of it is zero, but for its size."""
    return not any(data[start + 4 : stop])


def _in_protobuf(data: bytes, resource: int) -> Iterator[tuple[bool, Value]]:
    package, kind, index = resource >> 24, resource >> 16 & 255, resource & 0xFFFF
    for one in (each for each in messages(data, 2) if _identity(each) == package):
        for group in (each for each in messages(one, 3) if _identity(each) == kind):
            for entry in (each for each in messages(group, 3) if _identity(each) == index):
                for configured in messages(entry, 6):
                    plain = not any(messages(configured, 1)) or not any(next(messages(configured, 1), b""))
                    for value in messages(configured, 2):
                        yield from ((plain, item(each)) for each in messages(value, 4))


def _identity(data: bytes) -> int:
    """The id in a message's first field; 0 where it says none."""
    for content in messages(data, 1):
        return next((value for number, value in fields(content) if number == 1 and isinstance(value, int)), 0)
    return 0
