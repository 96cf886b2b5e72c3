"""Files of tensors, taken apart and put together again: safetensors, GGUF."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from random import Random
from typing import Any

from .odd import VALUES, changed_bytes
from .trees import changed_json

_TEXT, _LIST = 8, 9
_FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_COUNTS = (0, 1, 2, 3, 2**16, 2**31, 2**32, 2**40, 2**63 - 1, 2**64 - 1)


def changed_safetensors(random: Random, data: bytes) -> bytes:
    """A file whose header says something else, or whose bytes are damaged."""
    size = int.from_bytes(data[:8], "little")
    header, tensors = data[8 : 8 + size], data[8 + size :]
    kind = random.randrange(10)
    if kind == 0:
        return changed_bytes(random, data, 0, 8 + size)
    if kind == 1:
        return changed_bytes(random, data)
    header = changed_json(random, json.loads(header))
    said = len(header) if random.random() < 0.93 else random.choice(_COUNTS)
    return said.to_bytes(8, "little") + header + tensors


@dataclass
class Gguf:
    """A GGUF file in parts: keys with their types and values, tensors' descriptions, and the data."""

    version: int
    keys: list[tuple[bytes, int, Any]]
    tensors: list[tuple[bytes, list[int], int, int]]
    data: bytes

    @classmethod
    def parse(cls, content: bytes) -> Gguf:
        file = io.BytesIO(content)
        _, version, count, keys = struct.unpack("<4sIQQ", file.read(24))
        found = [(_text(file), *_typed(file)) for _ in range(keys)]
        tensors = []
        for _ in range(count):
            name, dimensions = _text(file), _number(file, "I")
            shape = [_number(file, "Q") for _ in range(dimensions)]
            tensors.append((name, shape, _number(file, "I"), _number(file, "Q")))
        file.seek(-(-file.tell() // 32) * 32)
        return cls(version, found, tensors, file.read())

    def changed(self, random: Random, only: bytes = b"") -> bytes:
        """The file with other keys (those that begin with ``only``), other shapes or other counts."""
        keys, tensors, counts = list(self.keys), list(self.tensors), [len(self.tensors), len(self.keys)]
        able = [index for index, key in enumerate(keys) if key[0].startswith(only)]
        for _ in range(random.choice((1, 1, 2, 4))):
            match random.randrange(8):
                case 0 | 1 | 2:
                    index = random.choice(able)
                    keys[index] = _changed_key(random, keys[index])
                case 3:
                    keys[random.choice(able)] = random.choice(keys)
                case 4 if not only:
                    index = random.randrange(len(tensors))
                    tensors[index] = _changed_tensor(random, tensors[index])
                case 5 if not only:
                    counts[random.randrange(2)] = random.choice(_COUNTS)
                case 6:
                    keys.append((random.choice(keys)[0] + b"x", _TEXT, b"x"))
                    counts[1] = len(keys)
                case _:
                    index = random.choice(able)
                    keys[index] = (keys[index][0], random.choice((*_FORMS, _TEXT, _LIST, 99)), keys[index][2])
        head = struct.pack("<4sIQQ", b"GGUF", self.version, *counts)
        body = b"".join(_packed_text(name) + _packed(kind, value) for name, kind, value in keys)
        body += b"".join(
            _packed_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
            for name, shape, kind, offset in tensors
        )
        written = head + body
        written += bytes(-len(written) % 32) + self.data
        return changed_bytes(random, written, 0, len(head + body)) if random.random() < 0.08 else written


def _changed_key(random: Random, key: tuple[bytes, int, Any]) -> tuple[bytes, int, Any]:
    name, kind, value = key
    if kind == _LIST and isinstance(value, tuple):
        form, items = value
        items = list(items)
        at = random.randrange(len(items) + 1)
        match random.randrange(5):
            case 0:
                del items[at:]
            case 1:
                items = items[:at] * 2
            case 2 if items:
                items[at % len(items)] = random.choice(items)
            case 3 if items and form == _TEXT:
                items[at % len(items)] = random.choice((b"", b"\xff", b" ", b"a b c", b"\xed\xa0\x80", b"<s>"))
            case _:
                items = items[at:]
        return name, kind, (form, items)
    if kind == _TEXT and isinstance(value, bytes):
        odd = [each.encode("utf-8", "surrogatepass") for each in VALUES if isinstance(each, str)]
        return name, kind, random.choice((*odd, b"gpt2", b"llama", b"bert", b"\xff", value + b"x"))
    return name, kind, random.choice([each for each in VALUES if isinstance(each, (int, float))])


def _changed_tensor(random: Random, tensor: tuple[bytes, list[int], int, int]) -> tuple[bytes, list[int], int, int]:
    name, shape, kind, offset = tensor
    match random.randrange(4):
        case 0:
            shape = [random.choice(_COUNTS) if random.random() < 0.5 else size for size in shape]
        case 1:
            shape = [1] * random.choice((0, 1, 3, 9, 70))
        case 2:
            kind = random.choice((*range(40), 255, 2**31))
        case _:
            offset = random.choice((*_COUNTS, offset + 1, offset + 32))
    return name, shape, kind, offset


def _text(file: io.BytesIO) -> bytes:
    return file.read(_number(file, "Q"))


def _number(file: io.BytesIO, form: str) -> int:
    return int(struct.unpack(f"<{form}", file.read(struct.calcsize(form)))[0])


def _typed(file: io.BytesIO) -> tuple[int, Any]:
    kind = _number(file, "I")
    return kind, _value(file, kind)


def _value(file: io.BytesIO, kind: int) -> Any:
    if kind == _TEXT:
        return _text(file)
    if kind == _LIST:
        form, count = _number(file, "I"), _number(file, "Q")
        return form, [_value(file, form) for _ in range(count)]
    form = _FORMS[kind]
    return struct.unpack(f"<{form}", file.read(struct.calcsize(form)))[0]


def _packed_text(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


def _packed(kind: int, value: Any) -> bytes:
    return struct.pack("<I", kind) + _body(kind, value)


def _body(kind: int, value: Any) -> bytes:
    """A value of a kind; where it is none of that kind, the bytes that it would have had are something else."""
    if kind == _LIST and isinstance(value, tuple):
        form, items = value
        return struct.pack("<IQ", form, len(items)) + b"".join(_body(form, item) for item in items)
    if kind == _TEXT or kind not in _FORMS:
        return _packed_text(value if isinstance(value, bytes) else b"x")
    form = _FORMS[kind]
    try:
        return struct.pack(f"<{form}", value)
    except (struct.error, OverflowError):
        return b"\xff" * struct.calcsize(form)
