"""A safetensors folder in which some matrices are integers with scales."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ModelError
from .. import Compression
from ..config import Config
from ..safetensors_file import FLOATS, SafetensorsFolder

if TYPE_CHECKING:
    from ..weights import Stored, Stowed

#: What a grid may have.
BITS = (2, 3, 4, 8)
DAMAGED = "the checkpoint is damaged: download it again"
FOREIGN = "the checkpoint is damaged, or its config.json belongs to another"
UNQUANTIZED = "export the unquantized checkpoint"


@dataclass(frozen=True)
class Matrix:
    """One matrix that a checkpoint keeps as several tensors.

    Attributes:
        shape: [out, in].
        read: assembles it: a :class:`~edgesdk.model.tensors.QuantizedTensor` if it is on a grid, else floats.
        grid: bits and group (0: a row), or None.
        why_float: the reason, where there is no grid; it ends the sentence "... become floats: ".
    """

    shape: tuple[int, int]
    read: Callable[[], Stored]
    grid: tuple[int, int] | None
    why_float: str = ""


class QuantizedFolder:
    """A :class:`~edgesdk.model.weights.TensorFile`: assembled matrices by the name of their weight, floats as they are.

    Attributes:
        activations: bits of the activations that the checkpoint asks for, or None.
    """

    def __init__(
        self,
        folder: SafetensorsFolder,
        config: Config,
        matrices: Mapping[str, Matrix],
        activations: int | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Take a folder, its ``quantization_config``, its matrices, and sentences that the user should read."""
        self.where, self.activations = folder.where, activations
        self._folder, self._config, self._matrices, self._notes = folder, config, matrices, notes

    def shape(self, name: str) -> tuple[int, ...] | None:
        matrix = self._matrices.get(name)
        return matrix.shape if matrix else self._folder.shape(name)

    def read(self, name: str) -> Stored:
        matrix = self._matrices.get(name)
        return matrix.read() if matrix else self._folder.read(name)

    def unread(self, places: Mapping[str, Stowed]) -> list[str]:
        """Tensors that nothing asked for, and matrices that stand for no canonical tensor."""
        used = {place.name for place in places.values()}
        return sorted({*self._folder.unread(), *(name for name in self._matrices if name not in used)})

    def compression(self, places: Mapping[str, Stowed]) -> Compression:
        """What was done to the tensors that canonical names stand for.

        Raises:
            ModelError: a family keeps a matrix as [in, out], which these formats do not say.
        """
        matrices = {name: self._matrices[place.name] for name, place in places.items() if place.name in self._matrices}
        for place in (places[name] for name in matrices):
            if place.transposed:
                raise ModelError(
                    f"{self.where}: '{place.name}' is quantized, and this family keeps its matrices as [in, out]",
                    hint=UNQUANTIZED,
                )
        grids = {name: matrix.grid for name, matrix in matrices.items() if matrix.grid is not None}
        reasons = Counter(matrix.why_float for matrix in matrices.values() if matrix.grid is None)
        floats = tuple(
            f"{count} of {len(matrices)} quantized matrices become floats: {why}" for why, count in reasons.items()
        )
        schemes = Counter(f"w{bits}g{group}" if group else f"w{bits}" for bits, group in grids.values())
        method = str(self._config.get("quant_method"))
        title = f"{method} checkpoint"
        report = {"name": title, "changed": False, "tensors": dict(schemes), "notes": [*self._notes, *floats]}
        return Compression(
            method,
            grids,
            activations=self.activations,
            passes=({"use": title, **self._config.values},),
            reports=(report,),
        )


def modules(folder: SafetensorsFolder, config: Config, suffix: str) -> list[str]:
    """The names that stand before ``suffix`` in a quantized folder.

    Raises:
        ModelError: there are none.
    """
    found = [name.removesuffix(suffix) for name in folder.headers if name.endswith(suffix)]
    if not found:
        raise ModelError(
            f"{folder.where}: already quantized ({config.get('quant_method')}) says config.json, but no tensor's name "
            f"ends with '{suffix}'",
            hint="download the whole checkpoint, or remove quantization_config if these are float weights",
        )
    return found


def part(
    folder: SafetensorsFolder, name: str, kinds: Collection[str] = FLOATS, shape: tuple[int | None, ...] = (None, None)
) -> tuple[int, ...]:
    """The shape of one stored tensor, after checking it against its header.

    Args:
        folder: where it lies.
        name: the tensor.
        kinds: element types of safetensors that it may have.
        shape: its shape; None for any length.

    Raises:
        ModelError: it is missing, or has another type or shape.
    """
    header = folder.headers.get(name)
    if header is None:
        raise ModelError(f"{folder.where}: tensor '{name}' is missing", hint=DAMAGED)
    found = header.shape
    fits = len(found) == len(shape) and all(want in (None, have) for have, want in zip(found, shape, strict=True))
    if header.kind not in kinds or not fits:
        have = " x ".join(map(str, found))
        wanted = " x ".join("any" if length is None else str(length) for length in shape)
        raise ModelError(
            f"{folder.where}: tensor '{name}' is {header.kind} [{have}], but its format asks for "
            f"{' or '.join(sorted(kinds))} [{wanted}]",
            hint=FOREIGN,
        )
    return found
