"""Importing edgesdk and asking for help is quick and loads no heavy library."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "onnx", "onnx_ir", "onnxruntime", "transformers", "numpy", "pydantic", "rich", "tokenizers", "gguf")


@pytest.mark.parametrize("code", ["import edgesdk", "from edgesdk.cli import run; run(['--help'])"])
def test_nothing_heavy_is_loaded_and_it_is_quick(code: str) -> None:
    check = f"{code}\nimport sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    times = []
    for _ in range(5):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - started)
        assert done.stdout.splitlines()[-1] == "[]"
    assert min(times) < 0.3


def test_every_public_name_resolves() -> None:
    import edgesdk

    for name in edgesdk.__all__:
        assert getattr(edgesdk, name) is not None
    assert len(edgesdk.__all__) < 24
    assert callable(edgesdk.export)
    assert callable(edgesdk.generate)
