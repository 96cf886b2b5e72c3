"""Bundles pushed to emulated devices and run there: the tokens are those of this machine."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesdk.bundle import open_bundle
from edgesdk.devices import DeviceError, Settings
from edgesdk.devices.adb import AdbDevice
from edgesdk.devices.local import LocalDevice
from edgesdk.devices.runner.link import answered
from edgesdk.devices.runner.native import RunnerUnavailableError
from edgesdk.devices.runner.start import running
from edgesdk.devices.shell import ShellDevice
from edgesdk.devices.ssh import SshDevice
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope

from .conftest import board_settings
from .models import Case, clear_case

SPEC = DecoderSpec("llama", 96, 64, 128, (Layer(Attention(4, 2, 16, 0.25, Rope(10000.0)), Mlp(96, "silu")),) * 2, 1e-5)
PROMPT = np.random.default_rng(7).integers(0, SPEC.vocab, 20).tolist()
COUNT = 12
TARGETS = {"onnxruntime": "linux-arm64", "executorch": "android-arm64"}


@pytest.fixture(scope="module", params=list(TARGETS))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp(request.param)
    return clear_case(SPEC, TARGETS[request.param], "w4g32", PROMPT, folder, count=COUNT, margin=0.02)


@pytest.fixture(params=["phone", "board"])
def device(request: pytest.FixtureRequest) -> ShellDevice:
    if request.param == "board":
        return SshDevice("board", board_settings(request.getfixturevalue("lab_board")))
    return AdbDevice("phone", Settings(f"adb:{request.getfixturevalue('lab_phone').serial}"))


def test_a_pushed_bundle_gives_the_hosts_tokens(device: ShellDevice, case: Case) -> None:
    with open_bundle(case.bundle) as bundle:
        try:
            with running(device, bundle, threads=1) as link:
                events = list(link.events(PROMPT, max_tokens=COUNT))
                again = list(link.events(PROMPT, max_tokens=COUNT))
                hot = [list(link.events(PROMPT, max_tokens=4, temperature=2.0, seed=seed)) for seed in (1, 1, 2, 3)]
        except RunnerUnavailableError as failure:
            pytest.skip(f"{failure.message} ({failure.hint})")
    tokens = [event["id"] for event in events if event["event"] == "token"]
    assert tokens == case.tokens == [event["id"] for event in again if event["event"] == "token"]
    assert (events[-1]["prompt_tokens"], events[-1]["new_tokens"], events[-1]["stop"]) == (20, COUNT, "length")
    assert events[-1]["peak_rss_kb"] > 10_000 and events[0]["ticks"] > 0
    assert link.load_seconds is not None and link.load_seconds > 0
    chosen = [[event["id"] for event in each if event["event"] == "token"] for each in hot]
    assert chosen[0] == chosen[1] and len({tuple(each) for each in chosen}) == 3


@pytest.fixture
def local_case(tmp_path: Path) -> Case:
    return clear_case(SPEC, "linux-x86_64", "w4g32", PROMPT, tmp_path / "models", count=COUNT, margin=0.0)


@pytest.fixture
def mine(tmp_path: Path) -> LocalDevice:
    return LocalDevice("local", Settings("local", store=str(tmp_path / "store"), python=sys.executable))


def test_a_runner_refuses_and_goes_on(mine: LocalDevice, local_case: Case) -> None:
    with open_bundle(local_case.bundle) as bundle, running(mine, bundle) as link:
        for ids, words in (([96], "0 to 95"), ([1] * 128, "takes 127 at once")):
            with pytest.raises(DeviceError, match=words):
                list(link.events(ids, max_tokens=1))
        events = link.events(PROMPT, max_tokens=100)
        while next(events)["event"] != "token":
            pass
        events.close()  # the answer is stopped, and the next one is whole
        found = [event["id"] for event in link.events(PROMPT, max_tokens=COUNT) if event["event"] == "token"]
        assert found == local_case.tokens
        full = answered(list(link.events(PROMPT, max_tokens=1000)), link.hello)
        assert (full.stop, full.new_tokens) == ("context", 128 - 20 + 1)


def test_a_device_without_the_runtime_says_so(mine: LocalDevice, local_case: Case, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    for python, words in ((str(bare), "has no onnxruntime"), (str(tmp_path / "nothing"), "not found")):
        device = LocalDevice("local", replace(mine.settings, python=python))
        with open_bundle(local_case.bundle) as bundle, pytest.raises(DeviceError, match=words), running(device, bundle):
            pass


def test_a_bundle_damaged_there_is_not_loaded(mine: LocalDevice, local_case: Case, tmp_path: Path) -> None:
    with open_bundle(local_case.bundle) as bundle:
        with running(mine, bundle):
            pass
        (file,) = (tmp_path / "store" / "bundles").glob("*/model.onnx.data")
        file.write_bytes(file.read_bytes()[:-1])
        with running(mine, bundle) as link:  # pushed again under another name, for this one may be in use
            found = [event["id"] for event in link.events(PROMPT, max_tokens=COUNT) if event["event"] == "token"]
    assert found == local_case.tokens
    assert len(list((tmp_path / "store" / "bundles").glob("*/model.onnx.data"))) == 2
