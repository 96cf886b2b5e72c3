"""The tables of a ``.tflite`` file, as LiteRT's own generated readers know them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from edgesdk.bounds.flatbuffer_schema import Either, Field, Many, Ref, Scalar, Schema, Text
from edgesdk.errors import EdgeError, MissingExtraError

if TYPE_CHECKING:
    from edgesdk.bounds.flatbuffer_schema import Kind

_ROOT = "Model"
_FORMS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_SIGNED = {1: "b", 2: "h", 4: "i", 8: "q"}
_DERIVED = ("AsNumpy", "Length", "IsNone")  # how readers of a field end that say the same in another way
#: Fields that hold one of several tables under another name than that of their numbers.
_UNIONS = {"Details": "QuantizationDetails", "ArraySegments": "SparseIndexVector", "ArrayIndices": "SparseIndexVector"}


def schema_module() -> ModuleType:
    """The generated readers.

    Raises:
        MissingExtraError: LiteRT is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "ai_edge_litert", "tflite") from None
    module: ModuleType = schema_py_generated
    return module


@lru_cache(maxsize=1)
def tflite_schema() -> Schema:
    """Every table that a program may hold.

    Raises:
        MissingExtraError: LiteRT is not installed.
    """
    module = schema_module()
    tables = {
        name: kind for name, kind in vars(module).items() if isinstance(kind, type) and hasattr(kind, "GetRootAs")
    }
    return Schema({name: dict(_fields(module, kind)) for name, kind in tables.items()}, _ROOT)


class _Watcher:
    """Stands where a reader expects the bytes of its table, and notes what it asks for."""

    Bytes, Pos = b"", 0

    def __init__(self) -> None:
        self.slot = -1
        self.many = self.union = False
        self.kind: Kind | None = None

    def Offset(self, entry: int) -> int:  # noqa: N802 - the names of flatbuffers
        self.slot = (entry - 4) // 2
        return 1

    def Vector(self, place: int) -> int:  # noqa: N802 - the names of flatbuffers
        self.many = True
        return 0

    def Indirect(self, place: int) -> int:  # noqa: N802 - the names of flatbuffers
        return 0

    def Get(self, flags: Any, place: int) -> int:  # noqa: N802 - the names of flatbuffers
        size = flags.bytewidth
        floating = flags.py_type is float
        form = {4: "f", 8: "d"}[size] if floating else (_FORMS if "Uint" in flags.__name__ else _SIGNED)[size]
        self.kind = Scalar("?" if flags.py_type is bool else form, size)
        return 0

    def String(self, place: int) -> bytes:  # noqa: N802 - the names of flatbuffers
        self.kind = Text()
        return b""

    def Union(self, into: Any, place: int) -> None:  # noqa: N802 - the names of flatbuffers
        self.union = True


def _fields(module: ModuleType, table: type) -> Iterator[tuple[str, Field]]:
    for name, reader in vars(table).items():
        if not inspect.isfunction(reader) or name == "Init" or name.endswith(_DERIVED):
            continue
        watcher = _Watcher()
        made = table()
        made._tab = watcher
        found = reader(made, *[0] * (len(inspect.signature(reader).parameters) - 1))
        if watcher.slot >= 0:
            yield name, Field(watcher.slot, _kind(module, name, watcher, found))


def _kind(module: ModuleType, name: str, watcher: _Watcher, found: object) -> Kind:
    if watcher.union:
        numbers = vars(getattr(module, _UNIONS.get(name, name)))
        return Either({number: member for member, number in numbers.items() if isinstance(number, int) and number})
    kind = watcher.kind or Ref(type(found).__name__)
    if not isinstance(kind, (Scalar, Text, Ref)):
        raise EdgeError(f"LiteRT's schema holds something new in '{name}'")
    return Many(kind) if watcher.many else kind
