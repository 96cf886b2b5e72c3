"""Firmware of the TensorFlow Lite Micro form in QEMU: the host wheel's tokens, its logits bit for bit.

TensorFlow Lite Micro's sources are the user's: EDGESDK_TFLM_DIR names a tree as create_tflm_tree.py writes it. Building
it takes minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgesdk
from edgesdk.runner_lines import tokens_command

from .cortex_m.lab import TOOLS, build, running
from .test_cortex_m import COUNT, EXAMPLE, M4F, expected, said

SOURCES = os.environ.get("EDGESDK_TFLM_DIR")
missing = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}"),
    pytest.mark.skipif(SOURCES is None, reason="EDGESDK_TFLM_DIR does not name TensorFlow Lite Micro's sources"),
]
pytest.importorskip("tflite_micro", reason="needs tflite-micro: pip install 'edgesdk[tflm]'")


def test_the_firmware_gives_the_wheels_logits(tmp_path) -> None:
    tiny, folder = tmp_path / "tiny", tmp_path / "work" / "bundle"
    folder.parent.mkdir()
    subprocess.run([sys.executable, EXAMPLE, "--quick", "--out", tiny], check=True, capture_output=True)
    manifest = edgesdk.export(
        str(tiny), "cortex-m4f", folder, recipe="w8", context=128, delegate="tflm", checks=edgesdk.Checks(skip=True)
    )
    with edgesdk.open_bundle(folder) as bundle:
        session = edgesdk.open_session(bundle)
    prompt = list(range(1, 30))
    elf = build(folder / "firmware", M4F, f"-DTFLM_DIR={Path(str(SOURCES)).resolve()}")
    with running(elf, M4F) as runner:
        hello = runner.event()
        assert hello["runner"] == "edgesdk-tflm"
        assert 0 < hello["ram"] <= manifest.program.facts["arena_bytes"]
        events = runner.answer(tokens_command(prompt, new_tokens=COUNT))
    assert said(events) == expected(session, prompt, COUNT)[: len(said(events))]
    assert len(said(events)) == COUNT or events[-1]["stop"] == "eos"
