"""Cells of the support matrix: one tiny checkpoint in one runtime with one scheme, and what came of it.

A cell is proven by its test, or refused by the converter before any work: the test then is that it is refused, and the
reason is kept. Where ``EDGESDK_MATRIX`` names a folder, every result is appended there as one JSON line;
``python -m tests.family_matrix`` makes the support matrix of them. Decoders' own cells are in :mod:`family_cells`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgesdk.compress.base import Setting
from edgesdk.compress.others import rounded
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import CONVERTERS, ProgramOptions, kind_converter
from edgesdk.errors import EdgeError
from edgesdk.progress import SILENT
from edgesdk.targets import FloatType, open_target

TARGETS = {
    "onnx": "linux-x86_64",
    "executorch": "host",
    "tflite": "litert-arm64",
    "tflm": "cortex-m4f",
    "cortex_m": "cortex-m4f",
}
#: For parametrized tests: float types that a runtime is tried with, and how far it may be off; then packed schemes.
FLOATS = [(runtime, "float32", 1e-3) for runtime in ("onnx", "executorch", "tflite", "cortex_m")]
FLOATS += [(runtime, "float16", 5e-2) for runtime in ("onnx", "executorch")]
PACKED = [(runtime, scheme) for runtime in ("onnx", "executorch") for scheme in ("w8", "w4g32")]


@torch.no_grad()
def spread(network: torch.nn.Module) -> None:
    """Make initial weights that are too alike to show a mistake unlike: norms at a constant, small matrices."""
    for parameter in network.parameters():
        if parameter.dim() == 1:
            parameter.add_(0.2 * torch.randn_like(parameter))
        else:
            parameter.mul_(4)


def record(kind: str, family: str, variant: str, runtime: str, scheme: str, **result: object) -> None:
    """Append a cell to the results."""
    folder = os.environ.get("EDGESDK_MATRIX")
    if not folder:
        return
    cell = {"kind": kind, "family": family, "variant": variant, "runtime": runtime, "scheme": scheme}
    Path(folder).mkdir(parents=True, exist_ok=True)
    with (Path(folder) / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(cell | result) + "\n")


@dataclass(frozen=True)
class Other:
    """A saved tiny checkpoint of a model that is no decoder, opened by edgesdk.

    Attributes:
        kind: by the names of :mod:`edgesdk.kinds`.
        name: of its row.
        model: as it was opened.
        context: of its programs.
    """

    kind: str
    name: str
    model: Any
    context: int

    def record(self, runtime: str, scheme: str, **result: object) -> None:
        record(self.kind, self.model.spec.family, self.name, runtime, scheme, **result)

    def reference(self, difference: float) -> None:
        """The reference model's cell."""
        self.record("reference", "float32", difference=difference, passed=difference < 1e-4)
        assert difference < 1e-4

    def refusal(self, runtime: str, scheme: str, options: ProgramOptions) -> str | None:
        """Why a converter refuses the model before any work, or None."""
        try:
            converter = kind_converter(runtime, self.kind, self.model.spec.family)
            converter.check(self.model.spec, open_recipe(scheme), options, open_target(TARGETS[runtime]))
        except EdgeError as failure:
            return str(failure)
        return None

    def float_cell(
        self, runtime: str, float_type: FloatType, tolerance: float, folder: Path, difference: Callable[[Any], float]
    ) -> None:
        """The runtime gives transformers' answers with float weights, or refuses the model by name."""
        options = ProgramOptions(self.context, float_type, 32)
        if not self._refused(runtime, float_type, "none", options):
            found = difference(self._session(runtime, self.model, options, folder))
            self.record(runtime, float_type, difference=found, passed=found < tolerance)
            assert found < tolerance

    def packed_cell(self, runtime: str, scheme: str, folder: Path, error: Callable[[Any, Any], float]) -> None:
        """The runtime, with int8 activations, follows the float reference over the same integers.

        ``error`` is given the model as it was rounded and the session; it says a share of the answers' spread.
        """
        options = ProgramOptions(self.context, "float32", 8)
        if not self._refused(runtime, scheme, scheme, options):
            (folder / "scratch").mkdir()
            setting = Setting(folder / "scratch", SILENT, CONVERTERS.get(runtime).limits())
            packed, _ = rounded(self.model, open_recipe(scheme), setting)
            found = error(packed, self._session(runtime, packed, options, folder))
            self.record(runtime, scheme, error=found, passed=found < 0.2)
            assert found < 0.2

    def _session(self, runtime: str, model: Any, options: ProgramOptions, folder: Path) -> Any:
        converter = kind_converter(runtime, self.kind, self.name)
        program = converter.convert(model, options, folder, SILENT)
        return converter.open(folder / program.main, self.context, threads=2)

    def _refused(self, runtime: str, scheme: str, recipe: str, options: ProgramOptions) -> bool:
        reason = self.refusal(runtime, recipe, options)
        if reason is not None:
            self.record(runtime, scheme, refused=reason)
            assert "does not build" in reason or ("float32" in reason and scheme == "float16"), reason
        return reason is not None
