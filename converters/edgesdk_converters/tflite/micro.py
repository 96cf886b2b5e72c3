"""TFLite-Micro: ``model.tflite`` for microcontrollers, with every static trap of its kernels refused at export.

Products with weights take integers on measured scales; everything between them is float32. In the int8 programs the
inner values of the MLP are int16, since they have outliers. Perplexity of stories260K in TFLM's own kernels (context
256, float 3.4075): int8 3.44 (3.49 with an int8 MLP), int16 3.41, int16 with an int8 cache 3.43; graphs in integers
throughout, as the stock tools make them, have 3.51 (int8) and 3.44 (int16).

4-bit rows (w4) are decoded to int8 before each product: int8 3.91, int16 with an int8 cache 3.86, and a file of 261,504
bytes for 371,056. Decoded in the arena, stories260K needs 177,728 bytes on the host (int8, context 256); alternate
decompression memory leaves 176,160 and wants 11,008 for itself, since most of the arena is free while a product runs.

int16 with an int8 cache needs the smallest arena: TFLM keeps 8 bytes for each row of an int8 matrix that has scales for
its rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.compress.base import Limits
from edgesdk.converter import MemoryPlan, OnDevice, Program, ProgramOptions
from edgesdk.errors import BundleError, EdgeError, MissingExtraError, RecipeError, TargetError
from edgesdk.estimate import refuse_features, refuse_schemes
from edgesdk.model.spec import is_linear
from edgesdk.model.tensors import QuantizedTensor

from .convert import BUILDS, MODEL_FILE, program_bytes, refuse_large, refuse_shapes

if TYPE_CHECKING:
    from edgesdk.compress.recipe import Recipe
    from edgesdk.model import DecoderSpec, Model
    from edgesdk.progress import Progress
    from edgesdk.session import Session, TextRunner
    from edgesdk.targets import Target

    from .decoder import DecoderGraph
    from .graph import Value
    from .numerics import Arithmetic, Numerics, Range

MARGIN = 1.1  # the host's arena figure lies up to 4 % below the device's
_WIDTH = {"float": 4, "int8": 1, "int16": 2}
_ARITHMETIC: Mapping[int, Arithmetic] = {8: "int8", 16: "int16", 32: "float"}
_DECODE_BYTES = 250  # of a DECODE operator and its tensors
_NODES, _NODE_BYTES = 57, 200  # operators of a layer, and what TFLM keeps of each on the host, tensors included


class TfliteMicro:
    """Programs for TFLite-Micro: float32, or weights of 8 or 4 bits with int8 or int16 activations."""

    name = "tflm"
    on_device: OnDevice | None = None  # a firmware does

    def limits(self, delegate: str | None = None) -> Limits:
        return Limits(signed_scales=False, grouped_bytes=False, zero_points=False, grouped_nibbles=False)

    def check(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions, target: Target) -> None:
        if options.float_type != "float32":
            raise TargetError(f"TFLite-Micro computes in float32, not {options.float_type}")
        refuse_features(spec, BUILDS, self.name)
        refuse_schemes(spec, recipe, target, static=True)
        packed = [name for name in spec.tensors() if (grid := recipe.grid(name)) and grid[0] < 16]
        for name in packed:
            bits, group = recipe.grid(name) or (0, 0)
            if bits < 8 and group:
                raise RecipeError(
                    f"TFLite-Micro's products take one scale a row, but recipe {recipe.name} makes {name} {bits}-bit "
                    f"in groups of {group}",
                    hint="use w4 (embedding and head in 8 bits), or w8",
                )
        if options.activations == 32 and any(map(is_linear, packed)):
            raise RecipeError(
                "TFLite-Micro has no kernel for int8 weights with float activations",
                hint="leave out -a32, use -a16, or leave the weights float (recipe none)",
            )
        for layer in spec.layers:
            if layer.mlp.activation == "gelu":
                raise TargetError(
                    "the model's activation needs the operator GELU (erf), which TFLite-Micro does not have",
                    hint="a LiteRT target runs it (edgesdk targets); gelu_tanh, silu and relu work here",
                )
        refuse_shapes(spec)
        refuse_large(self.plan(spec, recipe, options))

    def plan(self, spec: DecoderSpec, recipe: Recipe, options: ProgramOptions) -> MemoryPlan:
        """Weights stay in flash, inside the program; the rest together is about the arena."""
        packed = any(is_linear(name) and (recipe.grid(name) or (16, 0))[0] < 16 for name in spec.tensors())
        linear, attention = _arithmetic(packed, options)
        width = _WIDTH[attention]
        caches = sum(2 * layer.attention.kv_size * options.context * width for layer in spec.layers)
        copies = max(layer.attention.kv_size for layer in spec.layers) * options.context * width
        rows = sum(shape[0] for name, shape in spec.tensors().items() if len(shape) == 2)
        kept = _NODES * _NODE_BYTES * len(spec.layers) + (8 * rows if linear == "int8" else 0)
        shapes = [shape for name, shape in spec.tensors().items() if (recipe.grid(name) or (16, 0))[0] < 8]
        copies = max(copies, *map(math.prod, shapes)) if shapes else copies  # a decoded matrix, and no cache's copy
        kept += _DECODE_BYTES * len(shapes)
        scales = 10 * sum(shape[0] for shape in shapes)
        tables = 2052 * len(spec.layers) if attention == "int16" else 0
        return MemoryPlan(program_bytes(spec, recipe, options) + scales, 0, caches, copies + kept + tables, 0)

    def remarks(self, spec: DecoderSpec, options: ProgramOptions) -> Sequence[str]:
        return ("a prompt is read token by token: TFLite-Micro runs one graph",)

    def convert(self, model: Model, options: ProgramOptions, folder: Path, progress: Progress) -> Program:
        try:
            import tflite_micro
        except ModuleNotFoundError as failure:
            raise MissingExtraError(failure.name or "tflite_micro", "tflm") from None
        from .arena import arena_bytes
        from .format import read_file
        from .lint import refuse_clipped, require_clean

        numerics = self._numerics(model, options, progress)
        decoder = self._emit(model, options, numerics)
        path = folder / MODEL_FILE
        with progress.stage("Writing the TFLite-Micro program"):
            decoder.graph.write(path)
            file = read_file(path)
            require_clean(file)
            refuse_clipped(file, numerics.ranges)
        with progress.stage("Measuring the arena"):
            measured = arena_bytes(path)
        facts = {
            "arena_bytes": math.ceil(measured * MARGIN / 16) * 16,
            "arena_host_bytes": measured,
            "activations": numerics.linear,
            "caches": numerics.attention,
            "operators": decoder.graph.operators,
            "inputs": [_described(index, value) for index, value in enumerate(decoder.graph.inputs)],
            "outputs": [_described(index, value) for index, value in enumerate(decoder.graph.outputs)],
        }
        tools = {"ai-edge-litert": metadata.version("ai-edge-litert"), "tflite-micro": tflite_micro.__version__}
        return Program(MODEL_FILE, facts, tools)

    def open(self, main: Path, context: int, threads: int | None = None) -> Session:
        from .format import read_file

        file = read_file(main)  # TFLM itself would follow a wrong offset
        try:
            from .session import MicroSession

            return MicroSession(file)
        except ModuleNotFoundError as failure:
            raise MissingExtraError(failure.name or "tflite_micro", "tflm") from None
        except RuntimeError as failure:
            raise BundleError(f"{main}: TFLite-Micro does not run it ({failure})", hint="export it again") from None

    def text_runner(self, main: Path, tokenizer: Path) -> TextRunner:
        raise EdgeError("TFLite-Micro has no text runner of its own", hint="run without --runner")

    def _numerics(self, model: Model, options: ProgramOptions, progress: Progress) -> Numerics:
        from .calibrate import measure
        from .numerics import Numerics

        weights = (model.weights.get(name) for name in model.spec.tensors() if is_linear(name))
        linear, attention = _arithmetic(any(isinstance(each, QuantizedTensor) for each in weights), options)
        ranges: Mapping[str, Range] = {}
        if (linear, attention) != ("float", "float"):
            ranges = measure(model, options.context, progress, observer=options.observer)
        return Numerics(linear, attention, ranges)

    def _emit(self, model: Model, options: ProgramOptions, numerics: Numerics) -> DecoderGraph:
        from .decoder import DecoderGraph

        decoder = DecoderGraph(model, options.context, numerics)
        for _ in decoder.emit():
            pass
        return decoder


def _arithmetic(packed: bool, options: ProgramOptions) -> tuple[Arithmetic, Arithmetic]:
    """Of the products with weights, and of attention: without packed weights, everything is float unless asked."""
    linear = _ARITHMETIC[options.activations] if packed else "float"
    return linear, linear if options.kv_bits is None else _ARITHMETIC[options.kv_bits]


def _described(index: int, value: Value) -> dict[str, Any]:
    """What a firmware needs to know of an input or output."""
    found: dict[str, Any] = {"index": index, "name": value.name, "type": value.kind, "shape": list(value.shape)}
    if value.grid is not None:
        found |= {"scale": value.grid.scale, "zero_point": value.grid.zero}
    return found


TFLM = TfliteMicro()
