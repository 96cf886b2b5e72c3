"""Recipes: named passes with options, in order; a recipe is itself a pass.

Names are decodable: see :mod:`edgesdk.compress.names`. A file in TOML says the same, pass by pass:

    name = "mine"
    activations = 8
    [[pass]]
    use = "rtn"
    bits = 4
    group = 64
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..documents import read_toml
from ..errors import EdgeError, RecipeError
from ..lines import check_line
from ..model.features import lacking
from ..model.vocabulary import in_vocabulary_of
from ..registry import unknown
from ..schema import dump, load
from .activations import Observer
from .base import PASSES, KeepsGrid, Pass, PassReport, Setting, Shapes, WithinLimits
from .names import LEARNING, PREPARING, PRUNING, decode
from .pruning.sparsegpt import SparseGpt
from .pruning.zeros import Zeros
from .recovery import Recovery
from .rotation import Rotation
from .rtn import RoundToNearest
from .stored import AsStored

if TYPE_CHECKING:
    from ..model import DecoderSpec, Model

DEFAULT = "w4g32"
#: What ``fast``, ``balanced`` and ``best`` stand for where no target is named.
PRESETS = {"fast": "w4g32", "balanced": "w4g32-gptq", "best": "w4g32-gptq-qat@5.9bpw"}
#: Recipes that ``edgesdk recipes`` lists; every decodable name works.
BUILTIN = {
    "w4g32": "4-bit weights in groups of 32, 8-bit embedding: the default",
    "w4g32-gptq": "the same, rounded by GPTQ on the model's own text: better quality, minutes instead of seconds",
    "w4g32-e4": "4-bit weights and embedding: smallest",
    "w4g64": "4-bit weights in groups of 64, 8-bit embedding: faster, a little less exact",
    "w8": "8-bit weights with one scale a row: nearly lossless",
    "w8-a16-kv8": "the same with int16 activations and an int8 cache: for microcontrollers",
    "w8t-a16": "8-bit weights with one scale a matrix, int16 activations: for microcontrollers with plain kernels",
    "none": "weights as they are",
}


@dataclass(frozen=True)
class Recipe:
    """Passes in order.

    Attributes:
        name: what the user called it.
        passes: each a frozen dataclass of options.
        activations: bits of the activations of packed weights (8: int8; 16: int16; 32: float), or None to let the
            target choose.
        kv_bits: bits of the key-value cache (8), or None for the program's float type.
        size: choose bits for every matrix so that the result has this size (``90MB``, ``4.5bpw``), or None.
        observer: which range static scales of activations hold, where the runtime has such.
    """

    name: str
    passes: tuple[Pass, ...] = ()
    activations: int | None = None
    kv_bits: int | None = None
    size: str | None = None
    observer: Observer = "minmax"

    def __post_init__(self) -> None:
        check_line(self.name, "the recipe's name", RecipeError)
        rounds = [index for index, step in enumerate(self.passes) if _rounds(step)]
        zeros = [index for index, step in enumerate(self.passes) if isinstance(step, PRUNING)]
        for index, step in enumerate(self.passes):
            if isinstance(step, (*PREPARING, Zeros)) and rounds and index > rounds[0]:
                raise RecipeError(f"recipe {self.name}: {_use(step)} prepares rounding, so it must come before it")
            if isinstance(step, Shapes) and rounds and index > rounds[0]:
                raise RecipeError(f"recipe {self.name}: {_use(step)} needs weights in float: put it before rounding")
            if isinstance(step, (Rotation, Shapes)) and not isinstance(step, Recovery) and zeros and index > zeros[0]:
                raise RecipeError(f"recipe {self.name}: {_use(step)} would undo zeros: put it before they are made")
            if isinstance(step, SparseGpt) and zeros[0] < index:
                raise RecipeError(f"recipe {self.name}: sparsegpt makes its own zeros: leave out the pass before it")
            if isinstance(step, Recovery) and any(isinstance(earlier, Rotation) for earlier in self.passes[:index]):
                raise RecipeError(f"recipe {self.name}: rotation comes after recovery, which compares states")
            if isinstance(step, LEARNING) and (not rounds or index < rounds[-1]):
                raise RecipeError(f"recipe {self.name}: {_use(step)} learns what was rounded, so it must come after it")

    def __call__(
        self, model: Model, setting: Setting, part: slice = slice(None)
    ) -> tuple[Model, tuple[PassReport, ...]]:
        """Apply the passes (or those of an open slice) in order; see :class:`~edgesdk.compress.base.Pass`.

        Only the last part gives weights as the target's kernels hold them.
        """
        reports = []
        setting = replace(
            setting,
            original=in_vocabulary_of(setting.original or model, model),
            grid=self.grid,
            sparse=any(isinstance(step, PRUNING) for step in self.passes),
        )
        for index, step in list(enumerate(self.passes))[part]:
            folder = setting.scratch / f"pass{index}"
            folder.mkdir(exist_ok=True)
            if setting.unrounded is None and isinstance(step, RoundToNearest):
                setting = replace(setting, unrounded=model)
            result = step(model, replace(setting, scratch=folder))
            model = result.model
            setting = replace(setting, original=in_vocabulary_of(setting.original or model, model))
            reports.append(result.report)
        if part.stop is None:
            model = model.with_weights(WithinLimits(model.weights, setting.limits))
        return model, tuple(reports)

    @property
    def shaping(self) -> int:
        """How many passes come first after which the model can be planned: the last that gives it a shape is there."""
        return max((index + 1 for index, step in enumerate(self.passes) if isinstance(step, Shapes)), default=0)

    @property
    def reshapes(self) -> bool:
        """Whether the model will have a shape that is not known before its passes run."""
        return any(isinstance(step, Shapes) and not isinstance(step, Recovery) for step in self.passes)

    def grid(self, name: str) -> tuple[int, int] | None:
        """Bits and group that the passes will give a canonical tensor (0: a row, WHOLE: all of it), or None: float."""
        found = None
        for step in self.passes:
            found = step.grid(name) or found
        return found

    def spec(self, spec: DecoderSpec) -> DecoderSpec:
        """The spec of the model after all passes; those that only calibration can plan are taken to leave it."""
        for step in self.passes:
            missing = lacking(spec, step.takes) if isinstance(step, KeepsGrid) else None
            if missing is not None:
                raise RecipeError(
                    f"recipe {self.name}: {_use(step)} does not know what to do with {missing}, which family "
                    f"{spec.family} has",
                    hint="leave that pass out: rounding, GPTQ and zeros take every family, depth most",
                )
            spec = step.spec(spec)
        return spec

    def describe(self) -> list[dict[str, Any]]:
        """Every pass with all its options, as plain data."""
        return [{"use": _use(step), **dump(step)} for step in self.passes]


def _rounds(step: Pass) -> bool:
    return isinstance(step, RoundToNearest) and not (isinstance(step, SparseGpt) and step.bits == 16)


def _use(step: Pass) -> str:
    names = {PASSES.get(name): name for name in PASSES.names()}
    return names.get(type(step), type(step).__name__)


@dataclass(frozen=True)
class _File:
    name: str
    activations: int | None = None
    kv_bits: int | None = None
    size: str | None = None
    observer: Observer = "minmax"
    passes: tuple[dict[str, Any], ...] = field(default_factory=tuple)


def open_recipe(name: str, presets: Mapping[str, str] | None = None) -> Recipe:
    """A recipe by decodable name, from a TOML file, or by a target's own name (``fast``, ``balanced``, ``best``).

    Args:
        name: of the recipe.
        presets: the target's own names with the decodable ones that they stand for; default: those for any target.

    Raises:
        RecipeError: the name cannot be decoded, or the file has a wrong key or value.
    """
    name = (presets or PRESETS).get(name, name)
    if name.endswith(".toml"):
        return _from_file(Path(name))
    decoded = decode(name)
    if decoded is None:
        raise RecipeError(
            unknown("recipe", name, BUILTIN), hint="names decode as w4g32-e8-a8 (edgesdk recipes), or give a .toml file"
        )
    return Recipe(name, **decoded)


def choose_recipe(model: Model, recipe: Recipe | None) -> Recipe:
    """The user's recipe; without one, a compressed checkpoint's own, or the default.

    ``none`` (``none-a32``, ``none-kv8``) also keeps a compressed checkpoint's weights. Any other recipe rounds what is
    not on its grid already.
    """
    done = model.compression
    if done is None:
        return recipe or open_recipe(DEFAULT)
    chosen = recipe or Recipe(done.name)
    if chosen.passes:
        return chosen
    return replace(
        chosen,
        passes=(AsStored(dict(done.grids)),),
        activations=chosen.activations or done.activations,
        kv_bits=chosen.kv_bits or done.kv_bits,
        observer=done.observer,
    )


def _from_file(path: Path) -> Recipe:
    if not path.exists():
        raise RecipeError(f"{path}: no such recipe file")
    data = read_toml(path, RecipeError)
    tables = data.pop("pass", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise RecipeError(f"{path}: 'pass' must be tables", hint='[[pass]]\nuse = "rtn"')
    file = load(_File, {"name": path.stem, **data}, str(path), RecipeError)
    if file.activations not in (None, 8, 16, 32):
        raise RecipeError(f"{path}: 'activations' must be 8, 16 or 32, found {file.activations}")
    if file.kv_bits not in (None, 8):
        raise RecipeError(f"{path}: 'kv_bits' must be 8, found {file.kv_bits}")
    passes = tuple(_pass(path, number, entry) for number, entry in enumerate(tables, 1))
    return Recipe(file.name, passes, file.activations, file.kv_bits, file.size, file.observer)


def _pass(path: Path, number: int, entry: dict[str, Any]) -> Pass:
    options = dict(entry)
    use = options.pop("use", None)
    if not isinstance(use, str):
        raise RecipeError(
            f"{path}: pass {number} needs 'use', the name of a pass; there are: {', '.join(PASSES.names())}"
        )
    try:
        kind = PASSES.get(use)
    except EdgeError as failure:
        raise RecipeError(f"{path}: {failure.message}", hint=failure.hint) from None
    return load(kind, options, f"{path}: pass {number} ({use})", RecipeError)
