"""The outside oracle agrees with what is read well, and catches what is misread, whatever part of it is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgesdk
from edgesdk import cli
from edgesdk.bundle.manifest import OracleRecord
from edgesdk.errors import EdgeError, MissingExtraError, ModelError
from edgesdk.model import Model
from edgesdk.model.gguf_file import GgufFile
from edgesdk.model.opening import open_model
from edgesdk.model.safetensors_file import SafetensorsFolder
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope
from edgesdk.model.tokenizer import Tokenizer
from edgesdk.oracle import consult, networks
from edgesdk.progress import SILENT

from ..conftest import make_checkpoint
from .checkpoint_sweeps import ARCHITECTURES
from .family_rows import ROWS, Row, save_checkpoint
from .test_gguf import llama_gguf


def bare(row: Row, folder: Path) -> Model:
    """The model of a row, without its word-level tokenizer, which is of no family's own class."""
    save_checkpoint(row, folder)
    return replace(open_model(folder), tokenizer=None)


def verdict(model: str | Path | Model) -> OracleRecord:
    return consult(model if isinstance(model, Model) else open_model(model), "required", SILENT)


@pytest.mark.parametrize("row", ARCHITECTURES, ids=lambda row: row.name)
def test_the_oracle_agrees_on_every_architecture(row: Row, tmp_path: Path) -> None:
    model = bare(row, tmp_path)
    found = verdict(model)
    assert found.by is not None
    assert found.by.startswith("transformers ")
    assert found.logits_within is not None
    assert found.logits_within <= 1e-3
    assert found.layers_of == len(model.spec.layers)


@pytest.mark.parametrize("row", [row for row in ROWS if row.disguise is not None], ids=lambda row: row.name)
def test_what_transformers_does_not_have_is_said(row: Row, tmp_path: Path) -> None:
    model = bare(row, tmp_path)
    found = consult(model, "auto", SILENT)
    if found.by is None:  # Qwen 3.5 inside of a model that sees is one that transformers has
        assert "transformers does not" in found.words()
        with pytest.raises(EdgeError, match="nothing was compared"):
            verdict(model)


def attention(change: Callable[[Attention], Attention]) -> Callable[[DecoderSpec], DecoderSpec]:
    """A misreading of every layer's attention."""

    def misread(spec: DecoderSpec) -> DecoderSpec:
        layers = (
            replace(layer, mixer=change(layer.mixer)) if isinstance(layer.mixer, Attention) else layer
            for layer in spec.layers
        )
        return replace(spec, layers=tuple(layers))

    return misread


def _rope(mixer: Attention, **changes: Any) -> Attention:
    return mixer if mixer.rope is None else replace(mixer, rope=replace(mixer.rope, **changes))


def _mlp(layer: Layer) -> Layer:
    assert isinstance(layer.ffn, Mlp)
    return replace(layer, ffn=replace(layer.ffn, activation="relu"))


MISREADINGS: dict[str, Callable[[DecoderSpec], DecoderSpec]] = {
    "the head dropped": lambda spec: replace(spec, tied=True),
    "another base of the rotary positions": attention(lambda mixer: _rope(mixer, theta=500000.0)),
    "another scale of scores": attention(lambda mixer: replace(mixer, scale=mixer.scale * 1.3)),
    "a window of four": attention(lambda mixer: replace(mixer, window=4)),
    "another epsilon": lambda spec: replace(spec, norm_eps=1e-1),
    "another activation": lambda spec: replace(spec, layers=tuple(_mlp(layer) for layer in spec.layers)),
    "a scaled embedding": lambda spec: replace(spec, embedding_scale=1.1),
    "capped logits": lambda spec: replace(spec, logit_softcap=5.0),
    "positions in both directions": attention(lambda mixer: replace(mixer, causal=False)),
    "no rotary positions": attention(lambda mixer: replace(mixer, rope=None)),
}


@pytest.mark.parametrize("misread", MISREADINGS.values(), ids=MISREADINGS)
def test_a_misread_configuration_is_caught(tmp_path: Path, monkeypatch, misread) -> None:
    folder = make_checkpoint(tmp_path / "model", tie_word_embeddings=False)
    verdict(folder)
    from edgesdk.model import opening

    read = opening._spec
    monkeypatch.setattr(opening, "_spec", lambda family, config: misread(read(family, config)))
    monkeypatch.setattr(opening, "refuse_unread", lambda *arguments: [])
    monkeypatch.setattr(opening, "_with_own_head", lambda family, spec, shards: (spec, []))
    with pytest.raises(ModelError, match="otherwise than transformers") as failure:
        verdict(folder)
    assert "--oracle off" in str(failure.value.hint)


def test_misread_weights_are_caught(tmp_path: Path, monkeypatch) -> None:
    folder = make_checkpoint(tmp_path / "model", tie_word_embeddings=False)
    read = SafetensorsFolder.read

    def misread(self: SafetensorsFolder, name: str) -> Any:
        tensor = read(self, name)
        return tensor.flip(0) if name.endswith("layers.1.self_attn.v_proj.weight") else tensor

    monkeypatch.setattr(SafetensorsFolder, "read", misread)
    with pytest.raises(ModelError, match="otherwise than transformers"):
        verdict(folder)


@pytest.mark.parametrize(
    ("misread", "words"),
    [
        (lambda it: replace(it, special=replace(it.special, prefix=(*it.special.prefix, 5))), "other ids"),
        (lambda it: replace(it, definition=it.definition.replace('"ByteLevel"', '"Whitespace"', 1)), "other ids|read"),
        (lambda it: replace(it, chat_template=f"{it.chat_template}!"), "writes a conversation"),
        (lambda it: replace(it, chat_template="{{ messages[9].content }}x"), "writes a conversation"),
    ],
)
def test_a_misread_tokenizer_is_caught(checkpoint: Path, misread: Callable[[Tokenizer], Tokenizer], words: str) -> None:
    model = open_model(checkpoint)
    assert model.tokenizer is not None
    found = verdict(model)
    assert found.texts
    assert found.conversations
    with pytest.raises(ModelError, match=words):
        verdict(replace(model, tokenizer=misread(model.tokenizer)))


YARN = {
    "rope__scaling__type": "yarn",
    "rope__scaling__factor": 4.0,
    "rope__scaling__original_context_length": 256,
}
GGUF_FILES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "llama": ("llama", {}, ()),
    "llama-linear": ("llama", {"rope__scaling__type": "linear", "rope__scaling__factor": 2.0}, ()),
    "llama-old-linear": ("llama", {"rope__scale_linear": 4.0}, ()),
    "llama-yarn": ("llama", YARN, ()),
    "llama-biases": ("llama", {}, ("attn_q", "attn_v", "attn_output", "ffn_up", "ffn_down")),
    "qwen2-biases": ("qwen2", {}, ("attn_q", "attn_k", "attn_v")),
    "qwen2-yarn": ("qwen2", YARN | {"rope__scaling__yarn_beta_fast": 16.0, "rope__scaling__yarn_beta_slow": 2.0}, ()),
    "qwen2-attention-factor": ("qwen2", YARN | {"rope__scaling__attn_factor": 1.25}, ()),
    "qwen2-log-multiplier": ("qwen2", YARN | {"rope__scaling__yarn_log_multiplier": 0.7}, ()),
    "llama-attention-factor": ("llama", {"rope__scaling__attn_factor": 1.25}, ()),
    "llama-scale": ("llama", {"attention__scale": 0.4}, ()),
    "qwen2-both-ways": ("qwen2", {"attention__causal": False}, ()),
    "scaling-none": ("llama", {"rope__scaling__type": "none", "rope__scaling__factor": 8.0}, ()),
    "no-base": ("llama", {"rope__freq_base": None}, ()),
    "no-groups": ("llama", {"attention__head_count_kv": 2, "rope__dimension_count": 16}, ()),
}
SIZES = {"attn_q": 64, "attn_k": 32, "attn_v": 32, "attn_output": 64, "ffn_up": 128, "ffn_down": 64}


def gguf_file(path: Path, folder: Path, case: str) -> Path:
    architecture, fields, biased = GGUF_FILES[case]
    random = np.random.default_rng(3)
    extra = {
        f"blk.{layer}.{part}.bias": random.standard_normal(SIZES[part]).astype(np.float32)
        for layer in range(2)
        for part in biased
    }
    llama_gguf(path, folder, extra=extra, architecture=architecture, **fields)
    return path


@pytest.mark.parametrize("case", GGUF_FILES)
def test_the_oracle_agrees_on_gguf_files(checkpoint: Path, tmp_path: Path, case: str) -> None:
    found = verdict(gguf_file(tmp_path / "one.gguf", checkpoint, case))
    assert found.by is not None
    assert found.logits_within is not None
    assert found.logits_within <= 1e-3
    assert found.texts is None
    assert "tokenizer is not compared" in str(found.reason)


def test_misread_gguf_keys_are_caught(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    path = gguf_file(tmp_path / "one.gguf", checkpoint, "llama-yarn")
    from edgesdk.model import gguf_opening

    monkeypatch.setattr(gguf_opening, "_rope", lambda *arguments: None)
    monkeypatch.setattr(gguf_opening, "_passed_over", lambda *arguments: [])
    with pytest.raises(ModelError, match="otherwise than transformers"):
        verdict(path)


def test_misread_gguf_values_are_caught(checkpoint: Path, tmp_path: Path, monkeypatch) -> None:
    path = gguf_file(tmp_path / "one.gguf", checkpoint, "llama")
    read = GgufFile.read
    monkeypatch.setattr(GgufFile, "read", lambda self, name: read(self, name) * (1.1 if "attn_k" in name else 1))
    with pytest.raises(ModelError, match="otherwise than transformers"):
        verdict(path)


def test_a_large_model_is_compared_in_a_few_layers() -> None:
    rope = Rope(10000.0)
    local = Layer(Attention(32, 8, 128, 0.1, rope, window=512), Mlp(14336, "silu"))
    wide = Layer(Attention(32, 8, 128, 0.1, rope), Mlp(14336, "silu"))
    spec = DecoderSpec("llama", 32000, 4096, 8192, (local, local, wide) * 10, 1e-5)
    part = networks.cut(Model(spec, weights=None)).spec  # type: ignore[arg-type]
    assert len(part.layers) == 3
    assert networks.probe(part) == networks.probe(part)
    assert len(networks.probe(part)) == 520
    with pytest.raises(networks.Uncomparable, match="billion parameters"):
        networks.cut(Model(replace(spec, vocab=400_000, hidden=8192), weights=None))  # type: ignore[arg-type]


def test_without_transformers_the_choice_decides(checkpoint: Path, monkeypatch) -> None:
    def missing(name: str) -> str:
        raise networks.metadata.PackageNotFoundError(name)

    model = open_model(checkpoint)
    assert consult(model, "off", SILENT).words() == "none (switched off)"
    monkeypatch.setattr(networks.metadata, "version", missing)
    assert "not installed" in consult(model, "auto", SILENT).words()
    with pytest.raises(MissingExtraError) as failure:
        consult(model, "required", SILENT)
    assert failure.value.hint == "pip install 'edgesdk[oracle]'"


def test_the_verdict_goes_into_manifests_and_through_compressed_checkpoints(checkpoint: Path, tmp_path: Path) -> None:
    checks = edgesdk.Checks(skip=True)
    manifest = edgesdk.export(checkpoint, "linux-x86_64", tmp_path / "bundle", recipe="w8", checks=checks)
    assert manifest.oracle == verdict(checkpoint)
    written = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["oracle"]
    assert OracleRecord(**written) == manifest.oracle
    edgesdk.compress_model(checkpoint, tmp_path / "small", recipe="w8", checks=checks)
    again = edgesdk.export(tmp_path / "small", "linux-x86_64", tmp_path / "other", checks=checks, oracle="required")
    assert again.oracle == manifest.oracle


def test_what_is_misread_is_not_exported(checkpoint: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    from edgesdk.model import opening

    read = opening._spec
    misread = MISREADINGS["another base of the rotary positions"]
    monkeypatch.setattr(opening, "_spec", lambda family, config: misread(read(family, config)))
    arguments = [str(checkpoint), "-t", "linux-x86_64", "-r", "w8", "--skip-checks", "-o", str(tmp_path / "bundle")]
    assert cli.run(["export", *arguments]) == 1
    assert "otherwise than transformers" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
    assert cli.run(["export", *arguments, "--oracle", "off"]) == 0
    assert cli.run(["lint", str(checkpoint), "--oracle"]) == 1
    assert "otherwise than transformers" in capsys.readouterr().out


def test_lint_without_a_target_looks_at_the_checkpoint(checkpoint: Path, capsys) -> None:
    assert cli.run(["lint", str(checkpoint), "--oracle"]) == 0
    printed = capsys.readouterr().out
    assert "transformers " in printed
    assert "logits within" in printed
