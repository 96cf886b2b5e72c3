"""The ExecuTorch converter: one ``model.pte`` for XNNPACK, as the runners in ExecuTorch's packages expect it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.compress.base import Limits
from edgesdk.converter import KindConverter, MemoryPlan, OnDevice, Program, ProgramOptions
from edgesdk.errors import MissingExtraError, RecipeError, TargetError
from edgesdk.estimate import (
    FLOAT_BITS,
    inner_size,
    kv_cache_bytes,
    mixer_size,
    refuse_features,
    refuse_schemes,
    tensor_bits,
)
from edgesdk.kinds import ENCODER, SEQ2SEQ
from edgesdk.model.features import ALL, RECURRENT
from edgesdk.model.spec import Attention, Moe

from .encoder_convert import ExecuTorchEncoders
from .seq2seq_convert import ExecuTorchSeq2Seqs
from .sizes import WIDE_STATES, capacity, head_width, rewind_limit, step_sizes
from .wheel import folder as wheel_folder
from .wheel import version

if TYPE_CHECKING:
    from edgesdk.compress.recipe import Recipe
    from edgesdk.model import DecoderSpec, Model
    from edgesdk.progress import Progress
    from edgesdk.session import Session, TextRunner
    from edgesdk.targets import Target

BUILDS = ALL
#: Routing picks weights at run time, and torch.export keeps every shape fixed here; layers there keep no states.
_AHEAD_BUILDS = BUILDS - RECURRENT - {"moe", "sparsemixer"}
MODEL_FILE = "model.pte"
_ON_DEVICE = ("delegates", "format", "native", "operators", "verifying", "wheel", "session")
_AHEAD = ("vulkan", "coreml")
_VENDORS = {
    "qualcomm": "the Qualcomm AI Engine Direct SDK (QNN_SDK_ROOT) and an ExecuTorch built with its backend",
    "mediatek": "the MediaTek NeuroPilot Express SDK (mtk_converter, mtk_neuron)",
    "samsung": "the Samsung Exynos AI LiteCore SDK (EXYNOS_AI_LITECORE_ROOT)",
}
_GROUPS = (0, 32, 64, 128)
_GRAPH_BYTES = 700_000
_EXPERT_BYTES = 6_000  # the subgraph of an expert, and its calls in two methods
_RUNTIME_BYTES = 16_000_000  # a process with ExecuTorch's libraries loaded, measured under device_tests
_HOLDS = "w8, w4, w4g32, w4g64 and w4g128 with 8-bit activations, or float"


class ExecuTorchConverter:
    """Programs for ExecuTorch with the XNNPACK delegate."""

    name = "executorch"
    on_device: OnDevice | None = OnDevice(
        "edgesdk_converters.executorch.session:ExecuTorchSession",
        (
            *("edgesdk.bounds.flatbuffer", "edgesdk.bounds.flatbuffer_schema", "edgesdk.partials"),
            *(f"edgesdk_converters.executorch.{name}" for name in _ON_DEVICE),
        ),
        ("executorch",),
        "edgesdk_converters.executorch.operators:operator_times",
        drafts=True,
    )
    others: Mapping[str, KindConverter[Any, Any, Any]] = {ENCODER: ExecuTorchEncoders(), SEQ2SEQ: ExecuTorchSeq2Seqs()}

    def limits(self, delegate: str | None = None) -> Limits:
        from .packing import LIMITS

        return LIMITS

    def check(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        if options.delegate in _VENDORS:
            raise TargetError(
                f"programs for {options.delegate} need {_VENDORS[options.delegate]}, which its maker gives out itself",
                hint="install it and lower the model with ExecuTorch's own exporter; edgesdk builds "
                f"{', '.join(name for name in target.delegates if name not in _VENDORS)}",
            )
        refuse_features(spec, _AHEAD_BUILDS if options.delegate in _AHEAD else BUILDS, self.name)
        if options.delegate in _AHEAD:
            self._check_ahead(spec, recipe, options)
            return
        refuse_schemes(spec, recipe, target)
        packed = False
        for name in spec.tensors():
            grid = recipe.grid(name)
            bits, group = grid if grid and grid[0] < 16 else (16, 0)
            packed = packed or bits < 16
            if group not in (_GROUPS if bits <= 4 else (0,)):
                raise RecipeError(
                    f"XNNPACK holds {_HOLDS}; recipe {recipe.name} makes {name} w{bits}{f'g{group}' if group else ''}"
                )
        self._check_attention(spec, options)
        if packed and options.activations != 8:
            raise RecipeError(f"XNNPACK holds {_HOLDS}; recipe {recipe.name} asks for float activations")

    def _check_attention(self, spec: DecoderSpec, options: ProgramOptions) -> None:
        """What the kernels of attention do not go together with."""
        capped = any(attention.softcap is not None for attention in _attentions(spec))
        biased = any(attention.alibi is not None for attention in _attentions(spec))
        if capped and biased:
            raise TargetError("the ExecuTorch converter builds no attention with both ALiBi and a soft cap")
        if options.kv_bits is not None and (capped or biased or options.float_type != "float32"):
            raise RecipeError(
                "an int8 key-value cache needs float32 and attention without a soft cap or ALiBi",
                hint="leave out -kv8, or export with --float float32",
            )
        for attention in _attentions(spec):
            if spec.recurrent and capacity(attention.window, options.context) < options.context:
                raise TargetError("the ExecuTorch converter builds no states beside rings of a sliding window")
            if attention.rope is not None and attention.head_dim % 2:
                raise TargetError(f"rotary embedding needs an even head size, found {attention.head_dim}")

    def _check_ahead(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions) -> None:
        """Vulkan and Core ML programs hold float weights: their compilers would round integers again."""
        packed = [name for name in spec.tensors() if (grid := recipe.grid(name)) and grid[0] < 16]
        if packed or options.kv_bits is not None:
            raise RecipeError(
                f"programs for {options.delegate} hold float weights and caches here; recipe {recipe.name} rounds them",
                hint="add --recipe none (and --float float16 for half the size), or leave out --delegate",
            )

    def plan(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions) -> MemoryPlan:
        program, weights = _GRAPH_BYTES, 0
        for name, (elements, bits, group) in tensor_bits(spec, recipe, options, self.limits(options.delegate)).items():
            stored = elements * bits // 8 + (elements // group * 2 if group else 0)
            program += stored
            weights += stored  # XNNPACK packs its own copy; the file's pages can go
            if name == "embed.weight" and spec.tied:
                weights += stored  # as the embedding kernel reads it, and packed for the head
        width, (chunk, _) = FLOAT_BITS[options.float_type] // 8, step_sizes(options.context)
        program += _experts(spec) * _EXPERT_BYTES
        program += sum(head_dim * options.context * width for _, head_dim in spec.ropes)
        widest = max(
            3 * inner_size(layer.ffn)
            + 2 * mixer_size(layer.mixer, spec.hidden)
            + 2 * (spec.hidden + layer.reads(spec.hidden))
            for layer in spec.layers
        )
        scanned = [layer.mixer for layer in spec.layers if set(WIDE_STATES) & set(layer.states(spec.hidden))]
        rows = max((mixer_size(mixer, spec.hidden) for mixer in scanned), default=0)  # float32
        activations = chunk * (widest * width + rows * 4) + 2 * spec.vocab * width
        return MemoryPlan(program, weights, _cache_bytes(spec, options), activations, _RUNTIME_BYTES)

    def remarks(self, spec: DecoderSpec, options: ProgramOptions) -> Sequence[str]:
        if options.delegate in _AHEAD:
            return (
                f"{options.delegate} programs take one token a step and are built, not run here; operators that the "
                "delegate does not take are listed in the manifest",
            )
        attentions = _attentions(spec)
        capped = sum(attention.softcap is not None for attention in attentions)
        rings = sum(capacity(attention.window, options.context) < options.context for attention in attentions)
        experts, scans = _experts(spec), sum(any(name in WIDE_STATES for name in names) for names in _states(spec))
        outside = "embedding"
        if attentions:
            outside = (
                f"embedding, cache updates and attention of {len(attentions) - capped} layers (llama::update_cache, "
                "llama::custom_sdpa)"
            )
        found = [f"XNNPACK runs {len(spec.layers) + 1} subgraphs; CPU kernels outside it: {outside}"]
        if capped:
            found.append(f"attention of {capped} layers has a soft cap and reads its whole cache every step")
        if experts:
            found.append(
                f"{experts} experts are XNNPACK subgraphs of their own, each run for the tokens that go to it; "
                "portable kernels choose them (aten::topk, aten::index_select)"
            )
        if scans:
            found.append(
                f"{scans} layers have a recurrence: a loop calls a subgraph for each token, or for blocks of them "
                "(Mamba-2), in float32"
            )
        if spec.recurrent:
            found.append(
                "states: a call of the program begins at 0, where the last one ended, or where the last of several "
                "tokens began, and fails elsewhere"
            )
        if rings:
            found.append(f"{rings} layers keep a ring of their sliding window instead of the whole context")
        return found

    def convert(self, model: Model, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        try:
            import torch  # noqa: F401
        except ModuleNotFoundError:
            raise MissingExtraError("torch", "executorch") from None
        wheel_folder()
        if options.delegate in _AHEAD:
            return self._convert_ahead(model, options, folder, progress)

        from .data import DataFile
        from .decoder import DecoderProgram
        from .program import ProgramFile

        with DataFile(folder / f"{MODEL_FILE}.data", repeats=model.spec.repeats > 1) as data:
            file = ProgramFile(data)
            decoder = DecoderProgram(file, model, options)
            with progress.stage("Building the ExecuTorch program", len(model.spec.layers)) as stage:
                for _ in decoder.emit():
                    stage.advance()
            facts = _facts(model, options.context)
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

    def _convert_ahead(self, model: Model, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        from .ahead import compile_ahead

        assert options.delegate is not None
        facts = _facts(model, options.context) | {"enable_dynamic_shape": False, "get_step_len": 1}
        half = options.float_type == "float16"
        path = folder / MODEL_FILE
        made = compile_ahead(model, options.delegate, options.context, half, facts, path, progress)
        return Program(
            MODEL_FILE,
            {"delegate": options.delegate, "methods": facts, "delegated": made.delegated, "portable": made.portable},
            {"executorch": version()},
            not_run=self.elsewhere({"delegate": options.delegate}),
        )

    def open(self, main: Path, context: int, threads: int | None = None) -> Session:
        from .wheel import load_runtime

        load_runtime()
        from .session import ExecuTorchSession

        return ExecuTorchSession(main, context, threads)

    def text_runner(self, main: Path, tokenizer: Path) -> TextRunner:
        from .runner import ExecuTorchRunner

        return ExecuTorchRunner(main, tokenizer)

    def elsewhere(self, facts: Mapping[str, Any]) -> str | None:
        delegate = facts.get("delegate")
        return f"built for {delegate}, not run here" if delegate in _AHEAD else None

    def verify_programs(self, folder: Path, files: Mapping[str, int]) -> None:
        from .verifying import check_program

        for name in sorted(files):
            if name.endswith(".pte"):
                check_program(folder / name)

    def refused_tokenizer(self, definition: str) -> str | None:
        from .runner import refused_tokenizer

        return refused_tokenizer(definition)


def _facts(model: Model, context: int) -> dict[str, bool | int | Sequence[int]]:
    """What ExecuTorch's runners ask a program (extension/llm/runner/constants.h), and our own session."""
    windows = [attention.window for attention in _attentions(model.spec)]
    facts: dict[str, bool | int | Sequence[int]] = {
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": True,
        "enable_dynamic_shape": True,
        "get_max_seq_len": context,  # of a call; less than the context stands for a ring, whose answers do not end
        "get_max_context_len": context,
        "get_step_len": step_sizes(context)[0],
        "get_vocab_size": model.spec.vocab,
        "get_rewind_limit": rewind_limit(windows, context, model.spec.recurrent),
    }
    if model.tokenizer is not None:
        special = model.tokenizer.special
        if special.bos is not None:
            facts["get_bos_id"] = special.bos
        if special.stop:
            facts["get_eos_ids"] = list(special.stop)
    return facts


def _experts(spec: DecoderSpec) -> int:
    """Experts of all layers that tokens are routed to."""
    return sum(layer.ffn.experts for layer in spec.layers if isinstance(layer.ffn, Moe))


def _attentions(spec: DecoderSpec) -> list[Attention]:
    """The attention of every layer that has one."""
    return [layer.mixer for layer in spec.layers if isinstance(layer.mixer, Attention)]


def _states(spec: DecoderSpec) -> list[dict[str, tuple[int, ...]]]:
    """What every layer carries from position to position."""
    return [layer.states(spec.hidden) for layer in spec.layers]


def _cache_bytes(spec: DecoderSpec, options: ProgramOptions) -> int:
    if options.delegate in _AHEAD:  # no rings
        return kv_cache_bytes(spec, replace(options, float_type="float32"))
    total = 0
    for name, shape in (state for names in _states(spec) for state in names.items()):
        width = 32 if name in WIDE_STATES else FLOAT_BITS[options.float_type]
        total += 2 * math.prod(shape) * width // 8  # as they are, and as they were before several tokens
    for attention in _attentions(spec):
        if options.kv_bits is None:
            token = attention.kv_heads * head_width(attention) * FLOAT_BITS[options.float_type] // 8
        else:
            token = attention.kv_size + attention.kv_heads * 5  # a scale and a zero point for each head
        total += 2 * token * capacity(attention.window, options.context)
    return total


CONVERTER = ExecuTorchConverter()
