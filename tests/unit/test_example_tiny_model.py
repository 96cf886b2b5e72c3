"""The example that trains a tiny model: the same bytes twice, a folder that opens, stories that hold together."""

import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from edgesdk.compress.quality import perplexity_of, reference_loss
from edgesdk.generation import generate
from edgesdk.model import Model
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceModel, ReferenceSession
from edgesdk.passages.cutting import file_windows
from edgesdk.progress import SILENT

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny_model"
FILES = ["config.json", "eval.txt", "generation_config.json", "model.safetensors", "tokenizer.json"]


def train(folder: Path) -> Path:
    command = [sys.executable, str(EXAMPLE / "train.py"), "--quick", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout and "step 12 of 12" in done.stdout
    return folder


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tiny_model_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks for it
    spec.loader.exec_module(module)
    return module


def plain_model(folder: Path) -> torch.nn.Module:
    """The example's own module with the trained weights."""
    from safetensors.torch import load_file

    model: torch.nn.Module = example("llama").Llama()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return open_model(folder)


def test_the_same_bytes_twice(folder: Path, tmp_path: Path) -> None:
    again = train(tmp_path / "again")
    assert sorted(path.name for path in again.iterdir()) == sorted([*FILES, "tokenizer_config.json"])
    for path in again.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_opens_as_any_checkpoint(model: Model) -> None:
    assert model.spec.parameters < 300_000 and model.spec.context == 256 and model.spec.tied
    tokenizer = model.tokenizer
    assert tokenizer is not None and tokenizer.size == model.spec.vocab == 512
    assert tokenizer.special.stop == (0,) and tokenizer.encode("A", prefix=True)[0] == 0
    text = "Mia saw 日本 and a 😀 in the park."
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_example_and_the_reference_agree(folder: Path, model: Model) -> None:
    """What was trained is what edgesdk computes: the same loss over the held-out stories."""
    windows = file_windows(model.tokenizer, folder / "eval.txt", 6, context=256)
    loss = reference_loss(ReferenceModel(model), windows, SILENT)
    plain = plain_model(folder)
    expected = 0.0
    with torch.inference_mode():
        for window in windows:
            logits = plain(torch.tensor([window.ids]))[0]
            expected += float(F.cross_entropy(logits[:-1], torch.tensor(window.ids[1:]), reduction="sum"))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert perplexity_of(loss, windows) < 512 * 0.8  # twelve steps: it has begun to learn
    assert math.isfinite(loss) and len(windows) == 6 and all(window.ids[0] == 0 for window in windows)


def test_generates_what_the_example_would(folder: Path, model: Model) -> None:
    assert model.tokenizer is not None
    prompt = model.tokenizer.encode("Once upon a time", prefix=True)
    said = "".join(generate(ReferenceSession(model), model.tokenizer, prompt, max_tokens=20))
    ids, plain = list(prompt), plain_model(folder)
    with torch.inference_mode():
        while len(ids) < len(prompt) + 20 and ids[-1] != 0:
            ids.append(int(plain(torch.tensor([ids]))[0, -1].argmax()))
    assert said and said == model.tokenizer.decode(ids[len(prompt) :])


def test_stories_hold_together(folder: Path) -> None:
    stories = example("stories")
    found = stories.stories(300, seed=1)
    assert found == stories.stories(300, seed=1) and len(set(found)) == 300
    names = {hero.name for hero in stories.HEROES}
    for text in found:
        told = {name for name in names if f"{name} " in text or f"{name}." in text}
        assert len(told) == 2 and text.endswith(".") and "  " not in text and "{" not in text, text
    held_out = (folder / "eval.txt").read_text().split("<|endoftext|>")
    assert len(held_out) == 40 and not {text.strip() for text in held_out} & set(stories.stories(400, seed=1))
