"""Boards whose Python cannot start the runner are refused before a byte of the bundle goes over."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgesdk.bundle import open_bundle
from edgesdk.devices import DeviceError, Settings
from edgesdk.devices.local import LocalDevice
from edgesdk.devices.runner.start import running


def _said(folder: Path, python: str, bundle: Path) -> DeviceError:
    device = LocalDevice("board", Settings("local", store=str(folder / "store"), python=python))
    with open_bundle(bundle, check=False) as opened, pytest.raises(DeviceError) as failure, running(device, opened):
        pass
    assert not [path for path in (folder / "store").rglob("*") if path.is_file()]
    return failure.value


def _program(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_no_python(tmp_path: Path, bundle: Path) -> None:
    assert "has no Python that starts as '/nowhere/python'" in _said(tmp_path, "/nowhere/python", bundle).message


def test_an_old_python(tmp_path: Path, bundle: Path) -> None:
    python = _program(tmp_path / "python", "echo @python 3.6")
    assert "is Python 3.6, and the runner needs 3.8 or later" in _said(tmp_path, python, bundle).message


def test_a_python_without_the_runtime(tmp_path: Path, bundle: Path) -> None:
    python = _program(tmp_path / "python", f'exec "{sys.executable}" -I -S "$@"')  # without what is installed
    failure = _said(tmp_path, python, bundle)
    assert "has no onnxruntime" in failure.message
    assert "pip install onnxruntime" in str(failure.hint)
