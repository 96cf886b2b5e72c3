"""Image files, from the file to the answer; the oracle is transformers' own processor and network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import edgesdk
from edgesdk.cli import edgesdk as cli
from edgesdk.errors import EdgeError, ModelError
from edgesdk.model.opening import open_any
from edgesdk.model.vision.preparing import open_image, pictures, read_preparation, said_of
from edgesdk.seeing import Viewer

from ..conftest import make_tokenizer
from .vision_rows import CONTEXT, SIZE, TEXT, Row, save_vision

FRAME = ("<around>", "<whole>", "<row_{row}_col_{column}>")
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %} answer:{% endif %}"
)
WORDS = ["<image>", "<fake_token_around_image>", "<global-img>"]
QUESTION = "what?"


def processor(**changes: Any) -> Any:
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    sizes = {"size": {"longest_edge": 3 * SIZE}, "max_image_size": {"longest_edge": SIZE}}
    return SmolVLMImageProcessorPil(**sizes | changes)


def noise(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 150), st.booleans(), st.sampled_from([SIZE, 2 * SIZE, 100]))
@example(72, 72, True, 72)
@example(150, 1, True, 72)
def test_pictures_are_those_of_transformers(tmp_path_factory, width, height, tiles, longest) -> None:
    folder = tmp_path_factory.mktemp("processor")
    theirs = processor(size={"longest_edge": longest}, do_image_splitting=tiles, image_mean=[0.4, 0.5, 0.6])
    theirs.save_pretrained(folder)
    preparation = read_preparation(folder, SIZE, *FRAME)
    assert preparation is not None and preparation.tiles == tiles
    image = noise(width, height)
    wanted = theirs([[image]], return_tensors="np", return_row_col_info=True)
    found = pictures(image, preparation, SIZE, tiles)
    assert (found.rows, found.columns) == (wanted["rows"][0][0], wanted["cols"][0][0])
    assert np.abs(np.stack(found.pixels) - wanted["pixel_values"][0]).max() < 1e-5
    assert wanted["pixel_attention_mask"].all()  # no picture is padded, so no program needs a mask


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (1, 2), (3, 2)])
def test_prompts_are_those_of_transformers(tmp_path, rows, columns) -> None:
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    from edgesdk.model.vision.preparing import Pictures

    processor().save_pretrained(tmp_path)
    preparation = read_preparation(tmp_path, SIZE, *FRAME)
    assert preparation is not None
    pixels = (np.zeros(0),) * (rows * columns + 1)
    wanted = get_image_prompt_string(rows, columns, 1, "<around>", "<image>", "<whole>")
    assert said_of(Pictures(pixels, rows, columns), preparation, "<image>") == wanted


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"do_resize": False}, "'do_resize' is false"),
        ({"max_image_size": {"longest_edge": 7}}, "pictures of 7 pixels, but the encoder reads 24"),
        ({"image_std": [0.5]}, "'image_std' must be a list of three numbers"),
        ({"resample": 9}, "no filter of Pillow"),
    ],
)
def test_other_processors_are_refused(tmp_path, changes, says) -> None:
    processor().save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match=says):
        read_preparation(tmp_path, SIZE, *FRAME)


def test_a_processor_within_a_processors_file(tmp_path) -> None:
    processor().save_pretrained(tmp_path)
    wanted = read_preparation(tmp_path, SIZE, *FRAME)
    path = tmp_path / "preprocessor_config.json"
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": json.loads(path.read_text())}))
    path.unlink()
    assert read_preparation(tmp_path, SIZE, *FRAME) == wanted != None  # noqa: E711 (it is compared with both)
    (tmp_path / "processor_config.json").unlink()
    assert read_preparation(tmp_path, SIZE, *FRAME) is None


def test_images_are_turned_as_their_camera_says(tmp_path) -> None:
    image = noise(4, 2)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise to see it
    image.save(tmp_path / "a.png", exif=exif)
    assert (np.asarray(open_image(tmp_path / "a.png")) == np.rot90(np.asarray(image), -1)).all()


@dataclass(frozen=True)
class Case:
    """A tiny checkpoint with a processor, its bundle, and an image file."""

    network: Any
    checkpoint: Path
    bundle: Path
    photo: Path


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    from tokenizers import AddedToken, Tokenizer

    folder = tmp_path_factory.mktemp("seeing")
    checkpoint = folder / "model"
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
    text = TEXT | {"vocab_size": 300, "max_position_embeddings": 600}
    row = Row("seeing", "SmolVLMConfig", {"text_config": text, "image_token_id": 259})
    network = save_vision(row, checkpoint)
    make_tokenizer(checkpoint)
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in [*WORDS, *tiles]])
    assert tokenizer.token_to_id("<image>") == 259
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    (checkpoint / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    processor().save_pretrained(checkpoint)
    noise(70, 40).save(folder / "photo.png")
    edgesdk.export(checkpoint, "linux-x86_64", folder / "bundle", recipe="none", context=600)
    return Case(network, checkpoint, folder / "bundle", folder / "photo.png")


def expected(case: Case, tiles: bool, images: int = 1, count: int = 8) -> list[int]:
    """transformers' greedy answer."""
    from tokenizers import Tokenizer
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    seen = processor(do_image_splitting=tiles)(
        [[Image.open(case.photo)] * images], return_tensors="pt", return_row_col_info=True
    )
    parts = [
        get_image_prompt_string(rows, columns, 9, "<fake_token_around_image>", "<image>", "<global-img>")
        for rows, columns in zip(seen["rows"][0], seen["cols"][0], strict=True)
    ]
    prompt = f"user:{''.join(parts)}{QUESTION} answer:"
    ids = Tokenizer.from_file(str(case.checkpoint / "tokenizer.json")).encode(prompt, add_special_tokens=False).ids
    answer: list[int] = []
    with torch.no_grad():
        while len(answer) < count:
            found = case.network(input_ids=torch.tensor([ids + answer]), pixel_values=seen["pixel_values"])
            answer.append(int(found.logits[0, -1].argmax()))
    return answer


@pytest.mark.parametrize("tiles", [False, True])
def test_the_command_answers_as_transformers_does(case, tiles) -> None:
    choice = "--tiles" if tiles else "--no-tiles"
    command = ["run", str(case.bundle), QUESTION, "--image", str(case.photo), choice, "--max-tokens", "8", "--json"]
    shown = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert json.loads(shown.stdout)["tokens"] == expected(case, tiles)


def test_tiles_are_the_checkpoints_choice_and_images_add_up(case) -> None:
    with edgesdk.open_bundle(case.bundle) as bundle:
        viewer = Viewer(bundle, threads=2)
        viewer.ask(QUESTION, [case.photo], max_tokens=8)
        assert viewer.statistics.tokens == expected(case, tiles=True)
        viewer.ask(QUESTION, [case.photo, Image.open(case.photo)], tiles=False, max_tokens=8)
        assert viewer.statistics.tokens == expected(case, tiles=False, images=2)
        assert expected(case, tiles=True) != expected(case, tiles=False) != expected(case, tiles=False, images=2)
        viewer.ask("no image here", [], max_tokens=2)
        with pytest.raises(EdgeError, match="cannot be part of a question"):
            viewer.ask("<image>", [])
        with pytest.raises(EdgeError, match="leave no room for an answer") as failure:
            viewer.ask(QUESTION, [case.photo] * 9)
        assert "--no-tiles" in (failure.value.hint or "")


def test_what_is_no_image_is_said(case, tmp_path) -> None:
    (tmp_path / "cut.png").write_bytes(case.photo.read_bytes()[:300])
    (tmp_path / "text.jpg").write_text("no image")
    for name in ("cut.png", "text.jpg"):
        shown = CliRunner().invoke(cli, ["run", str(case.bundle), QUESTION, "--image", str(tmp_path / name)])
        assert isinstance(shown.exception, EdgeError) and "no image that can be read" in str(shown.exception)
    shown = CliRunner().invoke(cli, ["run", str(case.bundle), QUESTION, "--image", str(tmp_path / "gone.jpg")])
    assert shown.exit_code == 2 and "does not exist" in shown.output


def test_the_manifest_keeps_how_images_are_prepared(case) -> None:
    spec = open_any(case.checkpoint).spec
    with edgesdk.open_bundle(case.bundle) as bundle:
        said = bundle.manifest.model.spec["preparation"]
    assert said["longest"] == 3 * SIZE and said["tile"] == spec.preparation.tile and CONTEXT < 600
