"""Who uses edgesdk from Python has its types: mypy finds a wrong call in a program of theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed")
PROGRAM = """\
import edgesdk

manifest = edgesdk.export("smollm2-135m", "linux-x86_64", "bundle", recipe="w4g32")
edgesdk.export("smollm2-135m", "linux-x86_64", "bundle", recipe=4)
with edgesdk.open_bundle("bundle") as bundle:
    answer: int = edgesdk.Chat(bundle).ask("What?")
"""


def test_a_wrong_call_is_found(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [line.partition(": error: ")[0] for line in found] == ["program.py:4", "program.py:6"], done.stdout
    assert 'Argument "recipe" to "export"' in found[0] and "assignment" in found[1]
