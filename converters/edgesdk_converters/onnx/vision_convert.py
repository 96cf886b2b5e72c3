"""Vision-language models for ONNX Runtime: two programs over one data file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.converter import Converter, MemoryPlan, Program, ProgramOptions
from edgesdk.errors import MissingExtraError, TargetError
from edgesdk.estimate import refuse_schemes

from .encoder_convert import refuse_form, weight_bytes
from .limits import ACCURACY
from .names import DATA_FILE, MODEL_FILE, VISION_FILE
from .runtimes import runtime_for

if TYPE_CHECKING:
    from edgesdk.compress.recipe import Recipe
    from edgesdk.model.vision.model import VisionModel
    from edgesdk.model.vision_spec import VisionSpec
    from edgesdk.progress import Progress
    from edgesdk.session import VisionSession
    from edgesdk.targets import Target


class OnnxVisions:
    """Implements :class:`edgesdk.converter.KindConverter` for vision-language models, over the decoder's converter."""

    def __init__(self, decoders: Converter) -> None:
        self._decoders = decoders

    def check(self, spec: VisionSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        refuse_form(recipe, options)
        refuse_schemes(spec, recipe, target)
        self._decoders.check(spec.text, recipe, options, target)
        text = spec.text
        if text.embedding_scale != 1.0 or text.embedding is not None or text.learned_positions or text.embed_norm:
            raise TargetError(f"{spec.family}: a decoder that changes its tokens' rows takes none of images here")

    def plan(self, spec: VisionSpec, recipe: Recipe, options: ProgramOptions) -> MemoryPlan:
        program, weights = weight_bytes(spec, recipe, options)
        text, image = self._decoders.plan(spec.text, recipe, options), spec.image
        patches = image.grid**2
        heads = max(layer.attention.heads for layer in image.layers)
        widest = max(layer.mlp.size + 4 * image.hidden for layer in image.layers)
        activations = max(text.activations, 4 * patches * (widest + heads * patches))
        return MemoryPlan(program, weights, text.kv_cache, activations, text.runtime)

    def convert(self, model: VisionModel, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        try:
            import onnx_ir as ir
            import torch
        except ModuleNotFoundError as failure:
            raise MissingExtraError(failure.name or "onnx_ir", "onnx") from None

        from .arithmetic import OPSET
        from .builder import GraphBuilder
        from .decoder import DecoderGraph
        from .linear import Activations
        from .vision import SeeingBuilder, emit_vision

        spec, activations = model.spec, Activations(ACCURACY[options.activations])
        stored: dict[str, ir.TensorProtocol] = {}
        graphs: list[ir.Graph] = []
        layers = len(spec.image.layers) + len(spec.text.layers)
        with (folder / DATA_FILE).open("wb") as data, progress.stage("Writing the ONNX programs", layers) as stage:
            vision = GraphBuilder(folder, data, torch.float32, stored)
            emit_vision(vision, model, activations, stage.advance)
            decoder = SeeingBuilder(folder, data, torch.float32, stored, spec.image_token)
            for _ in DecoderGraph(decoder, model.decoder, options.context, activations).emit():
                stage.advance()
            for name, builder in ((VISION_FILE, vision), (MODEL_FILE, decoder)):
                graphs.append(builder.graph(name.removesuffix(".onnx"), OPSET))
                program = ir.Model(graphs[-1], ir_version=10, producer_name="edgesdk")
                program.metadata_props["image_token"] = str(spec.image_token)
                (folder / name).write_bytes(ir.to_proto(program).SerializeToString(deterministic=True))
        facts = {"accuracy_level": activations.accuracy_level, "data": DATA_FILE, "vision": VISION_FILE}
        return Program(MODEL_FILE, facts, {"onnx-ir": ir.__version__}, runtime=runtime_for(*graphs))

    def open(self, main: Path, context: int, threads: int | None = None) -> VisionSession:
        try:
            from .vision_session import OnnxVisionSession
        except ModuleNotFoundError as failure:
            raise MissingExtraError(failure.name or "onnxruntime", "onnx") from None

        return OnnxVisionSession(main, context, threads)
