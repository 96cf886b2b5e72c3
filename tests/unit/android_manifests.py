"""Compiled manifests of Android apps, and resources beside them, as APKs have them and as app bundles do."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

IDS = {
    "icon": 0x01010002,
    "name": 0x01010003,
    "debuggable": 0x0101000F,
    "minSdkVersion": 0x0101020C,
    "targetSdkVersion": 0x01010270,
    "testOnly": 0x01010272,
    "required": 0x0101028E,
}
ANDROID = "http://schemas.android.com/apk/res/android"
NONE = 0xFFFFFFFF


@dataclass(frozen=True)
class Ref:
    """A reference to a resource."""

    id: int


Value = int | bool | str | Ref
Tree = tuple[str, Mapping[str, Value], Sequence["Tree"]]


def app(
    *,
    sdks: Sequence[Mapping[str, Value]] = ({"minSdkVersion": 23, "targetSdkVersion": 36},),
    features: Sequence[Mapping[str, Value]] = (),
    icon: bool = True,
    **application: Value,
) -> Tree:
    """A manifest with these elements."""
    given = {**({"icon": Ref(0x7F010000)} if icon else {}), **application}
    children: list[Tree] = [("uses-sdk", sdk, ()) for sdk in sdks]
    children += [("uses-feature", feature, ()) for feature in features]
    return ("manifest", {}, (*children, ("application", given, (("activity", {"name": ".A"}, ()),))))


def chunked(tree: Tree, *, wide: bool = False, ids: bool = True) -> bytes:
    """As an APK has it; ``wide`` strings are UTF-16, without ``ids`` attributes have names alone."""
    strings = [*IDS, ANDROID]
    _collect(tree, strings)
    resources = struct.pack("<HHI", 0x0180, 8, 8 + 4 * len(IDS)) + b"".join(
        struct.pack("<I", each) for each in IDS.values()
    )
    body = _pool(strings, wide) + (resources if ids else b"") + _nodes(tree, strings)
    return struct.pack("<HHI", 3, 8, 8 + len(body)) + body


def _collect(tree: Tree, strings: list[str]) -> None:
    name, attributes, children = tree
    for text in (name, *(value for value in attributes.values() if isinstance(value, str))):
        if text not in strings:
            strings.append(text)
    for child in children:
        _collect(child, strings)


def _pool(strings: Sequence[str], wide: bool) -> bytes:
    parts = []
    for text in strings:
        data = text.encode("utf-16-le" if wide else "utf-8")
        ends = b"\0\0" if wide else b"\0"
        parts.append((struct.pack("<H", len(text)) if wide else bytes([len(text), len(data)])) + data + ends)
    offsets, at = [], 0
    for part in parts:
        offsets.append(struct.pack("<I", at))
        at += len(part)
    content = b"".join(parts)
    content += bytes(-len(content) % 4)
    start = 28 + 4 * len(strings)
    head = struct.pack("<HHIIIIII", 1, 28, start + len(content), len(strings), 0, 0 if wide else 256, start, 0)
    return head + b"".join(offsets) + content


def _typed(value: Value, strings: Sequence[str]) -> tuple[int, int, int]:
    """Raw string, kind and number."""
    if isinstance(value, Ref):
        return NONE, 1, value.id
    if isinstance(value, bool):
        return NONE, 0x12, NONE if value else 0
    if isinstance(value, str):
        return strings.index(value), 3, strings.index(value)
    return NONE, 0x10, value


def _nodes(tree: Tree, strings: Sequence[str]) -> bytes:
    name, attributes, children = tree
    packed = b""
    for key, value in attributes.items():
        raw, kind, number = _typed(value, strings)
        packed += struct.pack("<IIIHBBI", strings.index(ANDROID), strings.index(key), raw, 8, 0, kind, number)
    tag = struct.pack("<IIII", 1, NONE, NONE, strings.index(name))
    start = (
        struct.pack("<HHI", 0x0102, 16, 36 + len(packed))
        + tag
        + struct.pack("<HHHHHH", 20, 20, len(attributes), 0, 0, 0)
    )
    end = struct.pack("<HHI", 0x0103, 16, 24) + tag
    return start + packed + b"".join(_nodes(child, strings) for child in children) + end


def table(values: Mapping[int, Sequence[tuple[bool, Value]]]) -> bytes:
    """``resources.arsc``: values of resources of package 0x7f, each for any device or for some."""
    strings = [value for each in values.values() for _, value in each if isinstance(value, str)]
    types = b""
    for resource, each in values.items():
        kind, index = resource >> 16 & 255, resource & 0xFFFF
        for plain, value in each:
            config = struct.pack("<I", 64) + (bytes(60) if plain else b"\0\1" + bytes(58))
            offsets = struct.pack("<I", NONE) * index + struct.pack("<I", 0)
            _, type_, number = _typed(value, strings)
            entry = struct.pack("<HHI", 8, 0, 0) + struct.pack("<HBBI", 8, 0, type_, number)
            header = 20 + len(config)
            first = header + len(offsets)
            types += struct.pack("<HHIBBHII", 0x0201, header, first + len(entry), kind, 0, 0, index + 1, first)
            types += config + offsets + entry
    package = struct.pack("<HHII", 0x0200, 288, 288 + len(types), 0x7F) + bytes(276) + types
    body = _pool(strings, False) + package
    return struct.pack("<HHII", 2, 12, 12 + len(body), 1) + body


def protobuf(tree: Tree) -> bytes:
    """As an app bundle has it."""
    name, attributes, children = tree
    element = _field(3, name.encode())
    for key, value in attributes.items():
        text = value if isinstance(value, str) else ""
        attribute = (
            _field(1, ANDROID.encode()) + _field(2, key.encode()) + _field(3, text.encode()) + _number(5, IDS[key])
        )
        element += _field(4, attribute + (b"" if isinstance(value, str) else _field(6, _item(value))))
    for child in children:
        element += _field(5, protobuf(child))
    return _field(1, element)


def proto_table(values: Mapping[int, Sequence[tuple[bool, Value]]]) -> bytes:
    """``resources.pb``: as :func:`table`."""
    types = b""
    for resource, each in values.items():
        entry = _field(1, _number(1, resource & 0xFFFF))
        for plain, value in each:
            configured = (_field(1, b"") if plain else _field(1, _field(3, b"de"))) + _field(2, _field(4, _item(value)))
            entry += _field(6, configured)
        types += _field(3, _field(1, _number(1, resource >> 16 & 255)) + _field(3, entry))
    return _field(2, _field(1, _number(1, 0x7F)) + types)


def _item(value: Value) -> bytes:
    if isinstance(value, Ref):
        return _field(1, _number(2, value.id))
    if isinstance(value, bool):
        return _field(7, _number(8, int(value)))
    if isinstance(value, str):
        return _field(2, _field(1, value.encode()))
    return _field(7, _number(6, value))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])
