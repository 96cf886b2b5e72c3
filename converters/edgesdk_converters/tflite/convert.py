"""The LiteRT converter: ``model.tflite`` for boards and Android, one token a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.compress.base import Limits
from edgesdk.converter import MemoryPlan, OnDevice, Program, ProgramOptions
from edgesdk.errors import EdgeError, MissingExtraError, RecipeError, TargetError
from edgesdk.estimate import kv_cache_bytes, refuse_features, refuse_schemes, tensor_bits
from edgesdk.model.features import PLAIN

if TYPE_CHECKING:
    from edgesdk.compress.recipe import Recipe
    from edgesdk.model import DecoderSpec, Model
    from edgesdk.progress import Progress
    from edgesdk.session import Session, TextRunner
    from edgesdk.targets import Target

MODEL_FILE = "model.tflite"
LARGEST = (1 << 31) - (1 << 20)  # a flatbuffer counts its bytes in 31 bits
BLOCKS = (128, 64, 32)  # columns of a block that LiteRT's 4-bit kernels take
BUILDS = PLAIN | {"layer_norm", "learned_positions", "no_rope", "rope_magnitude"}
_RUNTIME_BYTES = 60_000_000  # resident size of a process with LiteRT and numpy loaded


class TfliteConverter:
    """Programs for LiteRT: float32, or 8-bit or 4-bit weights with activations that its kernels round themselves."""

    name = "tflite"
    on_device: OnDevice | None = OnDevice(
        "edgesdk_converters.tflite.session:open_program",
        (
            *("edgesdk.bounds.flatbuffer", "edgesdk.bounds.flatbuffer_schema"),
            *(f"edgesdk_converters.tflite.{name}" for name in ("format", "schema", "verifying", "session")),
        ),
        ("ai-edge-litert", "tflite-runtime"),
    )

    def limits(self, delegate: str | None = None) -> Limits:
        return Limits(signed_scales=False, grouped_bytes=False, zero_points=False, fine_scales=False)

    def check(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        if options.kv_bits is not None:
            raise RecipeError("the LiteRT converter keeps the key-value cache in float: leave out -kv8")
        if options.float_type != "float32":
            raise TargetError(f"the LiteRT converter computes in float32, not {options.float_type}")
        refuse_features(spec, BUILDS, self.name)
        refuse_schemes(spec, recipe, target)
        for name, shape in spec.tensors().items():
            bits, group = recipe.grid(name) or (16, 0)
            if bits <= 4 and options.activations == 32:
                raise RecipeError(
                    f"LiteRT has no 4-bit weights with float activations, but recipe {recipe.name} makes {name} such",
                    hint="leave out -a32, or use w8",
                )
            if bits <= 4 and not group and shape[1] % BLOCKS[-1]:
                raise RecipeError(
                    f"LiteRT holds 4-bit rows in blocks of 32, but {name} has {shape[1]} inputs", hint="use w4g32 or w8"
                )
        refuse_shapes(spec)
        refuse_large(self.plan(spec, recipe, options))

    def plan(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions) -> MemoryPlan:
        program = program_bytes(spec, recipe, options)
        caches = kv_cache_bytes(spec, options)
        largest = max(layer.attention.kv_size for layer in spec.layers) * options.context * 4
        scores = max(layer.attention.heads for layer in spec.layers) * options.context * 4
        # XNNPACK packs a second copy of the weights; keys and values meet the new row in copies of a layer's caches
        return MemoryPlan(program, 2 * program, caches, 3 * largest + 4 * scores + 4 * spec.vocab, _RUNTIME_BYTES)

    def remarks(self, spec: DecoderSpec, options: ProgramOptions) -> Sequence[str]:
        return ("a prompt is read token by token: the time to the first token grows with its length",)

    def convert(self, model: Model, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        try:
            from .decoder import DecoderGraph
        except ModuleNotFoundError as failure:
            raise MissingExtraError(failure.name or "ai_edge_litert", "tflite") from None
        from .numerics import Numerics

        decoder = DecoderGraph(model, options.context, Numerics("dynamic" if options.activations == 8 else "float"))
        with progress.stage("Writing the LiteRT program", len(model.spec.layers)) as stage:
            for _ in decoder.emit():
                stage.advance()
            decoder.graph.write(folder / MODEL_FILE)
        facts = {"operators": decoder.graph.operators}
        return Program(MODEL_FILE, facts, {"ai-edge-litert": metadata.version("ai-edge-litert")})

    def open(self, main: Path, context: int, threads: int | None = None) -> Session:
        from .session import open_program

        return open_program(main, context, threads)

    def text_runner(self, main: Path, tokenizer: Path) -> TextRunner:
        raise EdgeError("LiteRT has no text runner of its own", hint="run without --runner")

    def verify_programs(self, folder: Path, files: Mapping[str, int]) -> None:
        from .verifying import check_program

        for name in sorted(files):
            if name.endswith(".tflite"):
                check_program(folder / name)


def refuse_shapes(spec: DecoderSpec) -> None:
    """Stop before any work at what the graph cannot say.

    Raises:
        TargetError: what it is.
    """
    for layer in spec.layers:
        attention = layer.attention
        if attention.rope is not None and attention.head_dim % 2:
            raise TargetError(f"rotary positions need heads of even size, not {attention.head_dim}")


def refuse_large(plan: MemoryPlan) -> None:
    """Stop before any work when the program is too large for one flatbuffer.

    Raises:
        TargetError: its size.
    """
    if plan.program > LARGEST:
        raise TargetError(
            f"the program would take about {plan.program / 1e6:.0f} MB, and a .tflite file holds 2147 MB",
            hint="use a smaller recipe (edgesdk recipes), or another target",
        )


def program_bytes(spec: DecoderSpec, recipe: Recipe, options: ProgramOptions) -> int:
    """About how large the file is: weights, scales with their zero points, tables, and the graph."""
    total = 20_000 + 12_000 * len(spec.layers)
    for elements, bits, group in tensor_bits(spec, recipe, options, Limits()).values():
        total += elements * bits // 8 + (elements // group * (12 if bits == 8 else 2) if group else 0)
    return total + sum(options.context * size * 8 for _, size in spec.ropes)


CONVERTER = TfliteConverter()
