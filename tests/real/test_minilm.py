"""all-MiniLM-L6-v2 (fetched once into the user's cache): embeddings of 200 sentences against transformers' own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import edgesdk
from edgesdk.bundle import open_bundle
from edgesdk.encoders import Encoder
from edgesdk.model import catalogue

pytestmark = pytest.mark.real
_WHO = ("The engineer", "A nurse", "My neighbour", "The committee", "Every child", "An old sailor", "Nobody", "She")
_DOES = ("repaired", "wrote about", "could not find", "sold", "painted", "measured", "complained about", "dreamt of")
_WHAT = ("the bridge over the river", "three letters from 1912", "a battery that never empties", "the town's budget")
SENTENCES = [f"{who} {does} {what}." for what in _WHAT for does in _DOES for who in _WHO][:200]


@pytest.fixture(scope="module")
def folder() -> Path:
    return catalogue.fetch(catalogue.load()["all-minilm-l6-v2"])


@pytest.fixture(scope="module")
def wanted(folder: Path) -> np.ndarray:
    """What sentence-transformers computes: transformers' states, their mean over tokens, scaled to length 1."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    given = tokenizer(SENTENCES, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states = network(**given).last_hidden_state
    mask = given["attention_mask"].unsqueeze(-1)
    found: np.ndarray = F.normalize((states * mask).sum(1) / mask.sum(1)).numpy()
    return found


@pytest.mark.parametrize(("recipe", "least"), [("none", 0.999), ("w8-a8", 0.98)])
@pytest.mark.parametrize("target", ["linux-x86_64", "host"])
def test_embeddings_are_those_of_the_original(wanted, tmp_path, target, recipe, least) -> None:
    assert len(SENTENCES) == len(set(SENTENCES)) == 200
    manifest = edgesdk.export("all-minilm-l6-v2", target, tmp_path / "b", recipe=recipe)
    assert manifest.model.licence == "apache-2.0"
    with open_bundle(tmp_path / "b") as bundle:
        found = Encoder(bundle, threads=2).embed(SENTENCES)
    cosines = (found * wanted).sum(1)
    print(f"{target} {recipe}: least cosine {cosines.min():.6f}, mean {cosines.mean():.6f}")
    assert cosines.min() >= least
