"""The ExecuTorch program carries the pass's integers and scales bit for bit, computes with them, and is checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import edgesdk
from edgesdk.chat import answer_with_runner
from edgesdk.compress.base import Setting
from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import CONVERTERS, ProgramOptions
from edgesdk.errors import BundleError, EdgeError, RecipeError
from edgesdk.model import Model
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceSession
from edgesdk.model.spec import is_linear
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.progress import SILENT
from edgesdk.targets import open_target
from edgesdk_converters.executorch.packing import pack_filter, unpack_filter
from edgesdk_converters.executorch.readback import read_packed

from ..conftest import make_checkpoint

CONTEXT = 64
IDS = [5, 80, 200, 3, 255, 17]
CONVERTER = CONVERTERS.get("executorch")
RECIPES = ["w4g32", "w4g32-e4", "w4g64-e4", "w8", "w4-e8", "w4-e4", "w4g32-e16", "w4g32-e8-h4", "none"]


def program(model: Model, folder: Path, float_type: str = "float32") -> Path:
    made = CONVERTER.convert(model, ProgramOptions(CONTEXT, float_type, 8), folder, SILENT)
    return folder / made.main


def compressed(model: Model, recipe: str, scratch: Path) -> Model:
    scratch.mkdir()
    return open_recipe(recipe)(model, Setting(scratch, SILENT, CONVERTER.limits()))[0]


@pytest.mark.parametrize("recipe", RECIPES[:-1])
@pytest.mark.parametrize("tied", [True, False])
def test_integers_and_scales_read_back_bit_for_bit(tmp_path, recipe, tied) -> None:
    folder = make_checkpoint(tmp_path / "model", tie_word_embeddings=tied)
    model = compressed(open_model(folder), recipe, tmp_path / "scratch")
    found = read_packed(program(model, tmp_path))
    seen = set()
    for name, tensor in found.items():
        prefix, _, last = name.rpartition(".")
        parts = ["q", "k", "v"] if last == "qkv" else [last]
        names = [f"{prefix}.{part}.weight" for part in parts] if prefix else [f"{name}.weight"]
        names = ["embed.weight"] if name == "embedding" else names
        wanted = [model.weights.get(each) for each in names]
        assert torch.equal(tensor.values, torch.cat([each.values for each in wanted]))
        assert torch.equal(tensor.scales, torch.cat([each.scales for each in wanted]))
        assert (tensor.bits, tensor.group) == (wanted[0].bits, wanted[0].group)
        seen.update(names)
    packed = {name for name in model.spec.tensors() if isinstance(model.weights.get(name), QuantizedTensor)}
    assert seen == packed
    assert any(is_linear(name) for name in packed)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("tied", [True, False])
def test_the_runtime_computes_what_the_reference_does(tmp_path, recipe, tied) -> None:
    """Activations are int8, so the bound is wide; a pair swapped or a scale misplaced is far outside."""
    folder = make_checkpoint(tmp_path / "model", tie_word_embeddings=tied, attention_bias=True, mlp_bias=True)
    model = compressed(open_model(folder), recipe, tmp_path / "scratch")
    session = CONVERTER.open(program(model, tmp_path), CONTEXT)
    difference = np.abs(session.score(IDS) - ReferenceSession(model, CONTEXT).score(IDS)).max()
    assert difference < (1e-4 if recipe == "none" else 0.15)


def test_a_tied_table_is_stored_once(tmp_path) -> None:
    folder = make_checkpoint(tmp_path / "model", hidden_size=512, intermediate_size=64, num_hidden_layers=1)
    model = open_model(folder)
    for recipe, bits in (("w8", 8), ("w4g32-e4", 4.5), ("none", 32)):
        (tmp_path / recipe).mkdir()
        path = program(compressed(model, recipe, tmp_path / f"scratch-{recipe}"), tmp_path / recipe)
        table = model.spec.vocab * model.spec.hidden
        assert path.stat().st_size < (model.spec.parameters + table // 2) * bits / 8 + 60_000


@pytest.mark.parametrize("recipe", ["w8g32", "w4g32-a32"])
def test_what_xnnpack_cannot_hold_is_refused_before_work(checkpoint, recipe) -> None:
    chosen = open_recipe(recipe)
    options = ProgramOptions(CONTEXT, "float32", chosen.activations or 8)
    with pytest.raises(RecipeError, match="XNNPACK holds w8, w4, w4g32, w4g64 and w4g128"):
        CONVERTER.check(open_model(checkpoint).spec, chosen, options, open_target("android-arm64"))


def test_a_negative_scale_or_a_wide_one_is_never_rounded() -> None:
    values = torch.ones((2, 64), dtype=torch.int8)
    fine = QuantizedTensor(values, torch.tensor([[0.5, 0.25], [1.0, 2.0]]), 4, 32)
    again = unpack_filter(pack_filter("x", fine))
    assert torch.equal(again.values, fine.values)
    assert torch.equal(again.scales, fine.scales)
    for scales in ([[-0.5, 0.25], [1.0, 2.0]], [[0.5001, 0.25], [1.0, 2.0]]):
        with pytest.raises(RecipeError, match="XNNPACK"):
            pack_filter("x", QuantizedTensor(values, torch.tensor(scales), 4, 32))


def test_a_session_refuses_what_does_not_fit_and_keeps_its_cache(checkpoint, tmp_path) -> None:
    model = open_model(checkpoint)
    session = CONVERTER.open(program(model, tmp_path), CONTEXT)
    session.prefill(IDS)
    for wrong in ([], [1] * CONTEXT, [-1], [10_000]):
        with pytest.raises(EdgeError):
            session.prefill(wrong)
    with pytest.raises(EdgeError):
        session.rewind(len(IDS) + 1)
    after = session.decode(7).copy()
    reference = ReferenceSession(model, CONTEXT)
    reference.prefill(IDS)
    assert np.abs(after - reference.decode(7)).max() < 1e-4
    session.reset()
    reference.reset()
    assert np.abs(session.prefill(IDS[2:]) - reference.prefill(IDS[2:])).max() < 1e-4


def test_damaged_and_newer_programs_are_refused(checkpoint, tmp_path) -> None:
    path = program(open_model(checkpoint), tmp_path)
    whole = path.read_bytes()
    for content, message in (
        (whole[:-1000], "its header promises"),
        (whole[:20], "no header"),
        (b"", "not an ExecuTorch program"),
        (whole[:4] + b"ET13" + whole[8:], "its program schema is ET13"),
        (b"x" * 4096, "not an ExecuTorch program"),
        (whole[:64] + bytes(3000) + whole[3064:], "does not hold together"),
    ):
        path.write_bytes(content)
        with pytest.raises(BundleError, match=message):
            CONVERTER.open(path, CONTEXT)


def test_the_same_model_gives_the_same_bytes(checkpoint, tmp_path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    model = compressed(open_model(checkpoint), "w4g32", tmp_path / "scratch")
    first, second = (program(model, tmp_path / name).read_bytes() for name in ("first", "second"))
    assert first == second
    assert str(tmp_path).encode() not in first


def test_integers_that_the_kernels_cannot_hold_become_exact_floats(tmp_path) -> None:
    """A GGUF keeps its own 8-bit groups; with recipe none they are neither rounded again nor refused."""
    model = open_model(make_checkpoint(tmp_path / "model"))
    stored = QuantizedTensor(torch.ones((4, 64), dtype=torch.int8), torch.full((4, 2), 0.5), 8, 32)

    class Grouped:
        def get(self, name: str):
            return stored

    kept = open_recipe("none")(model.with_weights(Grouped()), Setting(tmp_path, SILENT, CONVERTER.limits()))[0]
    assert torch.equal(kept.weights.get("embed.weight"), stored.dequantize())
    kept = open_recipe("none")(model.with_weights(Grouped()), Setting(tmp_path, SILENT))[0]
    assert kept.weights.get("embed.weight") is stored


def test_a_tokenizer_of_another_model_is_refused(checkpoint, tmp_path) -> None:
    manifest = edgesdk.export(str(checkpoint), "host", tmp_path / "b", checks=edgesdk.Checks(skip=True))
    path = tmp_path / "b" / manifest.tokenizer.file
    definition = json.loads(path.read_text(encoding="utf-8"))
    definition["model"]["vocab"]["another"] = 5000
    path.write_text(json.dumps(definition), encoding="utf-8")
    with edgesdk.open_bundle(tmp_path / "b", check=False) as bundle:
        with pytest.raises(BundleError, match="has ids up to 5000"):
            edgesdk.Chat(bundle)
        with pytest.raises(BundleError, match="has ids up to 5000"):
            answer_with_runner(bundle, "hello", print)
        path.write_text("{}", encoding="utf-8")
        with pytest.raises(EdgeError, match="cannot be read"):
            answer_with_runner(bundle, "hello", print)


def test_a_context_beyond_the_memory_is_refused_with_the_numbers(checkpoint, tmp_path) -> None:
    with pytest.raises(EdgeError, match=r"KV cache of 1024 tokens .* but it may use 10\.0 MB|may use 10 MB"):
        edgesdk.export(str(checkpoint), "android-arm64", tmp_path / "b", context=1024, memory_mb=10)
    assert not list(tmp_path.iterdir())
