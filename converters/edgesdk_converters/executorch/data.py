"""The tensors of a program, in a file beside it until it is written.

They go there as they come, so memory is bounded by the largest of them. A tensor that a kernel and a delegate both read
is stored once: the segment that the delegate looks up by name lies inside the one of the kernels' constants.
Source: program.fbs and the serializer of ExecuTorch 1.5.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import torch

ALIGNMENT = 128  # of segments and of kernels' constants


class DataFile:
    """Tensors by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("wb")
        self._places: dict[str, tuple[int, int]] = {}
        self._named: dict[str, None] = {}
        self._constants: dict[str, int] = {}

    def __enter__(self) -> DataFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._path.unlink(missing_ok=True)

    def add(self, name: str, tensor: torch.Tensor) -> int:
        """Store a tensor for delegates, which look it up by name; returns its bytes."""
        self._named[name] = None
        return self._store(name, tensor)[1]

    def constant(self, name: str, tensor: torch.Tensor) -> int:
        """Store a tensor for kernels; returns the number of its buffer."""
        self._store(name, tensor)
        return self._constants.setdefault(name, len(self._constants) + 1)

    def segments(self) -> dict[str, Any]:
        """The program's fields about its data: segment 0 spans the kernels' constants, every name has one more."""
        spans = [self._places[name] for name in self._constants]
        start = min((offset for offset, _ in spans), default=0)
        stop = max((offset + size for offset, size in spans), default=0)
        named = [self._places[name] for name in self._named]
        return {
            "segments": [{"offset": offset, "size": size} for offset, size in [(start, stop - start), *named]],
            "constant_segment": {"segment_index": 0, "offsets": [0, *(offset - start for offset, _ in spans)]},
            "named_data": [{"key": name, "segment_index": index} for index, name in enumerate(self._named, 1)],
        }

    def finish(self) -> tuple[Path, int]:
        """The file with everything in it, and its size."""
        size = self._stream.tell()
        self._stream.close()
        return self._path, size

    def _store(self, name: str, tensor: torch.Tensor) -> tuple[int, int]:
        if name not in self._places:
            self._stream.write(bytes(-self._stream.tell() % ALIGNMENT))
            offset = self._stream.tell()
            raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
            self._stream.write(raw.data)
            self._places[name] = (offset, raw.nbytes)
        return self._places[name]
