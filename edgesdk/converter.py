"""What a converter is: it lowers a model to the program of one runtime, and opens sessions over that program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from .errors import TargetError
from .kinds import ENCODER, described
from .registry import Registry

if TYPE_CHECKING:
    from .compress.activations import Observer
    from .compress.base import Limits
    from .compress.recipe import Recipe
    from .model import DecoderSpec, Model
    from .model.encoder_spec import EncoderSpec
    from .model.encoders.model import EncoderModel
    from .progress import Progress
    from .session import EncoderSession, Session, TextRunner
    from .targets import FloatType, RuntimeRange, Target


@dataclass(frozen=True)
class ProgramOptions:
    """What the user may choose about a program.

    Attributes:
        context: capacity of the key-value cache, in tokens.
        float_type: of activations, caches and unpacked weights.
        activations: bits of the activations that meet packed weights (8: int8, rounded anew for each token, or on
            measured scales where the runtime has only static ones; 16: int16 on measured scales; 32: float).
        kv_bits: bits of the key-value cache (8), or None for the float type.
        delegate: the hardware path, one of the target's, or None for its default.
        observer: which range static scales of activations hold: all that was measured, or what a percentile or the
            squared error keeps.
        cores: microcontroller cores that the program is for; () elsewhere.
    """

    context: int
    float_type: FloatType
    activations: int
    kv_bits: int | None = None
    delegate: str | None = None
    cores: tuple[str, ...] = ()
    observer: Observer = "minmax"


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a program needs on the device: an estimate made before any work.

    Attributes:
        program: size of the program's files.
        weights: weights as the runtime lays them out.
        kv_cache: the caches at full context.
        activations: intermediate values of the largest step.
        runtime: the runtime itself.
    """

    program: int
    weights: int
    kv_cache: int
    activations: int
    runtime: int

    @property
    def peak(self) -> int:
        return self.weights + self.kv_cache + self.activations + self.runtime

    def beside(self, other: MemoryPlan | None) -> MemoryPlan:
        """What this program and another need together, which take turns in one runtime."""
        if other is None:
            return self
        return MemoryPlan(
            self.program + other.program,
            self.weights + other.weights,
            self.kv_cache + other.kv_cache,
            max(self.activations, other.activations),
            max(self.runtime, other.runtime),
        )


@dataclass(frozen=True)
class Program:
    """What a converter wrote.

    Attributes:
        main: the file that a session opens, relative to the bundle.
        facts: what the runtime needs to know, and what the converter wants in the manifest.
        tools: versions of the libraries that made it.
        not_run: why it cannot run on this computer, or None when it can.
        runtime: what runs it, where that is not the target's runtime.
        made_from_it: folders that hold the program once more in another form, such as a firmware project.
    """

    main: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    not_run: str | None = None
    runtime: RuntimeRange | None = None
    made_from_it: tuple[str, ...] = ()


@dataclass(frozen=True)
class OnDevice:
    """How programs run on a board that has Python and the runtime, and nothing of edgesdk.

    Attributes:
        opener: ``module:function`` that opens a session from the program's path, its context and a number of threads.
        modules: what goes to the board; they import the runtime, numpy, each other and nothing else.
        runtimes: distributions that bring the runtime; one of them is enough.
        operators: ``module:function`` that times the operators of a prompt and of tokens after it, from path, context,
            threads, the prompt and how many tokens: mappings of ``operator phase calls seconds``; None: nothing can.
        providers: what the opener's keyword ``providers`` knows, where the runtime runs programs in more than one way.
        adapters: the converter writes :attr:`~edgesdk.model.Model.switchable` adapters into files that it names in the
            fact ``adapters``, and the opener's keyword ``adapter`` takes one of them.
        drafts: a step over several tokens costs less than as many steps, so that drafted tokens are worth checking.
    """

    opener: str
    modules: tuple[str, ...]
    runtimes: tuple[str, ...]
    operators: str | None = None
    providers: tuple[str, ...] = ()
    adapters: bool = False
    drafts: bool = False


class Converter(Protocol):
    """Lowers models for one runtime.

    Attributes:
        name: of the converter.
        on_device: how a board with Python runs its programs; None where none can.
    """

    name: str
    on_device: OnDevice | None

    def limits(self, delegate: str | None = None) -> Limits:
        """What its kernels cannot hold of the portable grid, on a hardware path."""

    def check(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        """Refuse, before any work, what the runtime cannot run or hold exactly.

        Raises:
            EdgeError: what cannot be held, and what can.
        """

    def plan(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions) -> MemoryPlan:
        """Estimate sizes before any work."""

    def remarks(self, spec: DecoderSpec, options: ProgramOptions) -> Sequence[str]:
        """What a user should know about the program before it is built: where operators run, what is emulated."""

    def convert(self, model: Model, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        """Write the program into ``folder``, carrying the model's integers unchanged."""

    def open(self, main: Path, context: int, threads: int | None = None) -> Session:
        """Open a session over a written program.

        Raises:
            EdgeError: the runtime refuses the program.
        """

    def text_runner(self, main: Path, tokenizer: Path) -> TextRunner:
        """The runtime's own text runner over a written program and ``tokenizer.json``.

        Raises:
            EdgeError: the runtime has none, or it refuses one of the files.
        """


def open_program(converter: Converter, main: Path, context: int, threads: int | None = None, **choices: Any) -> Session:
    """Open a session over a written program; ``choices`` are keywords of its opener (:class:`OnDevice`).

    Raises:
        EdgeError: the runtime refuses the program.
    """
    if not choices or converter.on_device is None:
        return converter.open(main, context, threads)
    module, _, opener = converter.on_device.opener.partition(":")
    session: Session = getattr(import_module(module), opener)(main, context, threads, **choices)
    return session


S = TypeVar("S", contravariant=True)
M = TypeVar("M", contravariant=True)
R = TypeVar("R", covariant=True)


class KindConverter(Protocol[S, M, R]):
    """Lowers models of another kind than decoders for one runtime; methods as those of :class:`Converter`.

    ``S`` is the kind's spec, ``M`` its model, ``R`` its session.
    """

    def check(self, spec: S, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        """Refuse, before any work, what the runtime cannot run or hold exactly.

        Raises:
            EdgeError: what cannot be held, and what can.
        """

    def plan(self, spec: S, recipe: Recipe, options: ProgramOptions) -> MemoryPlan:
        """Estimate sizes before any work."""

    def convert(self, model: M, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        """Write the program into ``folder``, carrying the model's integers unchanged."""

    def open(self, main: Path, context: int, threads: int | None = None) -> R:
        """Open a session over a written program.

        Raises:
            EdgeError: the runtime refuses the program.
        """


EncoderConverter: TypeAlias = "KindConverter[EncoderSpec, EncoderModel, EncoderSession]"


@runtime_checkable
class BuildsOthers(Protocol):
    """A converter that builds more than decoders.

    Attributes:
        others: what builds each other kind, by the names of :mod:`edgesdk.kinds`.
    """

    others: Mapping[str, KindConverter[Any, Any, Any]]


def kind_converter(name: str, kind: str, what: str) -> KindConverter[Any, Any, Any]:
    """The part of a converter that builds a kind of model; ``what`` is what needs it, for the message.

    Raises:
        TargetError: this converter does not build it; which ones do.
    """
    found = CONVERTERS.get(name)
    if isinstance(found, BuildsOthers) and kind in found.others:
        return found.others[kind]
    able = [each for each in CONVERTERS.names() if kind in getattr(CONVERTERS.get(each), "others", ())]
    raise TargetError(
        f"{what} is {described(kind)}, which the {name} converter does not build",
        hint=f"targets of {' and '.join(able)} run it (edgesdk targets)" if able else None,
    )


def encoder_converter(name: str, what: str) -> EncoderConverter:
    """As :func:`kind_converter`, for encoders."""
    return kind_converter(name, ENCODER, what)


#: Converters are found by entry point alone: the SDK never imports one by name.
CONVERTERS: Registry[Converter] = Registry("converter", "edgesdk.converters")
