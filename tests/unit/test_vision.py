"""The oracle of vision-language models: transformers' own implementation, with tiny random configurations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import edgesdk
from edgesdk.cli import edgesdk as cli
from edgesdk.compress.base import Setting
from edgesdk.compress.others import rounded
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import CONVERTERS, ProgramOptions, kind_converter
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
from .family_rows import save_tokenizer

CONTEXT, VOCAB, IMAGE_TOKEN, SIZE = 64, 96, 90, 24
_TEXT = {
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 4,
}


@dataclass(frozen=True)
class Row:
    """A family's variant."""

    name: str
    config: str
    changes: dict[str, Any] = field(default_factory=dict)


ROWS = [
    Row("smolvlm", "SmolVLMConfig"),
    Row("smolvlm-tied", "SmolVLMConfig", {"tie_word_embeddings": True}),
    Row("idefics3", "Idefics3Config", {"scale_factor": 3}),
]
_RANDOM = np.random.default_rng(7)
PIXELS = _RANDOM.standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A checkpoint, opened by edgesdk, a prompt with two images, transformers' logits and its greedy answer."""

    network: Any
    model: VisionModel
    ids: list[int]
    wanted: np.ndarray
    answer: list[int]


def save_vision(row: Row, folder: Path) -> Any:
    import transformers

    torch.manual_seed(3)
    values = {"text_config": _TEXT, "vision_config": _VISION, "image_token_id": IMAGE_TOKEN, "scale_factor": 2}
    config = getattr(transformers, row.config)(**values | row.changes)
    network = transformers.AutoModelForImageTextToText.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            # The initial weights are too alike to show a mistake: norms at a constant, biases at zero, small matrices.
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.mul_(4)
    network.save_pretrained(folder)
    save_tokenizer(folder, VOCAB)
    return network


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
    return Case(network, model, ids, wanted, answer)


def shown(session: VisionSession) -> VisionSession:
    session.reset()
    for image in PIXELS:
        session.show(image)
    return session


def check(session: VisionSession, case: Case, tolerance: float) -> None:
    """All at once; in uneven chunks that cut through an image, with a rewind; and the greedy answer."""
    ids, wanted = case.ids, case.wanted
    assert np.abs(shown(session).score(ids) - wanted).max() < tolerance
    shown(session)
    found = [session.score(ids[:10]), session.score(ids[10:28])]
    session.rewind(19)  # into the first image
    found = [found[0][:9], session.score(ids[9:25]), session.score(ids[25:])]
    assert np.abs(np.concatenate(found) - wanted).max() < tolerance
    shown(session)
    logits, answer = session.prefill(ids), []
    for _ in case.answer:
        answer.append(int(logits.argmax()))
        logits = session.decode(answer[-1])
    assert answer == case.answer


def test_reference_equals_transformers(case) -> None:
    session = VisionReference(case.model, CONTEXT)
    with torch.no_grad():
        features = case.network.model.get_image_features(torch.from_numpy(PIXELS).unsqueeze(0)).pooler_output
    found = np.concatenate([session.show(image) for image in PIXELS])
    assert np.abs(found - torch.cat(list(features)).numpy()).max() < 1e-4
    check(session, case, 1e-4)


def test_program_equals_transformers(case, tmp_path) -> None:
    converter = kind_converter("onnx", VISION, "a test")
    program = converter.convert(case.model, ProgramOptions(CONTEXT, "float32", 32), tmp_path, SILENT)
    session = converter.open(tmp_path / program.main, CONTEXT, threads=2)
    assert (session.image_size, session.image_rows, session.image_token) == (
        SIZE,
        case.model.spec.image.rows,
        IMAGE_TOKEN,
    )
    check(session, case, 1e-3)


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
        answer = viewer.ask(" ".join(prompt), list(PIXELS), max_tokens=len(case.answer))
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
            viewer.ask(" ".join(prompt), [PIXELS[0]])
    shown = CliRunner().invoke(cli, ["run", str(tmp_path / "b"), "w5"])
    assert "shows no images" in str(shown.exception)


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
