"""The ONNX converter: ``model.onnx``, its data file, and the configuration of onnxruntime-genai."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.converter import KindConverter, MemoryPlan, OnDevice, Program, ProgramOptions
from edgesdk.errors import EdgeError, MissingExtraError, RecipeError, TargetError
from edgesdk.estimate import (
    FLOAT_BITS,
    inner_size,
    kv_cache_bytes,
    mixer_size,
    refuse_features,
    refuse_schemes,
    tensor_bits,
)
from edgesdk.kinds import ENCODER, SEQ2SEQ, VISION
from edgesdk.model.features import ALL
from edgesdk.model.spec import Attention

from .encoder_convert import OnnxEncoders
from .limits import ACCURACY, BLOCK_BYTES, GRAPH_BYTES, LIMITS, RUNTIME_BYTES
from .names import DATA_FILE, MODEL_FILE
from .runtimes import runtime_for
from .seq2seq_convert import OnnxSeq2Seqs
from .vision_convert import OnnxVisions

if TYPE_CHECKING:
    from edgesdk.compress.base import Limits
    from edgesdk.compress.recipe import Recipe
    from edgesdk.model import DecoderSpec, Model
    from edgesdk.progress import Progress
    from edgesdk.session import Session, TextRunner
    from edgesdk.targets import Target

BUILDS = ALL
_PREFILL = 256


class OnnxConverter:
    """Programs for ONNX Runtime and onnxruntime-genai."""

    name = "onnx"
    on_device: OnDevice | None = OnDevice(
        "edgesdk_converters.onnx.session:OnnxSession",
        tuple(f"edgesdk_converters.onnx.{name}" for name in ("names", "operators", "session")),
        ("onnxruntime", "onnxruntime-gpu"),
        "edgesdk_converters.onnx.operators:operator_times",
        ("tensorrt", "cuda", "cpu"),
        adapters=True,
        drafts=True,
    )

    def __init__(self) -> None:
        self.others: Mapping[str, KindConverter[Any, Any, Any]] = {
            ENCODER: OnnxEncoders(),
            SEQ2SEQ: OnnxSeq2Seqs(),
            VISION: OnnxVisions(self),
        }

    def limits(self, delegate: str | None = None) -> Limits:
        return LIMITS

    def check(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        if options.kv_bits is not None:
            raise RecipeError("the ONNX converter keeps the key-value cache in float: leave out -kv8")
        refuse_schemes(spec, recipe, target)
        refuse_features(spec, BUILDS, self.name)
        for layer in spec.layers:
            attention = layer.mixer
            if isinstance(attention, Attention) and attention.rope is not None and attention.head_dim % 16:
                raise TargetError(
                    f"ONNX Runtime's attention rotates heads of a multiple of 16, not {attention.head_dim}"
                )
        if spec.recurrent and options.float_type != "float32":
            raise TargetError(
                f"ONNX Runtime's CPU kernels carry states in float32, not in {options.float_type}",
                hint="leave out --float",
            )

    def plan(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions) -> MemoryPlan:
        program, weights = GRAPH_BYTES, 0
        for name, (elements, bits, group) in tensor_bits(spec, recipe, options, self.limits(options.delegate)).items():
            stored = elements * bits // 8 + (elements // group * 2 if group else 0)
            blocks = elements // math.gcd(group, 256) if group else 0
            packed = elements * bits // 8 + blocks * BLOCK_BYTES
            program += stored
            weights += packed
            if name == "embed.weight" and group:  # as stored, and reshaped for the gather
                weights += 2 * stored if spec.tied else stored
        width = FLOAT_BITS[options.float_type] // 8
        tables = len(spec.ropes) * options.context * width
        program += tables * max((head_dim for _, head_dim in spec.ropes), default=0)
        widest = max(
            2 * inner_size(layer.ffn) + mixer_size(layer.mixer, spec.hidden) + 4 * spec.hidden for layer in spec.layers
        )
        heads = max((layer.mixer.heads for layer in spec.layers if isinstance(layer.mixer, Attention)), default=0)
        step = min(_PREFILL, options.context)
        activations = step * (widest * width + heads * options.context * 4) + spec.vocab * 8
        return MemoryPlan(program, weights, kv_cache_bytes(spec, options), activations, RUNTIME_BYTES)

    def remarks(self, spec: DecoderSpec, options: ProgramOptions) -> Sequence[str]:
        return ()

    def convert(self, model: Model, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        try:
            import onnx_ir as ir
            import torch
        except ModuleNotFoundError as failure:
            raise MissingExtraError(failure.name or "onnx_ir", "onnx") from None

        from .builder import GraphBuilder
        from .decoder import OPSET, DecoderGraph
        from .linear import Activations

        accuracy = ACCURACY[options.activations]
        with (folder / DATA_FILE).open("wb") as data:
            builder = GraphBuilder(folder, data, getattr(torch, options.float_type), repeats=model.spec.repeats > 1)
            graph = DecoderGraph(builder, model, options.context, Activations(accuracy))
            with progress.stage("Writing the ONNX program", len(model.spec.layers)) as stage:
                for _ in graph.emit():
                    stage.advance()
        built = builder.graph("decoder", OPSET)
        adapters = {}
        if model.switchable:
            from .adapters import add_inputs, write_adapters

            add_inputs(built, model)
            adapters = {"adapters": write_adapters(built, model, folder)}
        program = ir.Model(built, ir_version=10, producer_name="edgesdk")
        (folder / MODEL_FILE).write_bytes(ir.to_proto(program).SerializeToString(deterministic=True))
        genai = self._write_genai(model, options, folder)
        facts = {"accuracy_level": accuracy, "data": DATA_FILE, "genai": genai, **adapters}
        runtime = runtime_for(built, adapters=bool(adapters))
        return Program(MODEL_FILE, facts, {"onnx-ir": ir.__version__}, runtime=runtime)

    def open(self, main: Path, context: int, threads: int | None = None) -> Session:
        try:
            from .session import OnnxSession
        except ModuleNotFoundError as failure:
            raise MissingExtraError(failure.name or "onnxruntime", "onnx") from None

        return OnnxSession(main, context, threads)

    def text_runner(self, main: Path, tokenizer: Path) -> TextRunner:
        raise EdgeError(
            "ONNX Runtime has no text runner of its own",
            hint="run without --runner; onnxruntime-genai loads the bundle's folder as it is",
        )

    def verify_programs(self, folder: Path, files: Mapping[str, int]) -> None:
        from .verifying import check_program

        for name in sorted(files):
            if name.endswith(".onnx"):
                check_program(folder / name, folder, files)

    def _write_genai(self, model: Model, options: ProgramOptions, folder: Path) -> str | None:
        """Write the configuration; returns its name, or None where onnxruntime-genai cannot run the program."""
        from .genai import genai_config, uniform

        if not uniform(model):
            return None
        text = json.dumps(genai_config(model, options.context), indent=2, ensure_ascii=False)
        (folder / "genai_config.json").write_text(text + "\n", encoding="utf-8")
        return "genai_config.json"


CONVERTER = OnnxConverter()
