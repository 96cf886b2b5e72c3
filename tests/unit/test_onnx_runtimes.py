"""The ONNX Runtime that a program asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesdk.converter import CONVERTERS, ProgramOptions
from edgesdk.progress import SILENT

from .family_cells import opened
from .family_rows import CONTEXT, ROWS


@pytest.mark.parametrize(
    ("family", "versions"),
    [
        ("llama", ">=1.23,<2"),
        ("gpt2", ">=1.23,<2"),
        ("mistral-window", ">=1.24,<2"),
        ("gemma3", ">=1.24,<2"),
        ("mamba", ">=1.30,<2"),
        ("qwen3_next", ">=1.32,<2"),
        ("mixtral", ">=1.32,<2"),
    ],
)
def test_a_program_asks_for_what_its_operators_need(family: str, versions: str, tmp_path: Path) -> None:
    (row,) = (row for row in ROWS if row.name == family)
    (folder := tmp_path / "checkpoint").mkdir()
    model = opened(row, folder).model
    program = CONVERTERS.get("onnx").convert(model, ProgramOptions(CONTEXT, "float32", 32), tmp_path, SILENT)
    assert program.runtime is not None
    assert (program.runtime.name, program.runtime.versions) == ("onnxruntime", versions)
