"""Encoder-decoders for ONNX Runtime: two programs over one data file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.converter import MemoryPlan, Program, ProgramOptions
from edgesdk.errors import MissingExtraError
from edgesdk.estimate import refuse_schemes

from .encoder_convert import refuse_form, weight_bytes
from .limits import ACCURACY, RUNTIME_BYTES
from .names import DATA_FILE, ENCODER_FILE, MODEL_FILE
from .runtimes import runtime_for

if TYPE_CHECKING:
    from edgesdk.compress.recipe import Recipe
    from edgesdk.model.seq2seq.model import Seq2SeqModel
    from edgesdk.model.seq2seq_spec import Seq2SeqSpec
    from edgesdk.progress import Progress
    from edgesdk.session import Seq2SeqSession
    from edgesdk.targets import Target


class OnnxSeq2Seqs:
    """Implements :class:`edgesdk.converter.KindConverter` for encoder-decoders."""

    def check(self, spec: Seq2SeqSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        refuse_form(recipe, options)
        refuse_schemes(spec, recipe, target)

    def plan(self, spec: Seq2SeqSpec, recipe: Recipe, options: ProgramOptions) -> MemoryPlan:
        program, weights = weight_bytes(spec, recipe, options)
        layers, context = (*spec.encoder.layers, *spec.layers), options.context
        widest = max(2 * layer.mlp.size + 3 * layer.attention.size + 4 * spec.hidden for layer in layers)
        heads = max(layer.attention.heads for layer in layers)
        caches = sum(2 * 2 * layer.attention.size * context * 4 for layer in spec.layers)  # its own and the text's
        return MemoryPlan(program, weights, caches, 4 * context * (widest + heads * context), RUNTIME_BYTES)

    def convert(self, model: Seq2SeqModel, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        try:
            import onnx_ir as ir
            import torch
        except ModuleNotFoundError as failure:
            raise MissingExtraError(failure.name or "onnx_ir", "onnx") from None

        from .arithmetic import OPSET
        from .builder import GraphBuilder
        from .linear import Activations
        from .seq2seq import emit_decoder, emit_encoder

        spec, activations = model.spec, Activations(ACCURACY[options.activations])
        stored: dict[str, ir.TensorProtocol] = {}  # both read the embedding
        graphs: list[ir.Graph] = []
        layers = len(spec.encoder.layers) + len(spec.layers)
        with (folder / DATA_FILE).open("wb") as data, progress.stage("Writing the ONNX programs", layers) as stage:
            for name, emit in ((ENCODER_FILE, emit_encoder), (MODEL_FILE, emit_decoder)):
                builder = GraphBuilder(folder, data, torch.float32, stored)
                emit(builder, model, options.context, activations, stage.advance)
                graphs.append(builder.graph(name.removesuffix(".onnx"), OPSET))
                program = ir.Model(graphs[-1], ir_version=10, producer_name="edgesdk")
                program.metadata_props["vocab"] = str(spec.vocab)
                program.metadata_props["start"] = str(spec.start)
                (folder / name).write_bytes(ir.to_proto(program).SerializeToString(deterministic=True))
        facts = {"accuracy_level": activations.accuracy_level, "data": DATA_FILE, "encoder": ENCODER_FILE}
        return Program(MODEL_FILE, facts, {"onnx-ir": ir.__version__}, runtime=runtime_for(*graphs))

    def open(self, main: Path, context: int, threads: int | None = None) -> Seq2SeqSession:
        try:
            from .seq2seq_session import OnnxSeq2SeqSession
        except ModuleNotFoundError as failure:
            raise MissingExtraError(failure.name or "onnxruntime", "onnx") from None

        return OnnxSeq2SeqSession(main, context, threads)
