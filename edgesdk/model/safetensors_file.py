"""Tensors of a Hugging Face folder: one safetensors file, or shards with an index."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..bounds.amounts import TENSOR_HEADER
from ..bounds.regular import read_limited, regular_file
from ..documents import parse_json
from ..errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
#: Element types, in the format's own words, that are read as they are.
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_COMPARED = 1 << 24  # elements of two matrices that are compared at once
_PART = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True)
class Header:
    """What a shard says of one tensor: its element type in safetensors' words (``F16``, ``I32``), shape and file."""

    kind: str
    shape: tuple[int, ...]
    file: Path


class Headers(dict[str, Header]):
    """Every tensor's header; it remembers which were asked for, so that none is passed over in silence."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Header:
        self.asked.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: None = None) -> Header | None:  # type: ignore[override]
        self.asked.add(name)
        return super().get(name, default)

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return super().__contains__(name)


class SafetensorsFolder:
    """Reads tensors by name; each read maps the shard, copies the tensor and unmaps it, so memory stays bounded.

    Attributes:
        headers: every tensor, of whatever type.
        metadata: the text that all shards carry beside their tensors.
    """

    def __init__(self, folder: Path, files: Sequence[Path] | None = None, named: str | None = None) -> None:
        """Read the headers of every shard.

        Args:
            folder: a model's.
            files: other files than a model's own shards.
            named: the file, or the index, that ``config.json`` names itself (``transformers_weights``).

        Raises:
            ModelError: no safetensors, a missing or truncated shard, a tensor that lies in two shards, or a pickle
                checkpoint.
        """
        try:
            import safetensors  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("safetensors", "model") from None

        self.where = str(folder)
        self.files = _shards(folder, named) if files is None else list(files)
        self.headers = Headers()
        self.metadata: dict[str, str] = {}
        for path in self.files:
            self._read_header(path)
        self.headers.asked.clear()

    def _read_header(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        if regular_file(path.parent, path.name, ModelError) is None:
            raise ModelError(
                f"{path.parent}: shard '{path.name}' is missing",
                hint=f"{INDEX} names it; download the whole checkpoint",
            )
        _refuse_header(path)
        try:
            with safe_open(path, framework="pt") as handle:
                self.metadata.update(handle.metadata() or {})
                for name in handle.keys():  # noqa: SIM118 - a safe_open handle is not iterable
                    part = handle.get_slice(name)
                    if name in self.headers:
                        raise ModelError(
                            f"{path.parent}: tensor '{name}' lies in {self.headers[name].file.name} and in {path.name}",
                            hint="remove the shards of another save, and the index that names them",
                        )
                    self.headers[name] = Header(part.get_dtype(), tuple(part.get_shape()), path)
        except (SafetensorError, OSError, ValueError) as failure:
            raise ModelError(
                f"{path}: not a whole safetensors file ({failure})", hint="it may be truncated: download it again"
            ) from None

    def unread(self) -> list[str]:
        """Tensors that nothing asked for so far, sorted."""
        return sorted(set(self.headers) - self.headers.asked)

    def same(self, one: str, other: str) -> bool:
        """Whether two float matrices hold the same values; some rows at a time are in memory."""
        from safetensors import safe_open

        if one not in self.headers or other not in self.headers:
            return False
        first, second = self.headers[one], self.headers[other]
        if first.shape != second.shape:
            return False
        with safe_open(first.file, framework="pt") as left, safe_open(second.file, framework="pt") as right:
            a, b = left.get_slice(one), right.get_slice(other)
            step = max(1, _COMPARED // max(1, math.prod(first.shape[1:])))
            starts = range(0, first.shape[0], step)
            return all(bool((a[at : at + step] == b[at : at + step]).all()) for at in starts)

    def has(self, name: str) -> bool:
        """Whether there is such a tensor, or one that holds it among several."""
        return _taken_apart(name)[0] in self.headers

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a float tensor, or None when there is no tensor of this name.

        ``x[3].weight`` is the fourth of those that ``x.weight`` holds along its first axis; it alone is read.

        Raises:
            ModelError: the tensor holds something else than floats.
        """
        stored, part = _taken_apart(name)
        header = self.headers.get(stored)
        if header is not None and header.kind not in FLOATS:
            raise ModelError(
                f"{self.where}: tensor '{name}' holds {header.kind} values, and config.json does not say how they are "
                "quantized",
                hint="download config.json again (quantization_config is missing or another's), or export the "
                "unquantized checkpoint",
            )
        if header is None or part is None:
            return header.shape if header else None
        return header.shape[1:] if header.shape and part < header.shape[0] else None

    def read(self, name: str) -> torch.Tensor:
        from safetensors import safe_open

        stored, part = _taken_apart(name)
        with safe_open(self.headers[stored].file, framework="pt") as handle:
            tensor: torch.Tensor = handle.get_tensor(stored) if part is None else handle.get_slice(stored)[part]
            return tensor.clone()


def _refuse_header(path: Path) -> None:
    """Stop at a header that would take more memory than those of real files, before it is parsed."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > TENSOR_HEADER:
        raise ModelError(
            f"{path}: a header of {length} bytes, and at most {TENSOR_HEADER} are read",
            hint="it is no safetensors file, or damaged: download it again",
        )


def _taken_apart(name: str) -> tuple[str, int | None]:
    """The name of a tensor in the file, and which part of it is meant (None: all of it)."""
    found = _PART.search(name)
    return (name, None) if found is None else (name.replace(found[0], ""), int(found[1]))


def _shards(folder: Path, named: str | None) -> list[Path]:
    """A model's files, as transformers chooses: those that ``config.json`` names, one, or the shards of an index."""
    if named is not None:
        if Path(named).name != named or not (folder / named).is_file() or not named.endswith((".safetensors", INDEX)):
            raise ModelError(
                f"{folder}: config.json names the weights '{named}' ('transformers_weights'), which is no safetensors "
                "file of the folder",
                hint="remove the key, or copy the file into the folder",
            )
        if not named.endswith(INDEX):
            return [folder / named]
    elif regular_file(folder, SINGLE, ModelError) is not None:
        return [folder / SINGLE]
    index = regular_file(folder, named or INDEX, ModelError)
    if index is not None:
        found = parse_json(read_limited(index, error=ModelError), str(index), ModelError)
        try:
            names = sorted(set(found["weight_map"].values()))
            if any(Path(name).name != name for name in names):
                raise ValueError("a shard lies outside the folder")
        except (ValueError, KeyError, AttributeError, TypeError) as failure:
            raise ModelError(f"{index}: not a readable shard index ({failure})") from None
        return [folder / name for name in names]
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"{folder}: only pickle weights here ({', '.join(pickles[:3])}); loading a pickle runs code from the file, "
            "so edgesdk refuses it",
            hint="save as safetensors: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT)",
        )
    raise ModelError(f"{folder}: no {SINGLE} and no {INDEX}", hint="a model is a Hugging Face folder or a GGUF file")
