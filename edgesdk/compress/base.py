"""What a pass is: a model goes in, a model and a report come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Protocol

from ..model.features import ALL
from ..model.tensors import QuantizedTensor
from ..registry import Registry
from .calibration import Calibration

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from ..model import DecoderSpec, Model
    from ..model.weights import Stored, Weights
    from ..progress import Progress


#: As a group: one scale for a whole matrix.
WHOLE = -1


def one_scale(tensor: QuantizedTensor) -> bool:
    """Whether a matrix has the same scale everywhere."""
    return bool((tensor.scales == tensor.scales[0, 0]).all())


@dataclass(frozen=True)
class Limits:
    """What a runtime's kernels cannot hold of the portable grid; a converter says so, and passes keep to it.

    Attributes:
        signed_scales: scales may be negative.
        grouped_bytes: 8-bit rows may have several scales.
        zero_points: a grid may be asymmetric.
        grouped_nibbles: 4-bit rows may have several scales.
        float_matrices: a matrix may stay in float; without them, one that no group divides gets 8 bits a row.
        fine_scales: scales of groups may need more than bfloat16.
        widths: bits that integers are stored in, in rising order; those of fewer bits are stored in the next of them.
    """

    signed_scales: bool = True
    grouped_bytes: bool = True
    zero_points: bool = True
    grouped_nibbles: bool = True
    float_matrices: bool = True
    fine_scales: bool = True
    widths: tuple[int, ...] = (4, 8)

    def widen(self, tensor: QuantizedTensor) -> QuantizedTensor:
        """The same integers, scales and zero points, in a width that is stored."""
        bits = stored_width(tensor.bits, self.widths)
        return tensor if bits == tensor.bits else replace(tensor, bits=bits)

    def hold(self, tensor: QuantizedTensor) -> bool:
        """Whether the kernels hold these integers and scales as they are."""
        return self.obstacle(tensor) is None

    def obstacle(self, tensor: QuantizedTensor) -> str | None:
        """What of these integers and scales the kernels cannot hold, in words, or None."""
        grouped = tensor.group != tensor.shape[1]
        if not self.signed_scales and not bool((tensor.scales > 0).all()):
            return "negative scales"
        if not self.zero_points and tensor.zero_points is not None:
            return "zero points (an asymmetric grid)"
        if grouped and not (self.grouped_bytes if tensor.bits == 8 else self.grouped_nibbles):
            return f"{tensor.bits}-bit rows with several scales"
        if grouped and not self.fine_scales and not _in_bfloat16(tensor):
            return "scales that need more bits than bfloat16 has"
        return None


#: What every target that holds integers of four bits in groups carries as it is.
PORTABLE = Limits(signed_scales=False, grouped_bytes=False, zero_points=False, fine_scales=False, widths=(2, 3, 4, 8))


def dividing(columns: int, group: int) -> int:
    """The group where it divides a row of so many columns, otherwise the whole row."""
    return group if group > 0 and columns % group == 0 else columns


def stored_width(bits: int, widths: tuple[int, ...]) -> int:
    """The smallest of ``widths`` (rising) that holds integers of ``bits`` bits."""
    return next(width for width in widths if width >= bits)


def _in_bfloat16(tensor: QuantizedTensor) -> bool:
    return bool((tensor.scales.bfloat16().float() == tensor.scales).all())


class WithinLimits:
    """Weights as the kernels hold them: integers in stored widths; those that they cannot hold become exact floats."""

    def __init__(self, base: Weights, limits: Limits) -> None:
        self._base, self._limits = base, limits

    def get(self, name: str) -> Stored:
        stored = self._base.get(name)
        if not isinstance(stored, QuantizedTensor):
            return stored
        return self._limits.widen(stored) if self._limits.hold(stored) else stored.dequantize()


def _no_grid(name: str) -> tuple[int, int] | None:
    return None


@dataclass(frozen=True)
class Setting:
    """What passes are given beside the model.

    Attributes:
        scratch: an existing folder for intermediate weights; it must live as long as the result is used. What an
            interrupted run of the same pass left there is used.
        progress: told of every tensor.
        limits: what the target's kernels cannot hold.
        calibration: text for passes that look at activations.
        original: the model before the first pass, or None where there was none.
        unrounded: the model as the first rounding pass got it, or None before that: the same function as the original,
            perhaps in other coordinates.
        grid: bits and group that the recipe will give a tensor in the end, for passes that prepare rounding.
        sparse: a pass of the recipe makes weights zero: passes that learn leave integers alone that are.
    """

    scratch: Path
    progress: Progress
    limits: Limits = Limits()
    calibration: Calibration = field(default_factory=Calibration)
    original: Model | None = None
    unrounded: Model | None = None
    grid: Callable[[str], tuple[int, int] | None] = _no_grid
    sparse: bool = False

    def rounded(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """A matrix as the recipe will round it, to nearest; float32, as it is where the recipe leaves it alone."""
        from .rtn import round_to_nearest

        bits, group = self.grid(name) or (16, 0)
        if bits == 16:
            return weight
        return round_to_nearest(
            weight, bits, dividing(weight.shape[1], group), signed_scales=self.limits.signed_scales
        )[0].dequantize()

    def tokens(self, model: Model) -> torch.Tensor:
        """Calibration tokens, int64 [sequences, length]; made once for all passes of a recipe.

        Raises:
            EdgeError: the calibration text cannot be used.
        """
        from .kept import kept_tensor

        original = self.original
        if original is None:  # a pass by itself
            return self.calibration.tokens(model, self.progress)
        path = self.scratch.parent / f"calibration-{original.spec.vocab}.pt"
        return kept_tensor(path, lambda: self.calibration.tokens(original, self.progress))


@dataclass(frozen=True)
class PassReport:
    """What a pass did.

    Attributes:
        name: the pass.
        changed: whether any weight changed.
        tensors: how many tensors now have each scheme (``w4g32``: 210 ...).
        relative_error: mean over quantized tensors of |error|^2 / |weight|^2, or None when nothing was rounded.
        notes: sentences that the user should read.
        zeros: share of the weights of the matrices that were pruned that is zero, or None when none was.
    """

    name: str
    changed: bool
    tensors: Mapping[str, int] = field(default_factory=dict)
    relative_error: float | None = None
    notes: tuple[str, ...] = ()
    zeros: float | None = None


@dataclass(frozen=True)
class PassResult:
    """The model after a pass, and the report."""

    model: Model
    report: PassReport


class Pass(Protocol):
    """One compression step; a frozen dataclass of its options, checked when built."""

    def grid(self, name: str) -> tuple[int, int] | None:
        """Bits and group (0: a row, WHOLE: all of it) that the pass will give a tensor, or None: left as it is."""

    def spec(self, spec: DecoderSpec) -> DecoderSpec:
        """The spec that the pass will give a model of this spec."""

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        """Apply the pass; ``model`` is not changed.

        Raises:
            EdgeError: the model cannot go through this pass.
        """


class KeepsGrid:
    """What passes share that give no tensor another grid, and leave the spec as it is.

    ``takes``: the features of a spec (:mod:`edgesdk.model.features`) that the pass knows how to deal with.
    """

    takes: ClassVar[frozenset[str]] = ALL

    def grid(self, name: str) -> tuple[int, int] | None:
        return None

    def spec(self, spec: DecoderSpec) -> DecoderSpec:
        return spec


class Shapes(KeepsGrid):
    """Passes whose result only calibration decides: the shape of the model, or weights that all that follows looks at.

    They come before rounding, and what is planned for a target is planned for the model that they leave.
    """


#: A pass is one module with one line here; other packages use the entry-point group ``edgesdk.passes``.
PASSES: Registry[type[Pass]] = Registry(
    "pass",
    "edgesdk.passes",
    {
        "awq": "edgesdk.compress.awq:Awq",
        "depth": "edgesdk.compress.pruning.depth:Depth",
        "gptq": "edgesdk.compress.gptq:Gptq",
        "hidden": "edgesdk.compress.pruning.hidden:Hidden",
        "hqq": "edgesdk.compress.hqq:Hqq",
        "keys": "edgesdk.compress.keys:KeySmoothing",
        "qat": "edgesdk.compress.distill:Distillation",
        "reconstruction": "edgesdk.compress.reconstruct:Reconstruction",
        "recovery": "edgesdk.compress.recovery:Recovery",
        "rotation": "edgesdk.compress.rotation:Rotation",
        "rtn": "edgesdk.compress.rtn:RoundToNearest",
        "smoothquant": "edgesdk.compress.smoothquant:SmoothQuant",
        "sparsegpt": "edgesdk.compress.pruning.sparsegpt:SparseGpt",
        "stored": "edgesdk.compress.stored:AsStored",
        "vocabulary": "edgesdk.compress.pruning.vocabulary:Vocabulary",
        "width": "edgesdk.compress.pruning.width:Width",
        "zeros": "edgesdk.compress.pruning.zeros:Zeros",
    },
)
