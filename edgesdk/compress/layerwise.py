"""Walking a model layer by layer over calibration text, with the sums that passes need of every matrix's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import ModelError
from ..progress import track

if TYPE_CHECKING:
    import torch

    from ..model import DecoderSpec, Model
    from ..model.layers import DecoderLayer
    from ..model.reference import ReferenceModel
    from .base import Setting

BATCH = 8  # sequences of one forward pass
_SAMPLED = 16


def batches(ids: torch.Tensor) -> list[torch.Tensor]:
    """Calibration ids [sequences, length] in pieces that are run together."""
    return [ids[at : at + BATCH] for at in range(0, len(ids), BATCH)]


def walk(model: Model, setting: Setting, title: str) -> Iterator[tuple[int, Inputs]]:
    """Every layer's index with sums over the inputs of its matrices, when the model runs its calibration text.

    Memory is one layer, and the hidden states of the text.

    Raises:
        ModelError: a layer gives NaN or infinite values; it is named.
    """
    from ..model.reference import ReferenceModel

    reference = ReferenceModel(model, resident=False)
    states = reference.embed(batches(setting.tokens(model)))
    reference.release()
    for index in track(setting.progress, title, range(len(model.spec.layers))):
        layer, inputs = reference.layer(index), Inputs(model.spec, index)
        states = observe(reference, layer, index, states, inputs)
        yield index, inputs


def walk_changing(
    model: Model, changed: Model, setting: Setting, title: str, done: Callable[[int], bool]
) -> Iterator[tuple[int, Inputs]]:
    """As :func:`walk`, where the caller gives each layer of ``changed`` its new matrices before it asks for the next.

    Each layer sees the states that the changed layers before it give; those that are ``done`` are only run.
    """
    from ..model.reference import ReferenceModel

    before = ReferenceModel(model, resident=False)
    after = ReferenceModel(changed, resident=False)
    states = before.embed(batches(setting.tokens(model)))
    before.release()
    for index in track(setting.progress, title, range(len(model.spec.layers))):
        if not done(index):
            inputs = Inputs(model.spec, index)
            observe(before, before.layer(index), index, states, inputs)
            yield index, inputs
        states = after.through(after.layer(index), states)


def observe(
    reference: ReferenceModel, layer: DecoderLayer, index: int, states: Sequence[torch.Tensor], inputs: Inputs
) -> list[torch.Tensor]:
    """Run states through a layer while ``inputs`` watches its matrices.

    Raises:
        ModelError: the layer gives NaN or infinite values.
    """
    layer.observe = inputs
    found = reference.through(layer, states)
    layer.observe = None
    if not all(bool(x.isfinite().all()) for x in found):
        raise ModelError(
            f"layer {index} gives NaN or infinite values on the calibration text",
            hint="its weights or norms are out of range: check the checkpoint (edgesdk quality MODEL MODEL), or give "
            "other text with --calibration",
        )
    return found


@dataclass
class InputSums:
    """Sums over the input rows x of a matrix.

    Attributes:
        products: sum of x x^T, float32 [in, in].
        magnitudes: sum of |x|, float32 [in].
        peaks: largest |x|, float32 [in].
        rows: how many.
        sample: every sixteenth of them, in pieces.
    """

    products: torch.Tensor
    magnitudes: torch.Tensor
    peaks: torch.Tensor
    rows: int = 0
    sample: list[torch.Tensor] = field(default_factory=list)

    def add(self, x: torch.Tensor) -> None:
        """Count rows [n, in]."""
        import torch

        sizes = x.abs()
        self.products.addmm_(x.T, x)
        self.magnitudes += sizes.sum(0)
        self.peaks = torch.maximum(self.peaks, sizes.amax(0))
        self.rows += len(x)
        self.sample.append(x[::_SAMPLED].clone())


class Inputs:
    """Watches the inputs of a layer's matrices; matrices that are given the same tensor share their sums."""

    def __init__(self, spec: DecoderSpec, index: int) -> None:
        self._columns = {_part(name): shape[-1] for name, shape in spec.layer_tensors(index).items()}
        self._sums: dict[str, InputSums] = {}
        self._shared: dict[str, str] = {}
        self._latest: tuple[str, torch.Tensor] | None = None

    def __call__(self, name: str, x: torch.Tensor) -> None:
        if name not in self._shared:
            same = self._latest is not None and self._latest[1] is x
            self._shared[name] = self._shared[self._latest[0]] if self._latest and same else name
        self._latest = (name, x)
        if self._shared[name] == name:
            rows = x.flatten(0, -2).float()
            self._sums.setdefault(name, _nothing(rows.shape[1])).add(rows)

    def of(self, tensor: str) -> InputSums:
        """For a matrix by its canonical name, or its part of it (``q``, ``experts.3.down`` ...).

        An expert that no token went to has sums of nothing.
        """
        part = _part(tensor)
        found = self._sums.get(self._shared.get(part, part))
        return found if found is not None else _nothing(self._columns[part])


def _part(name: str) -> str:
    stem = name.removesuffix(".weight")
    return stem.split(".", 2)[2] if stem.startswith("layers.") else stem


def _nothing(columns: int) -> InputSums:
    import torch

    return InputSums(torch.zeros(columns, columns), torch.zeros(columns), torch.zeros(columns))
