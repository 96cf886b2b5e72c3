"""LoRA adapters as PEFT saves them: opened lazily, merged into a model a tensor at a time, or kept apart.

A matrix W [out, in] becomes ``W + scale * B @ A`` with A [rank, in] and B [out, rank] (LoRA, arXiv 2106.09685). PEFT
names the modules of the transformers model, whatever file the base model lies in; the family's own places say which
canonical tensors those are, and which rows of a fused one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..lines import check_line
from .adapter_config import CONFIG, MERGE, PRINCIPAL, read_adapter_config
from .config import SET_RIGHT, Config
from .families import FAMILIES
from .safetensors_file import SafetensorsFolder
from .tensors import QuantizedTensor
from .weights import CheckpointWeights, Stowed, Weights, dense

if TYPE_CHECKING:
    import torch

    from . import Compression, Model
    from .weights import Stored

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PATTERNS = {"rank_pattern": "r", "alpha_pattern": "lora_alpha"}
_KINDS = {"lora_A.weight": "A", "lora_B.weight": "B", "lora_embedding_A": "eA", "lora_embedding_B": "eB"}


@dataclass(frozen=True)
class LowRank:
    """An update of one matrix: float32 ``a`` [rank, in] and ``b`` [out, rank], the scale already in ``b``."""

    a: torch.Tensor
    b: torch.Tensor

    @property
    def delta(self) -> torch.Tensor:
        return self.b @ self.a


class Adapter:
    """A LoRA adapter that fits a model; its tensors are read when they are used.

    Attributes:
        name: of the adapter.
        files: what PEFT wrote.
        matrices: canonical names that it adds a product to, in the order of the model.
        replaced: canonical names of tensors that it holds whole (``modules_to_save``).
    """

    def __init__(self, folder: Path, model: Model, name: str | None = None) -> None:
        """Read the configuration and the headers.

        Raises:
            ModelError: not a LoRA adapter, of a kind that is not supported, or made for another model.
        """
        self.name, self.where = name or folder.resolve().name, str(folder)
        check_line(self.name, "the adapter's name", ModelError, "rename its folder, or name it: NAME=FOLDER")
        self._config = read_adapter_config(folder)
        self._file = _open_file(folder)
        self.files = (folder / CONFIG, folder / WEIGHTS)
        places = FAMILIES.get(model.spec.family).transformers_places(model.spec)
        shapes = model.spec.tensors()
        pairs, whole = self._sorted_names()
        self._places = {name: place for name, place in places.items() if place.name.removesuffix(".weight") in pairs}
        self.matrices = tuple(self._places)
        self._shapes = shapes
        self.replaced = tuple(name for name, place in places.items() if place.name in whole)
        self._refuse_unknown(pairs, whole, places)
        self._refuse_tied(model)
        self._refuse_parts()
        self._check(pairs, shapes)
        self._pairs = pairs
        self._whole = CheckpointWeights(
            _Renamed(self._file, whole),
            {name: places[name] for name in self.replaced},
            {name: shapes[name] for name in self.replaced},
        )

    @property
    def rank(self) -> int:
        return max(self._rank(self._module(name)) for name in self.matrices)

    def update(self, name: str) -> LowRank:
        """The update of one of :attr:`matrices`."""
        place, module = self._places[name], self._module(name)
        found = self._pairs[module]
        if "A" in found:
            a, b = self._read(found["A"]), self._read(found["B"])
        else:  # an embedding's are transposed: PEFT looks rows of A up
            a, b = self._read(found["eB"]).T, self._read(found["eA"]).T
        stowed = _One(b.T if place.transposed else b)
        own = replace(place, offset=0.0, shape=stowed.shape(name))  # its rows lie as those of the matrix do
        rows = CheckpointWeights(stowed, {name: own}, {name: (self._shapes[name][0], a.shape[0])})
        return LowRank(a.contiguous(), self._scale(module, a.shape[0]) * dense(rows.get(name)))

    @property
    def takes_from_base(self) -> bool:
        """Whether it was trained on a base without the part that it began with, which was taken out of each matrix."""
        return self._config.get("init_lora_weights") in PRINCIPAL

    def base(self, name: str, matrix: torch.Tensor) -> torch.Tensor:
        """What one of :attr:`matrices` was while the adapter was trained, from its own values, float32 [out, in]."""
        module = self._module(name)
        if not self.takes_from_base or "A" not in self._pairs[module]:  # embeddings stay whole
            return matrix
        rank = self._rank(module)
        return matrix - PRINCIPAL[self._config.get("init_lora_weights")](matrix, rank, self._scale(module, rank))

    def whole(self, name: str) -> Stored:
        """One of :attr:`replaced`."""
        return self._whole.get(name)

    def _module(self, name: str) -> str:
        return self._places[name].name.removesuffix(".weight")

    def _read(self, name: str) -> torch.Tensor:
        tensor = self._file.read(name).float()
        if not tensor.isfinite().all():
            raise ModelError(
                f"{self.where}: tensor '{name}' holds values that are NaN or infinite",
                hint="the adapter is damaged or its training diverged",
            )
        return tensor

    def _rank(self, module: str) -> int:
        """The rank that the configuration gives a module."""
        return self._own(module, "rank_pattern").integer("r", 8)

    def _scale(self, module: str, rank: int) -> float:
        alpha = self._own(module, "alpha_pattern").number("lora_alpha", 8)
        return alpha / (math.sqrt(rank) if self._config.flag("use_rslora", False) else rank)

    def _own(self, module: str, patterns: str) -> Config:
        """The configuration of one module: what the first pattern that fits it says stands for all modules' value."""
        where = self._config.section(patterns).where
        try:
            own = _matched(self._config.section(patterns).values, module)
        except (re.error, RecursionError, OverflowError) as failure:
            raise ModelError(f"{where}: no pattern that Python's re knows ({failure})", hint=SET_RIGHT) from None
        return self._config if own is None else Config({_PATTERNS[patterns]: own}, where)

    def _sorted_names(self) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
        """Tensors of updates, by module and kind; and whole tensors, by transformers' names."""
        pairs: dict[str, dict[str, str]] = {}
        whole: dict[str, str] = {}
        for stored in self._file.headers:
            name = stored.removeprefix(_PREFIX)
            kind = next((kind for kind in _KINDS if name.endswith(f".{kind}")), None)
            if kind is not None:
                pairs.setdefault(name.removesuffix(f".{kind}"), {})[_KINDS[kind]] = stored
            elif ".lora_" in name:
                raise ModelError(f"{self.where}: tensor '{stored}' belongs to no LoRA that is known here", hint=MERGE)
            else:
                whole[name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")] = stored
        for module, found in pairs.items():
            if set(found) not in ({"A", "B"}, {"eA", "eB"}):
                raise ModelError(f"{self.where}: module '{module}' has one half of its update only")
        if not pairs:
            raise ModelError(f"{self.where}: no LoRA tensors in {WEIGHTS}")
        return pairs, whole

    def _refuse_unknown(self, pairs: Mapping[str, Any], whole: Mapping[str, Any], places: Mapping[str, Stowed]) -> None:
        known = {place.name for place in places.values()}
        unknown = [module for module in pairs if f"{module}.weight" not in known]
        unknown += [name for name in whole if name not in known]
        if unknown:
            base = self._config.get("base_model_name_or_path")
            raise ModelError(
                f"{self.where}: the adapter changes '{unknown[0]}'"
                + (f" and {len(unknown) - 1} more that" if len(unknown) > 1 else ", which")
                + " this model does not have",
                hint=f"it was trained on {base}; give that model" if base else "give the model that it was trained on",
            )

    def _refuse_tied(self, model: Model) -> None:
        """A tied embedding that an adapter changes would have to part from the head."""
        changed = [name for name in (*self.matrices, *self.replaced) if name in ("embed.weight", "head.weight")]
        if changed and model.spec.tied:
            raise ModelError(
                f"{self.where}: the adapter changes the embedding, which in this model is the head as well; what that "
                "does to the head differs between PEFT's own ways to run it",
                hint=MERGE,
            )

    def _refuse_parts(self) -> None:
        """What was taken out of a matrix follows from the whole of it, not from one part of a fused one."""
        kind = self._config.get("init_lora_weights")
        for name, place in self._places.items():
            parts = place.rows is not None or (place.transposed and kind == "olora")
            if self.takes_from_base and parts:
                raise ModelError(
                    f"{self.where}: '{self._module(name)}' began as {kind} ('init_lora_weights'), which cannot be "
                    "taken out of a fused or transposed matrix again",
                    hint=MERGE,
                )

    def _check(self, pairs: Mapping[str, Mapping[str, str]], shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, place in self._places.items():
            module = self._module(name)
            found = {kind: self._file.headers[stored].shape for kind, stored in pairs[module].items()}
            if len(place.shape or shapes[name]) != 2 or len(shapes[name]) != 2:
                raise ModelError(f"{self.where}: '{module}' is no matrix, and only updates of those merge", hint=MERGE)
            rows, columns = place.shape or shapes[name]
            if place.transposed:
                rows, columns = columns, rows
            rank = self._rank(module)
            if "A" in found:
                wanted = {"A": (rank, columns), "B": (rows, rank)}
            else:
                wanted = {"eA": (rank, rows), "eB": (columns, rank)}
            if found != wanted:
                raise ModelError(
                    f"{self.where}: '{module}' is {rows} x {columns} in this model with rank {rank}, but the adapter's "
                    f"tensors are {' and '.join(' x '.join(map(str, shape)) for shape in found.values())}",
                    hint="the adapter belongs to another base model (or its configuration to another adapter)",
                )


class AdaptedWeights:
    """Weights with an adapter merged in; each tensor is merged when it is read.

    Attributes:
        rounded: names of tensors so far that were quantized, and are floats now.
    """

    def __init__(self, base: Weights, adapter: Adapter) -> None:
        self._base, self._adapter = base, adapter
        self._changed, self._replaced = frozenset(adapter.matrices), frozenset(adapter.replaced)
        self.rounded: set[str] = set()

    def get(self, name: str) -> Stored:
        stored = self._adapter.whole(name) if name in self._replaced else self._base.get(name)
        if name not in self._changed:
            return stored
        if isinstance(stored, QuantizedTensor):
            self.rounded.add(name)
        return self._adapter.base(name, dense(stored)) + self._adapter.update(name).delta


def with_adapter(model: Model, folder: str | Path) -> Model:
    """The model with a LoRA adapter merged into its weights.

    Args:
        model: the one that the adapter was trained on.
        folder: what PEFT's ``save_pretrained`` wrote.

    Raises:
        ModelError: what is wrong with the adapter, or that it belongs to another model.
    """
    adapter = open_adapter(folder, model)
    files = (*model.origin.files, *adapter.files)
    origin = replace(model.origin, files=files, adapters=(*model.origin.adapters, adapter))
    return replace(
        model,
        weights=AdaptedWeights(model.weights, adapter),
        origin=origin,
        compression=_less(model.compression, adapter),
    )


def with_switchable(model: Model, folders: Mapping[str, str | Path]) -> Model:
    """The model with LoRA adapters that stay apart from its weights, by the names that users switch to.

    Raises:
        ModelError: what is wrong with an adapter; or it changes what no runtime can switch.
    """
    adapters = []
    for name, folder in folders.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            raise ModelError(f"an adapter's name is of letters, digits, '-', '_' and '.', not {name!r}")
        adapter = open_adapter(folder, model, name)
        if adapter.takes_from_base:
            raise ModelError(
                f"{folder}: the adapter belongs to a base that it changes ('init_lora_weights'): it cannot be switched",
                hint=f"merge it: --adapter {folder}, or let PEFT convert it (path_initial_model_for_weight_conversion)",
            )
        fixed = [*adapter.replaced, *(name for name in adapter.matrices if not name.startswith("layers."))]
        if fixed:
            raise ModelError(
                f"{folder}: the adapter changes '{fixed[0]}', and only matrices of layers can be switched",
                hint=f"merge it: --adapter {folder}",
            )
        adapters.append(adapter)
    return replace(model, switchable=tuple(adapters))


def open_adapter(folder: str | Path, model: Model, name: str | None = None) -> Adapter:
    """An adapter for a model.

    Raises:
        ModelError: as :class:`Adapter`; or the model was compressed, so that the adapter no longer fits its weights.
    """
    if model.compression is not None and model.compression.passes:
        raise ModelError(
            "an adapter belongs to the weights that it was trained on, and this checkpoint's were changed "
            f"({model.compression.name})",
            hint="merge it first: edgesdk compress MODEL --adapter FOLDER",
        )
    return Adapter(Path(folder).expanduser(), model, name)


def merge_notes(model: Model) -> list[str]:
    """What users should know about the adapters that were merged into a model: complete when all weights were read."""
    found = []
    for adapter in model.origin.adapters:
        count = len(adapter.matrices) + len(adapter.replaced)
        found.append(f"adapter {adapter.name} (LoRA, rank {adapter.rank}) is merged into {count} matrices")
    if isinstance(model.weights, AdaptedWeights) and model.weights.rounded:
        found.append(
            f"{len(model.weights.rounded)} matrices were quantized in the checkpoint: dequantized exactly to merge the "
            "adapter, so their own integers are not kept"
        )
    return found


class _One:
    """One tensor, under whatever name."""

    where = "adapter"

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def shape(self, name: str) -> tuple[int, ...] | None:
        return tuple(self._tensor.shape)

    def read(self, name: str) -> torch.Tensor:
        return self._tensor


class _Renamed:
    """Tensors of a file under transformers' names."""

    def __init__(self, file: SafetensorsFolder, names: Mapping[str, str]) -> None:
        self._file, self._names, self.where = file, names, file.where

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self._file.shape(self._names[name]) if name in self._names else None

    def read(self, name: str) -> torch.Tensor:
        return self._file.read(self._names[name])


def _open_file(folder: Path) -> SafetensorsFolder:
    if not (folder / WEIGHTS).is_file():
        if (folder / "adapter_model.bin").is_file():
            raise ModelError(
                f"{folder}: only adapter_model.bin here, a pickle; loading one runs code from the file, so edgesdk "
                "refuses it",
                hint="save it again with PEFT's save_pretrained(OUT), which writes safetensors",
            )
        raise ModelError(f"{folder}: no {WEIGHTS}", hint="copy the whole folder that PEFT's save_pretrained wrote")
    return SafetensorsFolder(folder, (folder / WEIGHTS,))


def _matched(patterns: Mapping[str, Any], module: str) -> Any:
    """What the first pattern that fits says, as PEFT matches them; None without one."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return None


def _less(compression: Compression | None, adapter: Adapter) -> Compression | None:
    """What is left of a checkpoint's own integers."""
    if compression is None:
        return None
    changed = {*adapter.matrices, *adapter.replaced}
    return replace(compression, grids={name: grid for name, grid in compression.grids.items() if name not in changed})
