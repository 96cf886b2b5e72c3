"""Encoder-decoders for ExecuTorch: one ``model.pte`` of two methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.converter import MemoryPlan, Program, ProgramOptions
from edgesdk.errors import MissingExtraError
from edgesdk.estimate import refuse_schemes

from .encoder_convert import GRAPH_BYTES, MODEL_FILE, RUNTIME_BYTES, program_bytes, refuse_form
from .wheel import folder as wheel_folder
from .wheel import version

if TYPE_CHECKING:
    from edgesdk.compress.recipe import Recipe
    from edgesdk.model.seq2seq.model import Seq2SeqModel
    from edgesdk.model.seq2seq_spec import Seq2SeqSpec
    from edgesdk.progress import Progress
    from edgesdk.session import Seq2SeqSession
    from edgesdk.targets import Target


class ExecuTorchSeq2Seqs:
    """Implements :class:`edgesdk.converter.KindConverter` for encoder-decoders."""

    def check(self, spec: Seq2SeqSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        refuse_schemes(spec, recipe, target)
        refuse_form(spec, recipe, options)

    def plan(self, spec: Seq2SeqSpec, recipe: Recipe, options: ProgramOptions) -> MemoryPlan:
        program = program_bytes(spec, recipe, options)
        layers, context = (*spec.encoder.layers, *spec.layers), options.context
        widest = max(3 * layer.mlp.size + 4 * layer.attention.size + 4 * spec.hidden for layer in layers)
        heads = max(layer.attention.heads for layer in layers)
        caches = sum(2 * 2 * layer.attention.size * context * 4 for layer in spec.layers)  # its own and the text's
        activations = 4 * context * (widest + (3 * heads + 5) * context)
        return MemoryPlan(program, program - GRAPH_BYTES, caches, activations, RUNTIME_BYTES)

    def convert(self, model: Seq2SeqModel, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        try:
            import torch  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("torch", "executorch") from None
        wheel_folder()
        from .data import DataFile
        from .program import ProgramFile
        from .seq2seq import emit

        spec = model.spec
        layers = len(spec.encoder.layers) + len(spec.layers)
        with DataFile(folder / f"{MODEL_FILE}.data") as data:
            file = ProgramFile(data)
            with progress.stage("Building the ExecuTorch program", layers) as stage:
                emit(file, model, options.context, stage.advance)
            facts = {
                "get_vocab_size": spec.vocab,
                "get_max_context_len": options.context,
                "get_start_id": spec.start,
            }
            for name, value in facts.items():
                file.fact(name, value)
            with progress.stage("Writing the ExecuTorch program", 1) as stage:
                planned = file.write(folder / MODEL_FILE)
                stage.advance()
        said = {"delegate": "xnnpack", "methods": facts, "planned_memory": planned}
        return Program(MODEL_FILE, said, {"executorch": version()})

    def open(self, main: Path, context: int, threads: int | None = None) -> Seq2SeqSession:
        from .wheel import load_runtime

        load_runtime()
        from .seq2seq_session import ExecuTorchSeq2SeqSession

        return ExecuTorchSeq2SeqSession(main, context, threads)
