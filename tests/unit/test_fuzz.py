"""The fuzzer for a moment on every target, and the corpus: what once ended badly, and does so no more.

``EDGESDK_FUZZ_SECONDS`` lengthens each run (60 where the time is there); 0 leaves the corpus only.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ..fuzz import native
from ..fuzz.case import Case
from ..fuzz.supervisor import fuzz
from ..fuzz.targets import TARGETS
from ..fuzz.worker import alarmed, input_of, read, verdict

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
SECONDS = float(os.environ.get("EDGESDK_FUZZ_SECONDS", "2"))
#: Opened in the runtimes' native code: a crash there ends a worker, which only the longer runs by hand take on.
NATIVE = ("bundle-onnx", "bundle-pte", "tflite")


def inputs(target: str) -> list[Path]:
    folder = CORPUS / target
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


@pytest.fixture(scope="module", params=[name for name in TARGETS if inputs(name)])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, list[Path]]:
    return TARGETS[request.param](tmp_path_factory.mktemp(request.param)), inputs(request.param)


def test_the_corpus_ends_in_clear_errors(kept: tuple[Case, list[Path]]) -> None:
    case, paths = kept
    alarmed()
    found = {path.name: verdict(case, read(path)) for path in paths}
    assert {name: place for name, place in found.items() if place is not None} == {}


@pytest.mark.parametrize("target", [name for name in TARGETS if SECONDS >= 60 or name not in NATIVE])
def test_nothing_is_found_in_a_moment(target: str, tmp_path: Path) -> None:
    if not SECONDS:
        pytest.skip("EDGESDK_FUZZ_SECONDS=0")
    outcome = fuzz(target, SECONDS, 1, tmp_path)
    assert outcome.inputs > 0
    assert outcome.findings == {}


@pytest.mark.parametrize("name", native.HARNESSES)
def test_nothing_is_found_in_the_c(name: str, tmp_path: Path) -> None:
    if native.compiler() is None:
        pytest.skip("no clang with libFuzzer (apt-get install clang)")
    if not SECONDS:
        pytest.skip("EDGESDK_FUZZ_SECONDS=0")
    outcome = native.fuzz(name, SECONDS, 1, tmp_path)
    assert outcome.inputs > 100
    assert outcome.findings == {}


def test_the_supervisor_notices_what_goes_wrong(tmp_path: Path) -> None:
    outcome = fuzz("self-test", 7, 78, tmp_path)
    assert outcome.inputs > 295
    assert {kind: len(places) for kind, places in outcome.findings.items()} == {"uncaught": 1, "crash": 1, "hang": 1}
    found = {path.name.partition("-")[0]: read(path)["word"] for path in tmp_path.glob("findings/*/*") if path.is_dir()}
    assert found == {"uncaught": b"raise", "crash": b"die", "hang": b"turn"}


def test_an_input_is_the_same_each_time(tmp_path: Path) -> None:
    case, again = (TARGETS["survey"](tmp_path) for _ in range(2))
    assert [input_of(case, 3, number) for number in range(20)] == [input_of(again, 3, number) for number in range(20)]
