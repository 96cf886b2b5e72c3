"""Fixtures: a tiny chat model on disk, with weights, tokenizer and template, made in a second without any download."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from edgesdk.model import Model

    from .unit.signed_bundles import Signers

os.environ.setdefault("HF_HUB_OFFLINE", "1")

TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + ' ' + message['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant ' }}{% endif %}"
)


def make_tokenizer(folder: Path) -> int:
    """A byte-level BPE tokenizer with three special tokens; returns its size."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<s>", "</s>", "<pad>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab_size(with_added_tokens=True)


def make_checkpoint(folder: Path, **changes: object) -> Path:
    """A random two-layer Llama in a Hugging Face folder; ``changes`` go into config.json."""
    from safetensors.torch import save_file

    from edgesdk.model.config import Config
    from edgesdk.model.families import FAMILIES
    from edgesdk.model.random_weights import RandomWeights

    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, object] = {
        "model_type": "llama",
        "vocab_size": make_tokenizer(folder) + 1,  # one spare row, as many checkpoints have
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 256,
        "eos_token_id": 257,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    family = FAMILIES.get("llama")
    spec = family.spec(Config(config, "config.json"))
    weights, places = RandomWeights(spec), family.transformers_places(spec)
    save_file({places[name].name: weights.get(name) for name in spec.tensors()}, folder / "model.safetensors")
    (folder / "LICENSE").write_text("Test licence\n")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny chat model; tests must not change it."""
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny model; tests must not change it."""
    import edgesdk

    out = tmp_path_factory.mktemp("bundles") / "tiny"
    edgesdk.export(checkpoint, "linux-x86_64", out, context=256)
    return out


def edgesdk_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edgesdk", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def compressed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The tiny model with 4-bit weights; tests must not change it."""
    import edgesdk
    from edgesdk.compress.base import Setting
    from edgesdk.compress.recipe import open_recipe
    from edgesdk.progress import SILENT

    folder = tmp_path_factory.mktemp("scratch")
    return open_recipe("w4g32")(edgesdk.open_model(checkpoint), Setting(folder, SILENT))[0]


@pytest.fixture
def own_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a configuration that nobody has but this test; a device list of the environment counts no more."""
    import platformdirs

    home = tmp_path / "configuration"
    monkeypatch.setattr(platformdirs, "user_config_path", lambda name: home / name)
    monkeypatch.delenv("EDGESDK_DEVICES", raising=False)
    return home / "edgesdk"


@pytest.fixture
def signers(tmp_path: Path) -> Signers:
    """Two owners of keys."""
    from .unit.signed_bundles import Signers

    (tmp_path / "signers").mkdir()
    return Signers(tmp_path / "signers")
