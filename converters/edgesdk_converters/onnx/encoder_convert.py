"""Encoders for ONNX Runtime: ``model.onnx`` and its data file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.converter import MemoryPlan, Program, ProgramOptions
from edgesdk.errors import MissingExtraError, RecipeError, TargetError
from edgesdk.estimate import refuse_schemes, tensor_bits

from .limits import ACCURACY, BLOCK_BYTES, GRAPH_BYTES, LIMITS, RUNTIME_BYTES
from .names import DATA_FILE, MODEL_FILE
from .runtimes import runtime_for

if TYPE_CHECKING:
    from edgesdk.compress.recipe import Recipe
    from edgesdk.estimate import Shaped
    from edgesdk.model.encoder_spec import EncoderSpec
    from edgesdk.model.encoders.model import EncoderModel
    from edgesdk.progress import Progress
    from edgesdk.session import EncoderSession
    from edgesdk.targets import Target

_LEAST_HEAD = 16  # the rotary kernel takes heads of a multiple of this


class OnnxEncoders:
    """Implements :class:`edgesdk.converter.KindConverter` for encoders."""

    def check(self, spec: EncoderSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        refuse_form(recipe, options)
        refuse_schemes(spec, recipe, target)
        for rope, head_dim in spec.ropes:
            if head_dim % _LEAST_HEAD:
                raise TargetError(
                    f"ONNX Runtime rotates heads of a multiple of {_LEAST_HEAD}, not {head_dim} (theta {rope.theta:g})"
                )

    def plan(self, spec: EncoderSpec, recipe: Recipe, options: ProgramOptions) -> MemoryPlan:
        program, weights = weight_bytes(spec, recipe, options)
        widest = max(2 * layer.mlp.size + 3 * layer.attention.size + 4 * spec.hidden for layer in spec.layers)
        heads = max(layer.attention.heads for layer in spec.layers)
        activations = 4 * options.context * (widest + heads * options.context)
        return MemoryPlan(program, weights, 0, activations, RUNTIME_BYTES)

    def convert(self, model: EncoderModel, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        try:
            import onnx_ir as ir
            import torch
        except ModuleNotFoundError as failure:
            raise MissingExtraError(failure.name or "onnx_ir", "onnx") from None

        from .arithmetic import OPSET
        from .builder import GraphBuilder
        from .encoder import emit
        from .linear import Activations

        accuracy = ACCURACY[options.activations]
        with (folder / DATA_FILE).open("wb") as data:
            builder = GraphBuilder(folder, data, torch.float32)
            with progress.stage("Writing the ONNX program", len(model.spec.layers)) as stage:
                emit(builder, model, options.context, Activations(accuracy), stage.advance)
        graph = builder.graph("encoder", OPSET)
        program = ir.Model(graph, ir_version=10, producer_name="edgesdk")
        program.metadata_props["vocab"] = str(model.spec.vocab)
        (folder / MODEL_FILE).write_bytes(ir.to_proto(program).SerializeToString(deterministic=True))
        facts = {"accuracy_level": accuracy, "data": DATA_FILE}
        return Program(MODEL_FILE, facts, {"onnx-ir": ir.__version__}, runtime=runtime_for(graph))

    def open(self, main: Path, context: int, threads: int | None = None) -> EncoderSession:
        try:
            from .encoder_session import OnnxEncoderSession
        except ModuleNotFoundError as failure:
            raise MissingExtraError(failure.name or "onnxruntime", "onnx") from None

        return OnnxEncoderSession(main, context, threads)


def refuse_form(recipe: Recipe, options: ProgramOptions) -> None:
    """Stop before any work where a choice is for decoders alone.

    Raises:
        RecipeError: a cache in int8, or float16.
    """
    if options.kv_bits is not None:
        raise RecipeError(f"an encoder has no key-value cache: leave -kv8 out of {recipe.name}")
    if options.float_type != "float32":
        raise RecipeError("ONNX Runtime's attention of encoders is float32 on the CPU: leave out --float float16")


def weight_bytes(spec: Shaped, recipe: Recipe, options: ProgramOptions) -> tuple[int, int]:
    """Bytes of the program's file, and of its weights in memory."""
    program, weights = GRAPH_BYTES, 0
    for name, (elements, bits, group) in tensor_bits(spec, recipe, options, LIMITS).items():
        stored = elements * bits // 8 + (elements // group * 2 if group else 0)
        blocks = elements // math.gcd(group, 256) if group else 0
        program += stored
        weights += stored if name == "embed.weight" else elements * bits // 8 + blocks * BLOCK_BYTES
    return program, weights
