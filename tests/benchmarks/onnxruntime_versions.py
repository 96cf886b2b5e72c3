"""Every family on older versions of ONNX Runtime: what a program asks for is enough, or a test fails here.

    python -m tests.benchmarks.onnxruntime_versions 1.23.2 1.24.4 1.30.0

fetches each version beside the installed one and runs the families' tests on it. Tests whose program asks for a later
version are skipped, and counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

FILES = ("families", "onnx_exact", "encoders", "seq2seq", "vision", "adapters", "speculative", "quantized_models")


def pytest_configure(config: pytest.Config) -> None:
    """As a plugin: skip what asks for another version than the one that runs."""
    from edgesdk_converters.onnx.convert import OnnxConverter
    from edgesdk_converters.onnx.encoder_convert import OnnxEncoders
    from edgesdk_converters.onnx.seq2seq_convert import OnnxSeq2Seqs
    from edgesdk_converters.onnx.vision_convert import OnnxVisions

    for each in (OnnxConverter, OnnxEncoders, OnnxSeq2Seqs, OnnxVisions):
        each.convert = _checked(each.convert)  # type: ignore[method-assign]


def _checked(convert: Any) -> Any:
    from onnxruntime import __version__
    from packaging.specifiers import SpecifierSet

    def convert_or_skip(*arguments: Any) -> Any:
        program = convert(*arguments)
        if not SpecifierSet(program.runtime.versions).contains(__version__):
            pytest.skip(f"needs ONNX Runtime {program.runtime.versions}")
        return program

    return convert_or_skip


def main(versions: list[str]) -> int:
    """Run the tests on each version; how many versions failed."""
    failed = 0
    tests = [f"tests/unit/test_{name}.py" for name in FILES]
    for version in versions:
        with tempfile.TemporaryDirectory() as folder:
            fetched = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, f"onnxruntime=={version}"]
            subprocess.run([sys.executable, *fetched], check=True)
            options = ["-q", "-n", "2", "-r", "fE", "-p", "tests.benchmarks.onnxruntime_versions"]
            chosen = ["-k", "not tflite and not executorch and not tflm"]
            environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{Path.cwd()}", "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *options, *chosen, *tests],
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                check=False,
            )
        lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        print(f"{version}: {done.stdout.splitlines()[-1]}", *lines, sep="\n  ", flush=True)
        failed += done.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
