"""Tensors of a Hugging Face folder: one safetensors file, or shards with an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_FLOATS = {"F64", "F32", "F16", "BF16"}


class SafetensorsFolder:
    """Reads tensors by name; each read maps the shard, copies the tensor and unmaps it, so memory stays bounded."""

    def __init__(self, folder: Path) -> None:
        """Read the headers of every shard.

        Raises:
            ModelError: no safetensors, a missing or truncated shard, or a pickle checkpoint.
        """
        try:
            import safetensors  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("safetensors", "model") from None

        self.where = str(folder)
        self.files = _shards(folder)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._file_of: dict[str, Path] = {}
        for path in self.files:
            self._read_header(path)

    def _read_header(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise ModelError(
                f"{path.parent}: shard '{path.name}' is missing",
                hint=f"{INDEX} names it; download the whole checkpoint",
            )
        try:
            with safe_open(path, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 - a safe_open handle is not iterable
                    part = handle.get_slice(name)
                    if part.get_dtype() not in _FLOATS:
                        continue
                    self._shapes[name] = tuple(part.get_shape())
                    self._file_of[name] = path
        except (SafetensorError, OSError, ValueError) as failure:
            raise ModelError(
                f"{path}: not a whole safetensors file ({failure})", hint="it may be truncated: download it again"
            ) from None

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self._shapes.get(name)

    def read(self, name: str) -> torch.Tensor:
        from safetensors import safe_open

        with safe_open(self._file_of[name], framework="pt") as handle:
            tensor: torch.Tensor = handle.get_tensor(name)
            return tensor.clone()


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            if any(Path(name).name != name for name in names):
                raise ValueError("a shard lies outside the folder")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as failure:
            raise ModelError(f"{index}: not a readable shard index ({failure})") from None
        return [folder / name for name in names]
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"{folder}: only pickle weights here ({', '.join(pickles[:3])}); loading a pickle runs code from the file, "
            "so edgesdk refuses it",
            hint="save as safetensors: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT)",
        )
    raise ModelError(f"{folder}: no {SINGLE} and no {INDEX}", hint="a model is a Hugging Face folder or a GGUF file")
