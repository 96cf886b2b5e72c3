"""Weights written by a pass: one scratch file, read back a tensor at a time, so memory stays that of one tensor.

A journal beside it names every tensor that is whole, so a pass that was killed goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..model.tensors import QuantizedTensor, pack_bits, packed_columns, unpack_bits
from ..model.weights import Weights

if TYPE_CHECKING:
    import torch

    from ..model.weights import Stored


@dataclass(frozen=True)
class Entry:
    """One tensor of a spool.

    Attributes:
        name: canonical.
        start: first byte in the file.
        end: the byte after its last one.
        shape: of the tensor.
        bits: of its integers, or 0 for float32.
        group: elements that share a scale.
        asymmetric: it has zero points.
        scheme: what people call it (``w4g32``, ``float``).
        error: |error|^2 / |weight|^2 of its rounding, or None when nothing was rounded.
        note: a sentence about how it came about, or None.
    """

    name: str
    start: int
    end: int
    shape: tuple[int, ...]
    bits: int = 0
    group: int = 0
    asymmetric: bool = False
    scheme: str = "float"
    error: float | None = None
    note: str | None = None

    def read(self, file: BinaryIO) -> Stored:
        file.seek(self.start)
        if not self.bits:
            return _read(file, np.float32, self.shape)
        rows, columns = self.shape
        packed = _read(file, np.uint8, (rows, packed_columns(columns, self.bits)))
        groups = (rows, columns // self.group)
        scales = _read(file, np.float32, groups)
        zeros = _read(file, np.int8, groups) if self.asymmetric else None
        return QuantizedTensor(unpack_bits(packed, self.bits, columns), scales, self.bits, self.group, zeros)


class Spool:
    """Tensors on top of other weights; what was not written comes from the base."""

    def __init__(self, path: Path, base: Weights) -> None:
        """Open a spool, or go on with one that was cut short."""
        self._path, self._journal, self._base = path, path.with_suffix(".jsonl"), base
        self._entries: dict[str, Entry] = {}
        if self._journal.is_file():
            self._recover()

    def entry(self, name: str) -> Entry | None:
        """What is known of a tensor that was written, or None."""
        return self._entries.get(name)

    def write(self, name: str, tensor: Stored, error: float | None = None) -> Entry:
        """Append one tensor; a later one of the same name replaces it."""
        with self._path.open("ab") as file:
            entry = _append(file, name, tensor, error)
        self._record([entry])
        return entry

    def write_together(self, tensors: Mapping[str, Stored], note: str | None = None) -> None:
        """Append tensors of which an interrupted run leaves all or none."""
        with self._path.open("ab") as file:
            entries = [_append(file, name, tensor, None) for name, tensor in tensors.items()]
        self._record([replace(entry, note=note) for entry in entries])

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of all that was written, each once, in order."""
        return tuple(dict.fromkeys(entry.note for entry in self._entries.values() if entry.note))

    def get(self, name: str) -> Stored:
        entry = self._entries.get(name)
        if entry is None:
            return self._base.get(name)
        with self._path.open("rb") as file:
            return entry.read(file)

    def _record(self, entries: Sequence[Entry]) -> None:
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps([asdict(entry) for entry in entries]) + "\n")
        self._entries.update((entry.name, entry) for entry in entries)

    def _recover(self) -> None:
        """Keep what the journal has whole lines for, and cut off what came after."""
        text, end = self._journal.read_text(encoding="utf-8"), 0
        whole = text[: text.rfind("\n") + 1]
        there = self._path.stat().st_size if self._path.is_file() else 0
        kept = []
        for line in whole.splitlines(keepends=True):
            entries = [Entry(**{**values, "shape": tuple(values["shape"])}) for values in json.loads(line)]
            if entries[-1].end > there:  # the data did not reach the disk
                break
            self._entries.update((entry.name, entry) for entry in entries)
            end = entries[-1].end
            kept.append(line)
        self._journal.write_text("".join(kept), encoding="utf-8")
        with self._path.open("ab") as file:
            file.truncate(end)


def _append(file: BinaryIO, name: str, tensor: Stored, error: float | None) -> Entry:
    start = file.tell()
    if not isinstance(tensor, QuantizedTensor):
        _write(file, tensor.float())
        return Entry(name, start, file.tell(), tuple(tensor.shape), error=error)
    for part in (pack_bits(tensor.values, tensor.bits), tensor.scales, tensor.zero_points):
        if part is not None:
            _write(file, part)
    asymmetric = tensor.zero_points is not None
    return Entry(name, start, file.tell(), tensor.shape, tensor.bits, tensor.group, asymmetric, tensor.scheme, error)


def _write(file: BinaryIO, tensor: torch.Tensor) -> None:
    file.write(tensor.contiguous().numpy().data)


def _read(file: BinaryIO, dtype: type[np.generic], shape: tuple[int, ...]) -> torch.Tensor:
    import torch

    count = int(np.prod(shape))
    return torch.from_numpy(np.fromfile(file, dtype=dtype, count=count).reshape(shape))
