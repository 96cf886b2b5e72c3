"""A compressed checkpoint: what passes made of a model, in a folder that every export takes as it is.

``checkpoint.json`` says what it is and is written last; ``model.safetensors`` holds ``NAME`` for a float tensor, and
``NAME.values`` (packed as in :func:`~edgesdk.model.tensors.pack_bits`), ``NAME.scales`` and ``NAME.zero_points`` for a
quantized one, under canonical names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..bounds.regular import read_limited, regular_file
from ..bounds.zips import refuse_name
from ..digests import file_digest
from ..documents import parse_json
from ..errors import ModelError
from ..files import FileEntry, file_entry
from ..lines import Line
from ..progress import Progress, track
from ..schema import dump, load
from . import Compression, Model, Origin
from .counts import refuse_experts
from .safetensors_writer import Header, SafetensorsWriter, kind_of
from .spec import DecoderSpec
from .tensors import STORED_BITS, QuantizedTensor, pack_bits, packed_columns, scale_storage, unpack_bits
from .tokenizer import SpecialTokens, written_tokenizer

if TYPE_CHECKING:
    import torch

    from .safetensors_file import SafetensorsFolder
    from .weights import Stored

SCHEMA = 2
FILE, WEIGHTS, LICENCES = "checkpoint.json", "model.safetensors", "licences"
_OLDER = "it was made before families had mixtures and mixers: compress the original again"
_DAMAGED = "the checkpoint is damaged: copy or compress it again"


@dataclass(frozen=True)
class Grid:
    """How a quantized tensor is stored: see :class:`~edgesdk.model.tensors.QuantizedTensor`."""

    bits: int
    group: int
    asymmetric: bool = False


@dataclass(frozen=True)
class Description:
    """``checkpoint.json``.

    Attributes:
        schema: of this file.
        name: of the model.
        licence: of the model, or None when it said nothing.
        spec: its architecture after the passes.
        special: the special-token policy, or None without a tokenizer.
        recipe: the recipe's name.
        activations: bits that the recipe asks for, or None.
        kv_bits: bits of the key-value cache that it asks for, or None.
        observer: which range static scales of activations hold, where the runtime has such.
        passes: every pass with its options.
        reports: what each pass reported.
        grids: how each quantized tensor is stored.
        sources: files of the checkpoint that was compressed.
        calibration: where calibration text came from.
        quality: the float32 reference over these weights against the original: ``own_text``, ``eval_text`` and
            ``perplexity``, each null where it was not measured; or None.
        quality_reason: why nothing was measured.
        tools: versions that made it.
        notes: sentences that the user should read.
        files: every other file of the folder, with size and SHA-256.
        oracle: what transformers said of the checkpoint that was compressed, or None.
    """

    schema: int
    name: Line
    licence: Line | None
    spec: DecoderSpec
    special: SpecialTokens | None
    recipe: Line
    activations: int | None
    kv_bits: int | None
    observer: Literal["minmax", "percentile", "mse"]
    passes: tuple[dict[str, Any], ...]
    reports: tuple[dict[str, Any], ...]
    grids: dict[str, Grid]
    sources: tuple[FileEntry, ...]
    calibration: dict[str, Any]
    quality: dict[str, Any] | None
    quality_reason: str | None
    tools: dict[Line, Line]
    notes: tuple[str, ...] = ()
    files: tuple[FileEntry, ...] = field(default=())
    oracle: dict[str, Any] | None = None


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a compressed checkpoint."""
    return (folder / FILE).is_file()


def write_weights(model: Model, folder: Path, progress: Progress) -> dict[str, Grid]:
    """Write ``model.safetensors``, one tensor in memory at a time; returns the grid of every quantized tensor."""
    headers: dict[str, Header] = {}
    grids: dict[str, Grid] = {}
    names = list(model.spec.tensors())
    for name in track(progress, "Sizing the checkpoint", names):
        stored = model.weights.get(name)
        if isinstance(stored, QuantizedTensor):
            grids[name] = Grid(stored.bits, stored.group, stored.zero_points is not None)
        headers |= {part: Header(kind_of(tensor.dtype), tuple(tensor.shape)) for part, tensor in _parts(name, stored)}
    with (folder / WEIGHTS).open("wb") as file:
        writer = SafetensorsWriter(file, headers)
        for name in track(progress, "Writing the checkpoint", names):
            for part, tensor in _parts(name, model.weights.get(name)):
                writer.write(part, tensor)
    return grids


def write_description(description: Description, folder: Path) -> None:
    """Write ``checkpoint.json`` over the files that are there; nothing may follow it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = tuple(file_entry(path, path.relative_to(folder).as_posix()) for path in paths)
    data = {**dump(description), "files": dump(files)}
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8", newline="\n")


def read_description(folder: Path) -> Description:
    """Read ``checkpoint.json`` and check every file that it names.

    Raises:
        ModelError: damaged, of a newer schema, or a file is missing or was changed.
    """
    path = folder / FILE
    data = parse_json(read_limited(path, error=ModelError), str(path), ModelError, hint=_DAMAGED)
    found = data.get("schema") if isinstance(data, dict) else None
    if found != SCHEMA:
        newer = isinstance(found, int) and found > SCHEMA
        raise ModelError(
            f"{path}: checkpoint schema {found!r}; this edgesdk reads schema {SCHEMA}",
            hint="pip install --upgrade edgesdk" if newer else _OLDER if found == 1 else _DAMAGED,
        )
    description = load(Description, data, str(path), ModelError)
    _refuse_files(description, folder)
    refuse_experts(description.spec, _shapes(folder), str(path))
    if not _sound(description):
        raise ModelError(f"{path}: says what no checkpoint can hold", hint=_DAMAGED)
    return description


def _refuse_files(description: Description, folder: Path) -> None:
    path = folder / FILE
    for file in description.files:
        refuse_name(file.path, str(path), ModelError)
        inside = folder / file.path
        if regular_file(folder, file.path, ModelError) is None:
            raise ModelError(f"{inside}: missing from the checkpoint", hint=_DAMAGED)
        if inside.stat().st_size != file.size or file_digest(inside) != file.sha256:
            raise ModelError(f"{inside}: is not the file that was written (size or SHA-256 differs)", hint=_DAMAGED)


def _shapes(folder: Path) -> list[tuple[int, ...]]:
    """Of every tensor of a checkpoint."""
    from .safetensors_file import SafetensorsFolder

    return [header.shape for header in SafetensorsFolder(folder).headers.values()]


def _sound(description: Description) -> bool:
    """Whether the grids fit the spec, and the files are there that they need."""
    spec = description.spec
    shapes = {name: shape for name, shape in spec.tensors().items() if len(shape) == 2} if spec.layers else {}
    grids_fit = all(
        name in shapes and grid.bits in STORED_BITS and grid.group > 0 and shapes[name][1] % grid.group == 0
        for name, grid in description.grids.items()
    )
    needed = {WEIGHTS} if description.special is None else {WEIGHTS, "tokenizer.json"}
    notes_fit = all(isinstance(report.get("notes"), list) for report in description.reports)
    bits_fit = description.activations in (None, 8, 16, 32) and description.kv_bits in (None, 8)
    return bool(shapes) and grids_fit and notes_fit and bits_fit and needed <= {file.path for file in description.files}


def open_checkpoint(folder: Path) -> Model:
    """A model over a compressed checkpoint; its weights are read when they are used.

    Raises:
        ModelError: as :func:`read_description`; or the weights do not fit the spec.
    """
    from .safetensors_file import SafetensorsFolder

    described = read_description(folder)
    weights = _CheckpointWeights(SafetensorsFolder(folder), described.grids, described.spec)
    tokenizer = None
    if described.special is not None:
        template = "chat_template.jinja"
        written = template if (folder / template).is_file() else None
        tokenizer = written_tokenizer(folder, described.special, described.spec.vocab, template=written)
    origin = Origin(
        described.name,
        (folder / FILE, folder / WEIGHTS),
        described.licence,
        tuple(folder / file.path for file in described.files if file.path.startswith(f"{LICENCES}/")),
        oracle=described.oracle,
    )
    columns = {name: shape[-1] for name, shape in described.spec.tensors().items()}
    compression = Compression(
        described.recipe,
        {name: (grid.bits, 0 if grid.group == columns[name] else grid.group) for name, grid in described.grids.items()},
        described.activations,
        described.kv_bits,
        described.observer,
        described.passes,
        described.reports,
    )
    return Model(described.spec, weights, tokenizer, origin, compression)


class _CheckpointWeights:
    """Weights of a compressed checkpoint, by canonical name."""

    def __init__(self, file: SafetensorsFolder, grids: Mapping[str, Grid], spec: DecoderSpec) -> None:
        self._file, self._grids, self._shapes = file, grids, spec.tensors()

    def get(self, name: str) -> Stored:
        grid = self._grids.get(name)
        if grid is None:
            return self._read(name, self._shapes[name])
        rows, columns = self._shapes[name]
        packed = self._read(f"{name}.values", (rows, packed_columns(columns, grid.bits)))
        values = unpack_bits(packed, grid.bits, columns)
        groups = (rows, columns // grid.group)
        zeros = self._read(f"{name}.zero_points", groups) if grid.asymmetric else None
        return QuantizedTensor(values, self._read(f"{name}.scales", groups).float(), grid.bits, grid.group, zeros)

    def _read(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        header = self._file.headers.get(name)
        if header is None or header.shape != shape:
            raise ModelError(f"{self._file.where}: tensor '{name}' is missing or has another shape", hint=_DAMAGED)
        return self._file.read(name)


def _parts(name: str, stored: Stored) -> list[tuple[str, torch.Tensor]]:
    """The tensors of the file that hold one tensor of the model."""
    if not isinstance(stored, QuantizedTensor):
        return [(name, _smallest_float(stored))]
    found = [
        (f"{name}.values", pack_bits(stored.values, stored.bits)),
        (f"{name}.scales", stored.scales.to(scale_storage(stored.scales))),
    ]
    return found if stored.zero_points is None else [*found, (f"{name}.zero_points", stored.zero_points)]


def _smallest_float(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in bfloat16 or float16 where that holds it exactly."""
    return tensor.to(scale_storage(tensor.float()))
