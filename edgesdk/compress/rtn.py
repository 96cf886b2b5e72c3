"""Round to nearest, with a scale search in every group.

What it does: every linear weight is rounded to a signed grid of ``bits`` bits with one scale a group of ``group``
inputs (0: one scale a row; -1: one for the whole matrix, as some int16 kernels of microcontrollers want it). The scale
is searched: the entry of largest magnitude lands exactly on the low end of the grid (-8 of 4 bits; the scale takes the
sign that this needs) or on the high end (7), whichever has the smaller squared error. A wider search finds smaller
squared errors by clipping the largest entries, and measurably worse perplexity.
Scales are portable (exact in bfloat16 and float16), so every converter can carry them.
When to use it: always available, needs no data, takes seconds. Four bits cost a small model noticeable quality.
What it costs: one pass over the weights; memory of one tensor.
Example: ``edgesdk export MODEL --target linux-x86_64 --recipe w4g32``.
Source: Gholami et al., A Survey of Quantization Methods, arXiv 2103.13630, section 3; the signed scale is ggml's Q4_0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from ..errors import RecipeError
from ..model.spec import is_linear
from ..model.tensors import FLOAT16_TINY, QuantizedTensor, portable_scales
from ..model.weights import dense
from ..progress import track
from .base import WHOLE, PassReport, PassResult, Setting, one_scale
from .spool import Entry, Spool

if TYPE_CHECKING:
    import torch

    from ..model import DecoderSpec, Model
    from ..model.weights import Stored
    from .base import Limits

BITS = (2, 3, 4, 8)
TABLE_BITS = (4, 8)
GROUPS = (WHOLE, 0, 32, 64, 128)
#: Finds scales [n, 1] of groups [n, group], and their squared errors, for a width; with signed scales or positive ones.
Search: TypeAlias = "Callable[[torch.Tensor, int, bool], tuple[torch.Tensor, torch.Tensor]]"
_CHUNK = 1 << 17  # elements searched at a time: a few arrays of them stay in a core's cache


@dataclass(frozen=True)
class RoundToNearest:
    """Options of the pass.

    Attributes:
        bits: of every linear weight: 2, 3, 4 or 8, or 16 to leave them as they are.
        group: inputs that share a scale: 32, 64 or 128; 0 for one scale a row; -1 for one scale a matrix, embedding and
            head included (8 bits only).
        embedding_bits: of the embedding: 4, 8 or 16.
        head_bits: of the head: 4, 8 or 16. With 4 or 8, one that is tied to an embedding of other bits becomes a matrix
            of its own.
        exceptions: bits of the linear weights that a pattern matches (``layers.*.v``, ``layers.29.down``; the last one
            that matches counts): 8 means one scale a row, fewer mean ``group``.
    """

    label: ClassVar[str] = "rtn"

    bits: int = 4
    group: int = 32
    embedding_bits: int = 8
    head_bits: int = 8
    exceptions: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, allowed in (("bits", BITS), ("embedding_bits", TABLE_BITS), ("head_bits", TABLE_BITS)):
            if getattr(self, key) not in (*allowed, 16):
                raise RecipeError(f"rtn: '{key}' must be {_either(*allowed, 16)}, found {getattr(self, key)!r}")
        for pattern, bits in self.exceptions.items():
            if bits not in (*BITS, 16):
                raise RecipeError(f"rtn: bits of '{pattern}' must be {_either(*BITS, 16)}, found {bits!r}")
        if self.group not in GROUPS:
            raise RecipeError(f"rtn: 'group' must be -1, 0, 32, 64 or 128, found {self.group!r}")
        if self.group == WHOLE and min(self.bits, self.embedding_bits, self.head_bits, *self.exceptions.values()) < 8:
            raise RecipeError("rtn: one scale for a whole matrix (group -1) needs 8 bits, and fewer were asked for")

    def grid(self, name: str) -> tuple[int, int] | None:
        """Bits and group of a canonical tensor, or None when it stays as it is."""
        if name == "embed.weight":
            bits = self.embedding_bits
        elif name == "head.weight":
            bits = self.head_bits
        elif is_linear(name):
            return self._linear_grid(name.removesuffix(".weight"))
        else:
            return None
        if bits == 16:
            return None
        return (4, self.group or 32) if bits == 4 else (8, WHOLE if self.group == WHOLE else 0)

    def excepted(self, name: str) -> bool:
        """Whether a pattern of ``exceptions`` matches a canonical tensor."""
        return any(fnmatchcase(name.removesuffix(".weight"), pattern) for pattern in self.exceptions)

    def _linear_grid(self, name: str) -> tuple[int, int] | None:
        matching = [bits for pattern, bits in self.exceptions.items() if fnmatchcase(name, pattern)]
        bits = matching[-1] if matching else self.bits
        if bits == 16:
            return None
        return bits, 0 if matching and bits == 8 and self.group > 0 else self.group

    def spec(self, spec: DecoderSpec) -> DecoderSpec:
        self.refuse_exceptions([name.removesuffix(".weight") for name in spec.tensors() if is_linear(name)])
        return replace(spec, tied=spec.tied and self.head_bits in (self.embedding_bits, 16))

    def refuse_exceptions(self, names: Sequence[str]) -> None:
        """Stop where an exception matches none of a model's matrices, named without ``.weight``.

        Raises:
            RecipeError: which exception.
        """
        for pattern in self.exceptions:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise RecipeError(
                    f"rtn: the exception '{pattern}' matches no matrix of the model",
                    hint=f"a pattern is like layers.*.v or {names[-1]}",
                )

    def __call__(self, model: Model, setting: Setting) -> PassResult:
        spec = self.spec(model.spec)
        tally = Tally(Spool(setting.scratch / f"{self.label}.bin", model.weights))
        names = [name for name in spec.tensors() if self.grid(name)]
        self.round(model, names, setting, tally)
        return PassResult(replace(model, spec=spec, weights=tally.spool), tally.report(self.label))

    def round(self, model: Model, names: Sequence[str], setting: Setting, tally: Tally) -> None:
        """Round the named tensors of the model after the pass, and write them to the spool."""
        spec, limits = self.spec(model.spec), setting.limits
        for name in track(setting.progress, "Rounding weights", names):
            stored = model.weights.get(model.spec.head_name if name == spec.head_name else name)
            bits, group = self.grid(name) or (0, 0)
            if tally.resumed(name, bits):
                self.fitted(name, stored.shape[1], limits, tally)  # for its notes
                continue
            if isinstance(stored, QuantizedTensor) and stored.bits == bits and _serves(stored, group, limits):
                tally.write(name, stored)  # the checkpoint's own integers: nothing is rounded twice
                continue
            columns = stored.shape[1]
            if columns % max(group, 1) and model.spec.tied and not spec.tied and name == spec.head_name:
                raise RecipeError(
                    f"the head cannot be a {bits}-bit matrix of its own: {columns} inputs are no multiple of {group}",
                    hint="leave out -h, and the head stays tied to the embedding",
                )
            self.round_one(name, stored, limits, tally)

    def round_one(self, name: str, stored: Stored, limits: Limits, tally: Tally) -> None:
        """Round one tensor that has a grid, and write it to the spool; it stays in float where no group divides it."""
        chosen = self.fitted(name, stored.shape[1], limits, tally)
        if chosen is None:
            return
        (bits, fitted), matrix = chosen, dense(stored)
        whole = self.group == WHOLE
        shared = search_scales(matrix.reshape(1, -1), bits, limits.signed_scales)[0] if whole else None
        rounded, error = round_to_nearest(
            matrix, bits, fitted, signed_scales=limits.signed_scales, scale=shared, search=self.search
        )
        tally.write(name, rounded, error)

    def search(self, groups: torch.Tensor, bits: int, signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The scale of every group, and its squared error: see :data:`Search`."""
        return search_scales(groups, bits, signed)

    def fitted(self, name: str, columns: int, limits: Limits, tally: Tally) -> tuple[int, int] | None:
        """Bits and group for a matrix with so many columns, or None: no group divides them, and it stays in float.

        Rows of 4 bits come in pairs, so they need an even number of columns.
        """
        bits, group = self.grid(name) or (0, 0)
        divisor = group if group > 0 else 2 if bits < 8 else 1
        if columns % divisor == 0:
            return bits, group if group > 0 else columns
        if limits.float_matrices:
            tally.keep(name, columns, divisor)
            return None
        tally.note(f"{name} has 8 bits a row: its {columns} inputs are no multiple of {divisor}")
        return 8, columns


class Tally:
    """What a pass wrote to its spool, for its report; tensors of an earlier, interrupted run count too."""

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self._schemes: Counter[str] = Counter()
        self._errors: list[float] = []
        self._notes: list[str] = []
        self._kept: set[str] = set()

    def resumed(self, name: str, bits: int) -> bool:
        """Whether an earlier run wrote this tensor with so many bits (or 8, where nothing else fits); it is counted."""
        entry = self.spool.entry(name)
        if entry is None or entry.bits not in (bits, 8, 0):
            return False
        self._count(entry)
        return True

    def write(self, name: str, tensor: Stored, error: float | None = None) -> None:
        """Write a tensor; ``error`` is |error|^2 / |weight|^2 when it was rounded."""
        self._count(self.spool.write(name, tensor, error))

    def keep(self, name: str, columns: int, group: int) -> None:
        """A tensor stays in float, since no group divides its rows."""
        self._schemes["float"] += 1
        self._kept.add(name)
        self._notes.append(f"{name} keeps its float values: {columns} inputs are no multiple of {group}")

    def note(self, text: str) -> None:
        self._notes.append(text)

    def report(self, name: str) -> PassReport:
        mean = sum(self._errors) / len(self._errors) if self._errors else None
        return PassReport(name, bool(self._schemes), dict(self._schemes), mean, tuple(self._notes))

    def _count(self, entry: Entry) -> None:
        if entry.name in self._kept:
            return
        self._schemes[entry.scheme] += 1
        if entry.error is not None:
            self._errors.append(entry.error)


def round_to_nearest(
    weight: torch.Tensor,
    bits: int,
    group: int,
    *,
    signed_scales: bool = True,
    scale: torch.Tensor | None = None,
    search: Search | None = None,
) -> tuple[QuantizedTensor, float]:
    """Round a matrix [out, in] to the portable grid, with scales of either sign or only positive ones.

    ``scale`` [1, 1] is used for every group instead of a search; ``search`` replaces :func:`search_scales`.

    Returns: the integers with their scales, and the relative squared error ``|w - q|^2 / |w|^2``.
    """
    import torch

    rows, columns = weight.shape
    values = torch.empty((rows, columns), dtype=torch.int8)
    scales = torch.empty((rows, columns // group))
    error = 0.0
    for start, stop in _row_chunks(rows, columns):
        groups = weight[start:stop].reshape(-1, group)
        if scale is None:
            best, lost = (search or search_scales)(groups, bits, signed_scales)
        else:
            best, lost = scale.expand(len(groups), 1), group_error(groups, scale, bits)
        scales[start:stop] = best.view(stop - start, -1)
        values[start:stop] = round_groups(groups, best, bits).view(stop - start, columns).to(torch.int8)
        error += float(lost.sum())
    total = float(weight.square().sum())
    return QuantizedTensor(values, scales, bits, group), error / total if total else 0.0


def search_scales(groups: torch.Tensor, bits: int, signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale of each group [n, group] with the smallest squared error, and that error: both [n, 1]."""
    import torch

    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    peak = groups.gather(1, groups.abs().argmax(1, keepdim=True))
    anchored = []
    for end in (low, high):
        scale = portable_scales(peak / end if signed else peak.abs() / abs(end))
        scale = torch.where(scale == 0, FLOAT16_TINY, scale)  # a group of zeros
        anchored.append((scale, group_error(groups, scale, bits)))
    (low_scale, low_error), (high_scale, high_error) = anchored
    better = low_error <= high_error
    return torch.where(better, low_scale, high_scale), torch.where(better, low_error, high_error)


def group_error(groups: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """Squared error of each group: [n, 1]."""
    return (round_groups(groups, scale, bits).mul_(scale) - groups).square_().sum(1, keepdim=True)


def _serves(stored: QuantizedTensor, group: int, limits: Limits) -> bool:
    """Whether integers of a checkpoint can stay as they are."""
    return limits.hold(stored) and (group != WHOLE or one_scale(stored))


def round_groups(groups: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """Integers of groups [n, group] with scales [n, 1], as floats."""
    return (groups / scale).round_().clamp_(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def _either(*choices: int) -> str:
    return f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"


def _row_chunks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        yield start, min(rows, start + step)
