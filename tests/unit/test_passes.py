"""Passes that change a model without changing what it computes, and passes that learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgesdk.compress.awq import Awq
from edgesdk.compress.base import PORTABLE, Limits, Setting
from edgesdk.compress.calibration import Calibration
from edgesdk.compress.distill import Distillation
from edgesdk.compress.hqq import Hqq
from edgesdk.compress.recipe import open_recipe
from edgesdk.compress.reconstruct import Reconstruction
from edgesdk.compress.rotation import Rotation, orthogonal
from edgesdk.compress.rtn import round_groups, round_to_nearest, search_scales
from edgesdk.compress.smoothquant import SmoothQuant
from edgesdk.doctor import tiny_model
from edgesdk.errors import EdgeError, ModelError, RecipeError
from edgesdk.model import DecoderSpec, Model
from edgesdk.model.opening import open_model
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.reference import ReferenceModel
from edgesdk.model.spec import Attention, Layer, Mlp, Rope, is_linear
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.progress import SILENT
from tests.conftest import make_checkpoint

SMALL = Calibration(sequences=8, length=24)
ENOUGH = Calibration(sequences=64, length=48)
IDS = torch.arange(60).view(2, 30) % 61


def logits(model: Model) -> torch.Tensor:
    reference = ReferenceModel(model)
    return reference.logits(reference.hidden([IDS])[0])


def setting(folder: Path, **changes: object) -> Setting:
    return replace(Setting(folder, SILENT, calibration=SMALL), **changes)


def varied(**changes: object) -> Model:
    """A random model with biases, grouped heads, head and hidden sizes that are no powers of two, and uneven norms."""
    fields: dict[str, object] = {"heads": 4, "kv_heads": 2, "head_dim": 12, "scale": 0.3, "rope": Rope(10000.0)}
    attention = Attention(**{**fields, "qkv_bias": True, "out_bias": True})  # type: ignore[arg-type]
    mlp = Mlp(size=80, activation="silu", bias=True)
    spec = DecoderSpec("llama", vocab=64, hidden=40, context=64, layers=(Layer(attention, mlp),) * 2, norm_eps=1e-5)
    spec = replace(spec, **changes)  # type: ignore[arg-type]

    class Uneven(RandomWeights):
        def get(self, name: str) -> torch.Tensor:
            tensor = super().get(name)
            return tensor * torch.linspace(0.2, 3, len(tensor)) if "norm" in name else tensor

    return Model(spec, Uneven(spec))


@pytest.mark.parametrize(
    "step",
    [Awq(clip=False), SmoothQuant(0.5), SmoothQuant(1.0), Rotation(), Rotation(hidden=False)],
)
@pytest.mark.parametrize("changes", [{}, {"tied": True}])
def test_the_model_computes_the_same(step, changes, tmp_path) -> None:
    model = varied(**changes)
    made = step(model, setting(tmp_path, grid=lambda name: (4, 0) if is_linear(name) else None)).model
    assert any(not torch.equal(made.weights.get(name), model.weights.get(name)) for name in model.spec.tensors())
    difference = (logits(made) - logits(model)).abs().max()
    assert difference < 1e-4 * logits(model).abs().max()


def test_layer_norms_and_ungated_mlps_fold_too(tmp_path) -> None:
    layer = varied().spec.layers[0]
    ungated = replace(layer, ffn=replace(layer.mlp, gated=False, activation="relu"))
    model = varied(norm="layer", layers=(ungated, ungated))
    for index, step in enumerate([Awq(clip=False), SmoothQuant(0.5), Rotation(hidden=False)]):
        (folder := tmp_path / str(index)).mkdir()
        assert torch.allclose(logits(step(model, setting(folder)).model), logits(model), atol=1e-4)
    with pytest.raises(RecipeError, match="layer norms"):
        Rotation().spec(model.spec)


@pytest.mark.parametrize("size", [1, 2, 9, 12, 40, 64, 96, 576])
def test_rotations_are_orthogonal_and_even(size) -> None:
    matrix = orthogonal(size, 3)
    assert torch.allclose(matrix @ matrix.T, torch.eye(size), atol=1e-5)
    assert matrix.abs().max() <= 1.5 / (size & -size) ** 0.5
    assert not size > 2 or not torch.equal(matrix, orthogonal(size, 4))


def test_awq_makes_the_product_of_rounded_weights_nearer(checkpoint, tmp_path) -> None:
    torch.manual_seed(0)
    model = varied()
    boost = torch.ones(40)
    boost[3] = 30.0  # an outlier channel, as real models have

    class Outlier:
        def get(self, name: str) -> torch.Tensor:
            tensor = model.weights.get(name)
            return tensor * boost if name.endswith("attn_norm.weight") else tensor

    loud = model.with_weights(Outlier())

    def lost(recipe: str) -> float:
        folder = tmp_path / recipe
        folder.mkdir()
        made, _ = open_recipe(recipe)(loud, setting(folder))
        return float((logits(made) - logits(loud)).square().mean())

    assert lost("w3-awq-e16") < 0.9 * lost("w3-e16")


@pytest.mark.parametrize("signed", [True, False])
def test_hqq_has_fewer_small_errors(signed) -> None:
    random = torch.Generator().manual_seed(0)
    groups = torch.randn((400, 64), generator=random)

    def norm(scale: torch.Tensor) -> float:
        return float(((round_groups(groups, scale, 3) * scale - groups).abs() ** 0.7).sum())

    found, _ = Hqq(bits=3).search(groups, 3, signed)
    assert norm(found) < 0.97 * norm(search_scales(groups, 3, signed)[0])
    assert signed or bool((found > 0).all())
    assert torch.equal(found.bfloat16().float(), found)


def test_reconstruction_brings_each_layer_nearer(checkpoint, tmp_path) -> None:
    model = open_model(checkpoint)
    made, reports = open_recipe("w2g32-rec")(model, setting(tmp_path, limits=PORTABLE, calibration=ENOUGH))
    plain, _ = open_recipe("w2g32")(model, setting(tmp_path / "pass0", limits=PORTABLE))
    assert [report.name for report in reports] == ["rtn", "reconstruction"]
    assert (logits(made) - logits(model)).square().mean() < 0.9 * (logits(plain) - logits(model)).square().mean()
    learned = made.weights.get("layers.1.down.weight")
    assert isinstance(learned, QuantizedTensor)
    assert bool((learned.scales > 0).all())
    assert learned.values.min() >= -2 and learned.values.max() <= 1


@pytest.mark.parametrize("integers", [False, True])
def test_distillation_brings_predictions_nearer(checkpoint, tmp_path, integers) -> None:
    model = open_model(checkpoint)
    base = open_recipe("w2g32")
    passes = (*base.passes, Distillation(steps=30, scale_rate=0.01, norm_rate=0.01, integers=integers, rate=0.05))
    made, _ = replace(base, passes=passes)(model, setting(tmp_path, calibration=ENOUGH))
    plain, _ = base(model, setting(tmp_path / "pass0"))

    def apart(other: Model) -> float:
        wanted, found = (torch.log_softmax(logits(each), -1) for each in (model, other))
        return float((wanted.exp() * (wanted - found)).sum(-1).mean())

    assert apart(made) < 0.95 * apart(plain)
    same = torch.equal(*(each.weights.get("layers.0.q.weight").values for each in (made, plain)))
    assert same is not integers


def test_a_time_limit_is_said(checkpoint, tmp_path) -> None:
    base = open_recipe("w2g32")
    for step in (Reconstruction(minutes=1e-9), Distillation(minutes=1e-9)):
        (folder := tmp_path / type(step).__name__).mkdir()
        _, reports = replace(base, passes=(*base.passes, step))(open_model(checkpoint), setting(folder))
        assert "time limit" in reports[-1].notes[0]


@pytest.mark.parametrize("recipe", ["w4g32-awq-gptq", "w4g32-rotv-smooth-hqq", "w4g32-gptq-rec-qat"])
def test_a_run_that_was_cut_short_goes_on_to_the_same_bytes(checkpoint, tmp_path, recipe) -> None:
    model = open_model(checkpoint)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    open_recipe(recipe)(model, setting(whole))
    open_recipe(recipe)(model, setting(cut))
    for journal in cut.rglob("*.jsonl"):  # as if killed in the middle of each pass, the last line half written
        text = journal.read_text()
        journal.write_text(text[: len(text) * 2 // 3])
    made, _ = open_recipe(recipe)(model, setting(cut))
    expected, _ = open_recipe(recipe)(model, setting(whole))
    for name in model.spec.tensors():
        found, wanted = made.weights.get(name), expected.weights.get(name)
        if isinstance(wanted, QuantizedTensor):
            assert torch.equal(found.values, wanted.values)
            assert torch.equal(found.scales, wanted.scales)
        else:
            assert torch.equal(found, wanted)


def test_nan_activations_name_the_layer(tmp_path) -> None:
    model = tiny_model()

    class Broken:
        def get(self, name: str) -> torch.Tensor:
            tensor = model.weights.get(name)
            return tensor * 1e39 if name == "layers.1.down.weight" else tensor

    for step in (Awq(), SmoothQuant(), open_recipe("w4g32-gptq").passes[0]):
        (folder := tmp_path / type(step).__name__).mkdir()
        with pytest.raises(ModelError, match="layer 1 gives NaN"):
            step(model.with_weights(Broken()), setting(folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"messages": [{"role": "user", "content": "hello"}]}\n{"text": "plain"}\n', None),
        ('{"other": 1}\n', "line 1: neither 'messages' nor 'text'"),
        ('{"text": "a"}\nnot json\n', "line 2: not valid JSON"),
    ],
)
def test_chats_are_calibration_text(checkpoint, tmp_path, text, message) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text(text)
    chosen = Calibration(file, 2, 8)
    if message:
        with pytest.raises(EdgeError, match=message):
            chosen.tokens(open_model(checkpoint), SILENT)
        return
    ids = chosen.tokens(open_model(checkpoint), SILENT)
    assert ids.shape == (2, 8)


def test_calibration_text_that_is_no_text_is_refused(checkpoint, tmp_path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(b"some words \xff\xfe more")
    with pytest.raises(EdgeError, match="not UTF-8 text"):
        Calibration(file, 2, 4).tokens(open_model(checkpoint), SILENT)


def test_windows_of_a_file_are_drawn_evenly_and_by_seed(checkpoint, tmp_path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("".join(f"{number:03d}\n" for number in range(1000)))
    model = open_model(checkpoint)
    first = Calibration(file, 8, 40).tokens(model, SILENT)
    assert torch.equal(first, Calibration(file, 8, 40).tokens(model, SILENT))
    assert not torch.equal(first, Calibration(file, 8, 40, seed=1).tokens(model, SILENT))
    starts = [int(model.tokenizer.decode(row.tolist())[:3]) for row in first]
    assert max(starts) > 500


def test_two_and_three_bits_are_stored_in_what_a_target_holds(tmp_path) -> None:
    make_checkpoint(tmp_path / "model")
    model = open_model(tmp_path / "model")
    for widths, expected in (((2, 4, 8), 4), ((2, 3, 4, 8), 3)):
        (folder := tmp_path / str(expected)).mkdir()
        made, _ = open_recipe("w3g32")(model, setting(folder, limits=Limits(widths=widths)))
        tensor = made.weights.get("layers.0.q.weight")
        assert (tensor.bits, int(tensor.values.min()), int(tensor.values.max())) == (expected, -4, 3)
        assert torch.equal(tensor.values, round_to_nearest(model.weights.get("layers.0.q.weight"), 3, 32)[0].values)
