"""Encoders for ExecuTorch: one ``model.pte`` for XNNPACK."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.converter import MemoryPlan, Program, ProgramOptions
from edgesdk.errors import MissingExtraError, RecipeError, TargetError
from edgesdk.estimate import refuse_schemes, tensor_bits

from .wheel import folder as wheel_folder
from .wheel import version

if TYPE_CHECKING:
    from edgesdk.compress.recipe import Recipe
    from edgesdk.estimate import Shaped
    from edgesdk.model.encoder_spec import EncoderSpec
    from edgesdk.model.encoders.model import EncoderModel
    from edgesdk.progress import Progress
    from edgesdk.session import EncoderSession
    from edgesdk.targets import Target

MODEL_FILE = "model.pte"
_GROUPS = (0, 32, 64, 128)
GRAPH_BYTES = 500_000
RUNTIME_BYTES = 16_000_000  # a process with ExecuTorch's libraries loaded, measured under device_tests


class ExecuTorchEncoders:
    """Implements :class:`edgesdk.converter.KindConverter` for encoders."""

    def check(self, spec: EncoderSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        refuse_schemes(spec, recipe, target)
        refuse_form(spec, recipe, options)
        for _, head_dim in spec.ropes:
            if head_dim % 2:
                raise TargetError(f"rotary embedding needs an even head size, found {head_dim}")

    def plan(self, spec: EncoderSpec, recipe: Recipe, options: ProgramOptions) -> MemoryPlan:
        program = program_bytes(spec, recipe, options)
        widest = max(3 * layer.mlp.size + 4 * layer.attention.size + 4 * spec.hidden for layer in spec.layers)
        scores = 2 * max(layer.attention.heads for layer in spec.layers) * options.context
        biases = 5 * options.context if spec.windows or spec.relative else 0  # int64 distances, flags, floats
        activations = 4 * options.context * (widest + scores + biases)
        return MemoryPlan(program, program - GRAPH_BYTES, 0, activations, RUNTIME_BYTES)

    def convert(self, model: EncoderModel, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        try:
            import torch  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("torch", "executorch") from None
        wheel_folder()
        from .data import DataFile
        from .encoder import emit
        from .program import ProgramFile

        with DataFile(folder / f"{MODEL_FILE}.data") as data:
            file = ProgramFile(data)
            with progress.stage("Building the ExecuTorch program", 2 * len(model.spec.layers)) as stage:
                emit(file, model, options.context, stage.advance)
            facts = {"get_vocab_size": model.spec.vocab, "get_max_seq_len": options.context}
            for name, value in facts.items():
                file.fact(name, value)
            with progress.stage("Writing the ExecuTorch program", 1) as stage:
                planned = file.write(folder / MODEL_FILE)
                stage.advance()
        return Program(
            MODEL_FILE,
            {"delegate": "xnnpack", "methods": facts, "planned_memory": planned},
            {"executorch": version()},
        )

    def open(self, main: Path, context: int, threads: int | None = None) -> EncoderSession:
        from .wheel import load_runtime

        load_runtime()
        from .encoder_session import ExecuTorchEncoderSession

        return ExecuTorchEncoderSession(main, context, threads)


def program_bytes(spec: Shaped, recipe: Recipe, options: ProgramOptions) -> int:
    """Bytes of the program's file."""
    from .packing import LIMITS

    total = GRAPH_BYTES
    for elements, bits, group in tensor_bits(spec, recipe, options, LIMITS).values():
        total += elements * bits // 8 + (elements // group * 2 if group else 0)
    return total


def refuse_form(spec: Shaped, recipe: Recipe, options: ProgramOptions) -> None:
    """Stop before any work at what XNNPACK cannot hold or what is for decoders alone.

    Raises:
        EdgeError: which choice.
    """
    if options.delegate not in (None, "xnnpack"):
        raise TargetError(f"--delegate {options.delegate} takes decoders alone", hint="leave out --delegate")
    if options.kv_bits is not None:
        raise RecipeError(f"an encoder has no key-value cache: leave -kv8 out of {recipe.name}")
    if options.float_type != "float32":
        raise RecipeError("encoder programs are float32: leave out --float float16")
    packed = False
    for name in spec.tensors():
        grid = recipe.grid(name)
        bits, group = grid if grid and grid[0] < 16 else (16, 0)
        packed = packed or bits < 16
        if group not in (_GROUPS if bits <= 4 else (0,)):
            raise RecipeError(f"XNNPACK holds no w{bits}g{group}, which recipe {recipe.name} makes of {name}")
    if packed and options.activations != 8:
        raise RecipeError(f"XNNPACK's packed weights take int8 activations; recipe {recipe.name} asks for float")
