"""The converter for microcontrollers: the C99 runtime's image with its firmware, or a TensorFlow Lite Micro model."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.boards import Footprint
from edgesdk.compress.base import Limits
from edgesdk.converter import Converter, MemoryPlan, OnDevice, Program, ProgramOptions
from edgesdk.errors import EdgeError, MissingExtraError, RecipeError, TargetError
from edgesdk.estimate import refuse_features, refuse_schemes, tensor_bits
from edgesdk.model.features import PLAIN
from edgesdk.model.spec import is_linear
from edgesdk.targets import RuntimeRange

from .footprint import LARGEST, footprint
from .layout import STACK_BYTES, image_bytes, ram, widest_input
from .sizing import arena_verdicts, refuse_boards, refuse_verdicts, verdicts

if TYPE_CHECKING:
    from edgesdk.compress.recipe import Recipe
    from edgesdk.model import DecoderSpec, Model, Tokenizer
    from edgesdk.progress import Progress
    from edgesdk.session import Session, TextRunner
    from edgesdk.targets import Target

BUILDS = PLAIN | {"layer_norm", "learned_positions"}
IMAGE_FILE = "model.lm"
GOLDEN_FILE = "golden.json"
TFLM = "tflm"
_TFLM_RUNTIME = RuntimeRange("tflite-micro", ">=0.dev20260101")
_GOLDEN_TOKENS = 32
_LONGEST_ROW = (1 << 31) // (128 * 128)  # products of int8 that a sum of 32 bits holds
_HOLDS = "w8, and w4 with groups of 32, 64, 128 or a row"


class CortexMConverter:
    """Programs for microcontrollers."""

    name = "cortex_m"
    on_device: OnDevice | None = None  # its firmware does

    def limits(self, delegate: str | None = None) -> Limits:
        if delegate == TFLM:
            return _tflm().limits(delegate)
        return Limits(grouped_bytes=False, zero_points=False, float_matrices=False)

    def check(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        self.check_form(spec, recipe, options, target)
        if options.delegate != TFLM:
            refuse_boards(spec, self.plan(spec, recipe, options), options.context, target)

    def check_form(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        """Refuse what the runtime cannot run or hold, on any board; see :class:`edgesdk.fit.BoardConverter`."""
        if options.delegate == TFLM:
            _tflm().check(spec, recipe, options, target)
            return
        if options.float_type != "float32":
            raise TargetError(
                f"the C99 runtime computes in float32 beside its integers, not in {options.float_type}",
                hint="leave out --float",
            )
        refuse_features(spec, BUILDS, self.name)
        refuse_schemes(spec, recipe, target)
        if options.activations != 8:
            raise RecipeError(
                f"the C99 runtime computes with int8 activations, not with the {options.activations} bits that recipe "
                f"{recipe.name} asks for",
                hint=f"leave out -a{options.activations}, or add --delegate {TFLM}",
            )
        for name in spec.tensors():
            grid = recipe.grid(name)
            if grid is None and (name in ("embed.weight", "head.weight") or is_linear(name)):
                raise RecipeError(
                    f"the C99 runtime holds {_HOLDS}; recipe {recipe.name} leaves {name} in float",
                    hint=f"use --recipe w8 or w4g32, or --delegate {TFLM} for float",
                )
        for layer in spec.layers:
            if layer.attention.head_dim % 2:
                raise TargetError(f"rotary embedding needs an even head size, found {layer.attention.head_dim}")
        if widest_input(spec) > _LONGEST_ROW:
            raise TargetError(f"rows of {widest_input(spec)} inputs do not fit the kernels' 32-bit sums")

    def plan(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions) -> MemoryPlan:
        if options.delegate == TFLM:
            return _tflm().plan(spec, recipe, options)
        needed = ram(spec, options.context)
        image = image_bytes(spec, tensor_bits(spec, recipe, options, self.limits(options.delegate)))
        return MemoryPlan(image, 0, needed.kv_cache, needed.work, LARGEST.ram + STACK_BYTES)

    def remarks(self, spec: DecoderSpec, options: ProgramOptions) -> Sequence[str]:
        if options.delegate == TFLM:
            return _tflm().remarks(spec, options)
        return (
            "weights are read in place from flash; activations are int8 with one scale a vector, keys and values int8 "
            "with one scale a token",
        )

    def violations(self, program: Path) -> Iterable[EdgeError]:
        """What TensorFlow Lite Micro would refuse or compute wrongly in any ``.tflite`` file."""
        _tflm()
        from edgesdk_converters.tflite.format import read_file
        from edgesdk_converters.tflite.lint import violations

        return violations(read_file(program))

    def footprint(self, core: str) -> Footprint:
        """Flash and RAM of the firmware on a core, without any model; see :class:`edgesdk.fit.BoardConverter`."""
        return footprint(core)

    def tokenizer_bytes(self, tokenizer: Tokenizer) -> int:
        """Flash that a tokenizer's table takes."""
        from .tokenizer_table import tokenizer_table

        return len(tokenizer_table(tokenizer))

    def convert(self, model: Model, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        if options.delegate == TFLM:
            return self._convert_tflm(model, options, folder, progress)
        try:
            import torch  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("torch", "model") from None

        from .double import DoubleSession
        from .firmware import FOLDER, write_c99_project, write_report
        from .image import write_image
        from .image_file import ImageFile
        from .tokenizer_table import tokenizer_table

        table = tokenizer_table(model.tokenizer) if model.tokenizer is not None else b""
        needed = ram(model.spec, options.context)
        with progress.stage("Writing the image and the firmware", 3) as stage:
            size = write_image(model, options.context, table, folder / IMAGE_FILE)
            stage.advance()
            project = folder / FOLDER
            project.mkdir()
            write_c99_project(folder / IMAGE_FILE, needed.total, options.context, model, project)
            stage.advance()
            boards = verdicts(size, needed.total, options.cores)
            refuse_verdicts(boards, options.cores)
            sizes = {
                "weights in flash": size - len(table),
                "tokenizer in flash": len(table),
                "KV cache in RAM": needed.kv_cache,
                "work in RAM": needed.work,
                "stack": STACK_BYTES,
            }
            write_report(project, "c99", model.origin.name, options.context, sizes, boards)
            _write_golden(DoubleSession(folder / IMAGE_FILE), model, project)
            stage.advance()
        facts = {
            "form": "c99",
            "crc32": f"{ImageFile(folder / IMAGE_FILE).crc:08x}",  # what the firmware says in its hello
            "image": size,
            "ram": {"kv_cache": needed.kv_cache, "work": needed.work},
            "tokenizer": len(table),
            "boards": boards,
            "firmware": FOLDER,
        }
        return Program(IMAGE_FILE, facts, made_from_it=(FOLDER,))

    def _convert_tflm(self, model: Model, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        from .firmware import FOLDER, write_report, write_tflm_project

        program = _tflm().convert(model, options, folder, progress)
        (folder / FOLDER).mkdir()
        write_tflm_project(folder / program.main, program.facts, options.context, model, folder / FOLDER)
        size, arena = (folder / program.main).stat().st_size, program.facts["arena_bytes"]
        tokenizer = self.tokenizer_bytes(model.tokenizer) if model.tokenizer is not None else 0
        boards = arena_verdicts(size + tokenizer, arena + 4 * model.spec.vocab, options.cores)
        refuse_verdicts(boards, options.cores)
        sizes = {
            "model in flash": size,
            "tokenizer in flash": tokenizer,
            "arena in RAM, with margin": arena,
            "logits in RAM": 4 * model.spec.vocab,
            "stack": STACK_BYTES,
        }
        write_report(folder / FOLDER, TFLM, model.origin.name, options.context, sizes, boards)
        _write_golden(self.open(folder / program.main, options.context), model, folder / FOLDER)
        crc = f"{zlib.crc32((folder / program.main).read_bytes()):08x}"
        facts = {"form": TFLM, "crc32": crc, **program.facts, "boards": boards, "firmware": FOLDER}
        return replace(program, facts=facts, runtime=_TFLM_RUNTIME, made_from_it=(FOLDER,))

    def open(self, main: Path, context: int, threads: int | None = None) -> Session:
        if main.suffix != Path(IMAGE_FILE).suffix:
            return _tflm().open(main, context, threads)
        from .double import DoubleSession

        return DoubleSession(main)

    def text_runner(self, main: Path, tokenizer: Path) -> TextRunner:
        raise EdgeError("a microcontroller's runner runs on its board", hint="run without --runner, or build firmware/")

    def verify_programs(self, folder: Path, files: Mapping[str, int]) -> None:
        from edgesdk_converters.tflite.verifying import check_program

        for name in sorted(files):
            if name.endswith(".tflite"):
                check_program(folder / name)


def _tflm() -> Converter:
    try:
        from edgesdk_converters.tflite import micro
    except ModuleNotFoundError as failure:
        raise MissingExtraError(failure.name or "ai_edge_litert", "tflm") from None
    return micro.TFLM


def _write_golden(session: Session, model: Model, project: Path) -> None:
    """Tokens and hashes of logits that every correct firmware gives: greedy, from the prefix or token 0."""
    prompt = list(model.tokenizer.special.prefix) if model.tokenizer is not None else []
    prompt = prompt or [0]
    tokens: list[int] = []
    hashes: list[str] = []
    logits = session.prefill(prompt)
    for number in range(min(_GOLDEN_TOKENS, session.context - len(prompt))):
        if number:
            logits = session.decode(tokens[-1])
        hashes.append(f"{zlib.crc32(logits.astype('<f4').tobytes()):08x}")
        tokens.append(int(logits.argmax()))
    golden = {"prompt": prompt, "tokens": tokens, "logits_crc32": hashes}
    (project / GOLDEN_FILE).write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


CONVERTER = CortexMConverter()
