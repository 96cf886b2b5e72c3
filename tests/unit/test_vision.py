"""The oracle of vision-language models: transformers' own implementation, with tiny random configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import edgesdk
from edgesdk.compress.base import Setting
from edgesdk.compress.others import rounded
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import CONVERTERS
from edgesdk.errors import EdgeError, TargetError
from edgesdk.kinds import VISION
from edgesdk.model.opening import open_any
from edgesdk.model.vision.model import VisionModel
from edgesdk.model.vision.reference import VisionReference
from edgesdk.progress import SILENT
from edgesdk.seeing import Viewer
from edgesdk.session import VisionSession
from edgesdk_converters.onnx.readback import read_packed

from ..integers import assert_carried
from .cells import FLOATS, PACKED, Other
from .vision_rows import CONTEXT, IMAGE_TOKEN, ROWS, SIZE, Row, save_vision

_RANDOM = np.random.default_rng(7)
PIXELS = _RANDOM.standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A checkpoint, opened by edgesdk, a prompt with two images, transformers' logits and its greedy answer."""

    row: Row
    network: Any
    model: VisionModel
    ids: list[int]
    wanted: np.ndarray
    answer: list[int]

    @property
    def other(self) -> Other:
        return Other(VISION, self.row.name, self.model, CONTEXT)


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    row: Row = request.param
    folder = tmp_path_factory.mktemp(row.name)
    network = save_vision(row, folder)
    model = open_any(folder)
    assert isinstance(model, VisionModel)
    words = _RANDOM.integers(3, 80, 20).tolist()
    images = [IMAGE_TOKEN] * model.spec.image.rows
    ids = [1, *words[:6], *images, *words[6:9], *images, *words[9:]]
    pixels = torch.from_numpy(PIXELS).unsqueeze(0)
    answer: list[int] = []
    with torch.no_grad():
        wanted = network(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0].numpy()
        for _ in range(6):
            logits = network(input_ids=torch.tensor([ids + answer]), pixel_values=pixels).logits[0, -1]
            answer.append(int(logits.argmax()))
    return Case(row, network, model, ids, wanted, answer)


def shown(session: VisionSession) -> VisionSession:
    session.reset()
    for image in PIXELS:
        session.show(image)
    return session


def difference(session: VisionSession, case: Case) -> float:
    """All at once; and in uneven chunks that cut through an image, with a rewind."""
    ids, wanted = case.ids, case.wanted
    whole = np.abs(shown(session).score(ids) - wanted).max()
    shown(session)
    found = [session.score(ids[:10]), session.score(ids[10:28])]
    session.rewind(19)  # into the first image
    found = [found[0][:9], session.score(ids[9:25]), session.score(ids[25:])]
    return float(max(whole, np.abs(np.concatenate(found) - wanted).max()))


def greedy(session: VisionSession, case: Case) -> list[int]:
    logits, answer = shown(session).prefill(case.ids), []
    for _ in case.answer:
        answer.append(int(logits.argmax()))
        logits = session.decode(answer[-1])
    return answer


def test_reference_equals_transformers(case) -> None:
    session = VisionReference(case.model, CONTEXT)
    with torch.no_grad():
        features = case.network.model.get_image_features(torch.from_numpy(PIXELS).unsqueeze(0)).pooler_output
    found = np.concatenate([session.show(image) for image in PIXELS])
    assert np.abs(found - torch.cat(list(features)).numpy()).max() < 1e-4
    case.other.reference(difference(session, case))
    assert greedy(session, case) == case.answer


@pytest.mark.parametrize(("runtime", "float_type", "tolerance"), FLOATS)
def test_programs_equal_transformers(case, tmp_path, runtime, float_type, tolerance) -> None:
    def checked(session: VisionSession) -> float:
        assert (session.image_size, session.image_token) == (SIZE, IMAGE_TOKEN)
        assert session.image_rows == case.model.spec.image.rows
        assert float_type != "float32" or greedy(session, case) == case.answer
        return difference(session, case)

    case.other.float_cell(runtime, float_type, tolerance, tmp_path, checked)


@pytest.mark.parametrize(("runtime", "scheme"), PACKED)
def test_programs_follow_their_integers(case, tmp_path, runtime, scheme) -> None:
    def error(model: VisionModel, session: VisionSession) -> float:
        wanted = shown(VisionReference(model, CONTEXT)).score(case.ids)
        return float(np.abs(shown(session).score(case.ids) - wanted).mean() / wanted.std())

    case.other.packed_cell(runtime, scheme, tmp_path, error)


@pytest.mark.parametrize("recipe", ["none", "w8"])
def test_a_bundle_answers_as_transformers_does(case, tmp_path, recipe) -> None:
    folder = case.model.origin.files[0].parent
    manifest = edgesdk.export(folder, "linux-x86_64", tmp_path / "b", recipe=recipe)
    assert manifest.program.facts["kind"] == VISION
    assert {"vision.onnx", "model.onnx", "model.onnx.data"} <= {entry.path for entry in manifest.files}
    prompt, at = [], 0
    while at < len(case.ids):
        prompt.append(f"w{case.ids[at]}")
        at += case.model.spec.image.rows if case.ids[at] == IMAGE_TOKEN else 1
    with edgesdk.open_bundle(tmp_path / "b") as bundle:
        viewer = Viewer(bundle, threads=2)
        answer = "".join(viewer.stream_pixels(" ".join(prompt), list(PIXELS), max_tokens=len(case.answer)))
        if recipe == "none":
            wanted = case.answer[: case.answer.index(2)] if 2 in case.answer else case.answer
            assert answer.split() == [f"w{token}" for token in wanted]
        else:
            scratch = tmp_path / "scratch"
            scratch.mkdir()
            limits = CONVERTERS.get("onnx").limits()
            compressed, _ = rounded(case.model, open_recipe(recipe), Setting(scratch, SILENT, limits))
            assert_carried(compressed, read_packed(bundle.main) | read_packed(bundle.folder / "vision.onnx"))
        with pytest.raises(EdgeError, match="1 images, but 'w90' stands 2 times"):
            viewer.stream_pixels(" ".join(prompt), [PIXELS[0]])
        with pytest.raises(EdgeError, match="no preprocessor_config"):
            viewer.ask("w5", [tmp_path / "any.png"])


def test_executorch_says_why_not(case, tmp_path) -> None:
    with pytest.raises(TargetError, match="smolvlm is a vision-language model, which the executorch converter does"):
        edgesdk.export(case.model, "host", tmp_path / "b")


def test_images_count(case) -> None:
    session = VisionReference(case.model, CONTEXT)
    session.show(PIXELS[1])
    session.show(PIXELS[0])
    assert np.abs(session.score(case.ids) - case.wanted).max() > 1e-2


def test_more_image_tokens_than_images_are_refused(case, tmp_path) -> None:
    session = VisionReference(case.model, CONTEXT)
    session.show(PIXELS[0])
    with pytest.raises(EdgeError, match="rows of images"):
        session.score(case.ids)
