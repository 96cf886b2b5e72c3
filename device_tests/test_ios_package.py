"""The Swift package, built by SwiftPM and run on this machine over a double of ExecuTorch's Swift API.

The double drives ExecuTorch's real text runner and runtime on real tiny models; Apple's own frameworks are doubles too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgesdk.bundle import open_bundle
from edgesdk.errors import EdgeError
from edgesdk.package import package
from edgesdk.profile.from_app import profile_from_app
from edgesdk.runner_lines import opened
from edgesdk.signing.signature import sign

from .android import chain
from .ios import swift
from .lab.host import LabUnavailableError
from .signatures import Owners, copied

_OWN = Path(__file__).parent
_ENDLESS = ((b":", b"la", b"lo", b"lu", b"la"), (b"A", b"</s>"))
_UPSTREAM = re.compile(r'\.package\(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1\.5\.\d+"\)')


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the tests in Swift print."""
    try:
        root = swift.toolchain()
    except LabUnavailableError as error:
        pytest.skip(f"{error.message} ({error.hint})")
    folder = tmp_path_factory.mktemp("swift")
    owners = Owners(folder / "owners")
    for name, sayings in (("model", chain.SAYINGS), ("endless", _ENDLESS)):
        bundle = chain.chain_bundle(folder / f"{name}-bundle", sayings=sayings, target="ios-arm64")
        sign(bundle, owners.a, 5)
        package(bundle, "ios", folder / name, options={"key": owners.public_a})
    with chain.as_a_ring():
        ring = chain.chain_bundle(folder / "ring-bundle", sayings=_ENDLESS, target="ios-arm64")
    sign(ring, owners.a, 5)
    package(ring, "ios", folder / "ring", options={"key": owners.public_a})
    _attacked(folder, owners)
    shutil.copytree(_OWN / "ios" / "doubles" / "executorch", folder / "executorch")
    manifest = folder / "model" / "EdgeModel" / "Package.swift"
    replaced, count = _UPSTREAM.subn('.package(path: "../../executorch")', manifest.read_text(encoding="utf-8"))
    assert count == 1
    manifest.write_text(replaced, encoding="utf-8")
    shutil.copytree(
        _OWN / "ios" / "Tests", folder / "model" / "EdgeModel" / "Tests" / "EdgeModelTests", dirs_exist_ok=True
    )
    try:
        tests = swift.build(root, folder, "model/EdgeModel")
    except EdgeError as error:
        pytest.fail(error.message)
    environment = {
        "EDGESDK_TEXT_RUNNER": f"{sys.executable}\t{_OWN / 'android' / 'runner.py'}",
        "EDGESDK_MODULE": f"{sys.executable}\t{_OWN / 'ios' / 'module.py'}",
        "EDGESDK_MODEL": str(folder / "model" / "Model"),
        "EDGESDK_ENDLESS_MODEL": str(folder / "endless" / "Model"),
        "EDGESDK_RING_MODEL": str(folder / "ring" / "Model"),
        "EDGESDK_ATTACKED_MODELS": str(folder / "attacked"),
        "EDGESDK_ED25519": f"{sys.executable}\t{_OWN / 'ios' / 'ed25519.py'}",
    }
    done = subprocess.run(
        swift.test_command(root, tests), env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    failures = [line for line in done.stdout.splitlines() if "error:" in line or "failed" in line]
    assert done.returncode == 0, "\n".join(failures) or done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def _attacked(folder: Path, owners: Owners) -> None:
    """Copies of the model that the package was made for, each changed in one way."""
    for name, attack in owners.attacks("model.pte").items():
        tree = copied(folder / "model-bundle", folder / "attacked" / name)
        attack(tree)
        shutil.copy(folder / "model" / "Model" / "chat.json", tree)


def test_it_builds_and_behaves(said: str) -> None:
    executed = [int(number) for number in re.findall(r"Executed (\d+) tests, with 0 failures", said)]
    assert max(executed) >= 21
    assert ": warning:" not in said


def test_its_benchmark_becomes_a_profile(said: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    lines = re.findall(r"^LINE (.*)$", said, re.MULTILINE)
    events = [opened(line.encode()) for line in lines]
    names = [event["event"] for event in events if event["event"] not in ("sensors", "memory")]
    assert names == ["hello", "load", "left_out", *["run", "prefill", *["token"] * 4, "done"] * 3, "end"]
    stamps = [event["at"] for event in events if "at" in event]
    assert stamps == sorted(stamps)
    folder = tmp_path_factory.getbasetemp() / "profiled"
    folder.mkdir()
    (folder / "result.jsonl").write_text("".join(f"{line}\n" for line in lines))
    bundle = next(tmp_path_factory.getbasetemp().glob("swift*/model-bundle"))
    with open_bundle(bundle) as opened_bundle:
        made = profile_from_app(opened_bundle, folder / "result.jsonl", folder / "profile.json")
    (case,) = made.cases
    assert (case.prompt_tokens, made.device.os, made.runner) == (5, "ios", "ios app")
    rate = case.latency.values["decode_rate"]
    assert rate.value is not None and len(rate.each) == 2
