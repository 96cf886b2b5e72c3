"""No tensor of a checkpoint is dropped in silence: whatever an architecture has no place for is refused or noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgesdk.errors import ModelError
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceModel

from ..conftest import make_checkpoint
from .checkpoint_sweeps import ARCHITECTURES, IDS, Checkpoint, opened
from .test_gguf import llama_gguf

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=lambda row: row.name)
def swept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return opened(request.param, tmp_path_factory.mktemp(request.param.name))


def foreign(tensors: Tensors) -> Iterator[str]:
    """Names of tensors that published variants have: biases, norms, heads, further layers, parts of adapters."""
    weights = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    first = [stem for stem in weights if ".0." in stem or not any(part.isdigit() for part in stem.split("."))]
    yield from (f"{stem}.bias" for stem in first if f"{stem}.bias" not in tensors)
    yield f"{first[-1]}.lora_A.weight"
    layer = next(name.partition(".0.")[0] for name in tensors if ".0." in name)
    yield from (f"{layer}.0.{norm}.weight" for norm in ("self_attn.extra_norm", "sandwich_norm", "attn.qk_norm"))
    yield from (f"{layer}.99.input_layernorm.weight", "score.weight", "classifier.weight", "v_head.summary.weight")
    yield from ("lm_head.bias", "embed_norm.weight", "model.layers_extra.weight")


def test_every_tensor_that_an_architecture_does_not_know_is_refused(swept: Checkpoint) -> None:
    path = swept.folder / "model.safetensors"
    tensors, dropped, tried = load_file(path), [], 0
    for name in foreign(tensors):
        if name in tensors:
            continue
        save_file({**tensors, name: torch.full((3,), 0.5)}, path, {"format": "pt"})
        tried += 1
        try:
            open_model(swept.folder)
        except ModelError as failure:
            assert failure.hint
        else:
            dropped.append(name)
    save_file(tensors, path, {"format": "pt"})
    assert tried > 10
    assert not dropped


def changed(folder: Path, change: Callable[[Tensors], None]) -> Path:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})
    return folder


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "tied", tie_word_embeddings=True)


def test_a_trained_head_under_a_tied_configuration_is_kept(tied: Path) -> None:
    head = torch.randn(open_model(tied).spec.vocab, 64)
    model = open_model(changed(tied, lambda tensors: tensors.update({"lm_head.weight": head})))
    assert not model.spec.tied
    assert torch.equal(model.weights.get("head.weight"), head)  # type: ignore[arg-type]
    assert any("lm_head.weight" in note for note in model.origin.notes)


def test_a_copy_of_the_embedding_is_no_head_of_its_own(tied: Path) -> None:
    changed(tied, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    model = open_model(tied)
    assert model.spec.tied
    assert not model.origin.notes


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(8)),
        ("model.layers.1.self_attn.q_proj.bias", torch.zeros(64)),
        ("transformer.h.0.attn.bias", torch.ones(1, 1, 8, 8).tril()),
        ("transformer.h.0.attn.masked_bias", torch.tensor(-1e4)),
    ],
)
def test_what_changes_nothing_is_passed_over(checkpoint_copy: Path, name: str, tensor: torch.Tensor) -> None:
    model = open_model(changed(checkpoint_copy, lambda tensors: tensors.update({name: tensor})))
    assert not model.origin.notes


@pytest.mark.parametrize("name", ["mtp.layers.0.weight", "model.visual.patch_embed.weight", "vision_tower.a.weight"])
def test_parts_beside_the_decoder_are_noted(checkpoint_copy: Path, name: str) -> None:
    model = open_model(changed(checkpoint_copy, lambda tensors: tensors.update({name: torch.ones(3)})))
    assert any("left out" in note for note in model.origin.notes)


@pytest.fixture
def checkpoint_copy(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "copy")


GGUF_FOREIGN = (
    *("blk.0.attn_q_norm.weight", "blk.1.post_attention_norm.weight", "blk.0.attn_sub_norm.weight", "cls.weight"),
    *("blk.0.attn_sinks.weight", "rope_factors_long.weight", "token_embd_norm.weight", "blk.2.attn_norm.weight"),
)


@pytest.mark.parametrize("name", GGUF_FOREIGN)
def test_a_gguf_tensor_that_nothing_reads_is_refused(checkpoint_copy: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "more.gguf"
    llama_gguf(path, checkpoint_copy, extra={name: np.full((8,), 0.5, np.float32)})
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        open_model(path)


def test_gguf_biases_are_added_each_by_itself(checkpoint_copy: Path, tmp_path: Path) -> None:
    """Every bias that llama.cpp reads for a Llama; those that the file lacks are zeros."""
    path = tmp_path / "biased.gguf"
    biases = {
        "blk.0.attn_q.bias": 64,
        "blk.0.attn_output.bias": 64,
        "blk.1.attn_v.bias": 32,
        "blk.1.ffn_gate.bias": 128,
        "blk.0.ffn_down.bias": 64,
        "output.bias": 260,
    }
    random = np.random.default_rng(0)
    values = {name: random.standard_normal(size).astype(np.float32) for name, size in biases.items()}
    llama_gguf(path, checkpoint_copy)
    plain = open_model(path)
    llama_gguf(path, checkpoint_copy, extra=values)
    model = open_model(path)
    assert np.array_equal(model.weights.get("layers.1.v.bias"), values["blk.1.attn_v.bias"])
    assert not model.weights.get("layers.0.up.bias").any()  # type: ignore[union-attr]
    assert np.array_equal(model.weights.get("head.bias"), values["output.bias"])
    found, without = (
        reference.logits(reference.hidden([torch.tensor([IDS])])[0])
        for reference in (ReferenceModel(model), ReferenceModel(plain))
    )
    assert float((found - without).abs().max()) > 0.1
