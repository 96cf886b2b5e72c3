"""Pruning: what is taken away is what was asked for, the rest makes up for it, and every converter takes the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import edgesdk
from edgesdk.cli import run
from edgesdk.compress.base import Setting
from edgesdk.compress.calibration import Calibration
from edgesdk.compress.pruning.depth import Depth
from edgesdk.compress.pruning.hidden import Hidden
from edgesdk.compress.pruning.pattern import Pattern, parse_pattern
from edgesdk.compress.pruning.sparsegpt import SparseGpt
from edgesdk.compress.pruning.width import Width
from edgesdk.compress.pruning.zeros import Zeros, refit
from edgesdk.compress.recipe import Recipe, open_recipe
from edgesdk.compress.recovery import Recovery
from edgesdk.compress.rotation import Rotation
from edgesdk.compressing import compress_model
from edgesdk.errors import EdgeError, RecipeError
from edgesdk.exporting import Checks, export
from edgesdk.model import Model
from edgesdk.model.opening import open_model
from edgesdk.model.reference import ReferenceModel
from edgesdk.model.spec import is_linear
from edgesdk.model.weights import dense
from edgesdk.progress import SILENT

from ..conftest import make_checkpoint

SMALL = Calibration(sequences=8, length=24)
SKIP = Checks(skip=True)


def setting(folder: Path, **changes: object) -> Setting:
    return replace(Setting(folder, SILENT, calibration=SMALL), **changes)


def applied(step, model: Model, folder: Path, **changes: object) -> Model:
    return step(model, setting(folder, **changes)).model


def matrices(model: Model) -> dict[str, torch.Tensor]:
    return {name: dense(model.weights.get(name)) for name in model.spec.tensors() if is_linear(name)}


def short(recipe: Recipe, steps: int) -> Recipe:
    """With few steps of recovery."""
    few = {"steps": steps, "batch": 2, "own_sequences": 4}
    passes = (replace(step, **few) if isinstance(step, Recovery) else step for step in recipe.passes)
    return replace(recipe, passes=tuple(passes))


def zero_runs(weight: torch.Tensor, run: int) -> torch.Tensor:
    return (weight.view(-1, run) == 0).sum(1)


@pytest.mark.parametrize("text", ["50%", "0.5", " 50 % "])
def test_shares_are_read(text) -> None:
    assert parse_pattern(text, "test") == Pattern(0.5)


def test_runs_are_read() -> None:
    assert parse_pattern("2:4", "test") == Pattern(0.5, 4)
    assert parse_pattern("1:4", "test").removed == 3
    assert str(parse_pattern("4:8", "test")) == "4:8"


@pytest.mark.parametrize("text", ["0%", "100%", "1", "0", "-0.5", "120%", "0:4", "4:4", "5:4", "2:6", "much", ""])
def test_what_is_no_sparsity_is_refused(text) -> None:
    with pytest.raises(RecipeError) as failure:
        Zeros(pattern=text)
    assert "50%" in (failure.value.hint or "")


@pytest.mark.parametrize("rows", [True, False])
def test_the_lowest_are_found(rows) -> None:
    scores = torch.rand((16, 40), generator=torch.Generator().manual_seed(0))
    gone = Pattern(0.25).lowest(scores, rows=rows)
    assert int(gone.sum()) == 160
    assert not rows or bool((gone.sum(1) == 10).all())
    assert rows or scores[gone].max() <= scores[~gone].min()
    assert bool((Pattern(0.5, 4).lowest(scores, rows=rows).view(-1, 4).sum(1) == 2).all())


@pytest.mark.parametrize(
    "step",
    [
        Zeros("50%", "magnitude"),
        Zeros("50%", "wanda"),
        Zeros("50%", "wanda", admm_steps=10),
        Zeros("50%", allocation="sensitivity"),
        SparseGpt(16, 0, 16, 16, pattern="50%"),
        SparseGpt(4, 32, pattern="50%"),
        SparseGpt(4, 32, pattern="50%", allocation="sensitivity"),
    ],
)
def test_half_of_the_weights_become_zero(checkpoint, tmp_path, step) -> None:
    model = open_model(checkpoint)
    result = step(model, setting(tmp_path))
    found = torch.cat([weight.flatten() for weight in matrices(result.model).values()])
    share = float((found == 0).float().mean())
    rounds = isinstance(step, SparseGpt) and step.bits == 4  # small weights round to zero besides
    assert share == pytest.approx(0.5, abs=0.01) or (rounds and 0.5 < share < 0.6)
    assert result.report.zeros == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4"])
@pytest.mark.parametrize("kind", ["magnitude", "wanda", "admm", "sparsegpt", "joint"])
def test_every_run_has_its_zeros(checkpoint, tmp_path, pattern, kind) -> None:
    steps = {
        "magnitude": Zeros(pattern, "magnitude"),
        "wanda": Zeros(pattern),
        "admm": Zeros(pattern, admm_steps=5),
        "sparsegpt": SparseGpt(16, 0, 16, 16, pattern=pattern),
        "joint": SparseGpt(4, 32, pattern=pattern),
    }
    parsed = parse_pattern(pattern, "test")
    for weight in matrices(applied(steps[kind], open_model(checkpoint), tmp_path)).values():
        counts = zero_runs(weight, parsed.run)
        assert bool((counts >= parsed.removed).all())
        assert kind == "joint" or float((counts == parsed.removed).float().mean()) > 0.99


def test_better_methods_change_the_product_less(tmp_path) -> None:
    """On one matrix with correlated inputs: SparseGPT, then ADMM, Wanda, magnitude."""
    from edgesdk.compress.gptq import sweep
    from edgesdk.compress.pruning.sparsegpt import Cheapest, Values

    random = torch.Generator().manual_seed(0)
    mix = torch.randn((384, 384), generator=random) * torch.linspace(0.5, 2, 384)
    inputs = torch.randn((1536, 384), generator=random) @ mix
    weight = torch.randn((80, 384), generator=random)
    products = inputs.T @ inputs
    pattern = Pattern(0.5)

    def lost(found: torch.Tensor) -> float:
        return float(((weight - found) @ inputs.T).square().sum())

    by_size = weight.masked_fill(pattern.lowest(weight.abs(), rows=False), 0)
    gone = pattern.lowest(weight.abs() * products.diagonal().sqrt(), rows=True)
    solved = Cheapest(Values(weight), pattern, weight.shape)
    sweep(weight, products, solved, SparseGpt(16, 0, 16, 16))
    updated = refit(weight, gone, products, 50)
    assert bool((updated[gone] == 0).all())
    assert lost(updated) < 0.8 * lost(weight.masked_fill(gone, 0)) < 0.8 * lost(by_size)
    assert lost(dense(solved.tensor())) < 0.8 * lost(weight.masked_fill(gone, 0))


def test_sensitive_layers_keep_more(checkpoint, tmp_path) -> None:
    model = open_model(checkpoint)

    class Quieter:  # the first layer hardly matters
        def get(self, name: str) -> torch.Tensor:
            tensor = dense(model.weights.get(name))
            return tensor / 20 if name in ("layers.0.down.weight", "layers.0.o.weight") else tensor

    made = applied(Zeros("50%", "magnitude", allocation="sensitivity"), model.with_weights(Quieter()), tmp_path)
    share = []
    for index in ("0", "1"):
        layer = torch.cat([each.flatten() for name, each in matrices(made).items() if name.split(".")[1] == index])
        share.append(float((layer == 0).float().mean()))
    assert share[0] > share[1] + 0.05
    assert sum(share) / 2 == pytest.approx(0.5, abs=0.01)


def test_runs_must_divide_the_rows(tmp_path) -> None:
    odd = open_model(make_checkpoint(tmp_path / "odd", intermediate_size=132))
    with pytest.raises(RecipeError, match=r"down.weight has rows of 132 weights, no multiple of 8") as failure:
        Zeros("4:8", "magnitude")(odd, setting(tmp_path))
    assert "skip" in (failure.value.hint or "")
    made = applied(Zeros("4:8", "magnitude", skip=("layers.*.down",)), odd, tmp_path)
    assert bool((dense(made.weights.get("layers.0.down.weight")) != 0).all())


def test_a_name_to_skip_must_match(checkpoint, tmp_path) -> None:
    with pytest.raises(RecipeError, match=r"'layers.7.\*'"):
        Zeros(skip=("layers.7.*",))(open_model(checkpoint), setting(tmp_path))


@pytest.mark.parametrize("recipe", ["w4g32-wanda2:4-gptq-qat", "w4g32-sparsegpt2:4-rec", "w4g32-wanda2:4-hqq-rec"])
def test_zeros_survive_rounding_and_learning(checkpoint, tmp_path, recipe) -> None:
    out = tmp_path / "out"
    described = compress_model(checkpoint, out, recipe=recipe, calibration=SMALL, checks=SKIP)
    assert described.reports[0]["zeros"] >= 0.5
    for weight in matrices(open_model(out)).values():
        assert bool((zero_runs(weight, 4) >= 2).all())


def test_recovery_keeps_zeros(checkpoint, tmp_path) -> None:
    model = open_model(checkpoint)
    for method in ("full", "lora"):
        recipe = Recipe("sparse", (Zeros("2:4"), Recovery(steps=3, method=method, batch=2, own_sequences=4)))
        (folder := tmp_path / method).mkdir()
        made, _ = recipe(model, setting(folder))
        for name, weight in matrices(made).items():
            assert bool((zero_runs(weight, 4) == 2).all()), name


@pytest.mark.parametrize(
    "steps",
    [
        (SparseGpt(4, 32), Zeros()),
        (SparseGpt(4, 32), Rotation()),
        (SparseGpt(4, 32), Depth()),
        (Zeros(), Rotation()),
        (Zeros(), Width()),
        (Zeros(), SparseGpt(4, 32)),
        (Rotation(), Recovery()),
    ],
)
def test_orders_that_undo_work_are_refused(steps) -> None:
    with pytest.raises(RecipeError, match=r"before|after"):
        Recipe("wrong", steps)


def test_nothing_to_prune_is_refused(checkpoint, tmp_path) -> None:
    with pytest.raises(RecipeError, match="every matrix"):
        Zeros(skip=("layers.*",))(open_model(checkpoint), setting(tmp_path))


def test_matrices_that_no_group_divides_are_pruned_in_float(checkpoint, tmp_path) -> None:
    odd = open_model(make_checkpoint(tmp_path / "odd", intermediate_size=132))
    for _ in range(2):  # the second time from what the first left
        result = SparseGpt(4, 64, pattern="50%")(odd, setting(tmp_path))
        assert result.report.tensors["float"] == 2
        assert sum("layers.0.down" in note for note in result.report.notes) == 1
        down = result.model.weights.get("layers.0.down.weight")
        assert isinstance(down, torch.Tensor)
        assert float((down == 0).float().mean()) == pytest.approx(0.5, abs=0.02)


# Structure


def test_layers_that_do_nothing_go_first(tmp_path) -> None:
    model = open_model(make_checkpoint(tmp_path / "deep", num_hidden_layers=5))

    class Idle:
        def get(self, name: str) -> torch.Tensor:
            tensor = dense(model.weights.get(name))
            silent = name.startswith(("layers.1.", "layers.3.")) and (".o." in name or ".down." in name)
            return tensor * 1e-3 if silent else tensor

    idle = model.with_weights(Idle())
    result = Depth(keep=0.75)(idle, setting(tmp_path))
    made = result.model
    assert result.report.notes == ("dropped 2 of 5 layers: 1, 3",)
    assert made.spec.parameters <= 0.75 * model.spec.parameters
    assert torch.equal(dense(made.weights.get("layers.1.q.weight")), dense(idle.weights.get("layers.2.q.weight")))
    ids = torch.arange(48).view(2, 24)
    before, after = (ReferenceModel(each).hidden([ids])[0] for each in (idle, made))
    assert float((before - after).abs().max()) < 0.1 * float(before.abs().max())


@pytest.mark.parametrize("step", [Depth, Width, Hidden])
@pytest.mark.parametrize("keep", [0.0, 1.0, -1.0, 2.0])
def test_shares_that_leave_nothing_or_take_nothing_are_refused(step, keep) -> None:
    with pytest.raises(RecipeError, match="between 0 and 1"):
        step(keep=keep)


def test_the_last_heads_of_a_layer_stay(checkpoint, tmp_path) -> None:
    model = open_model(checkpoint)
    with pytest.raises(RecipeError, match="one group of heads"):
        Width(keep=0.2)(model, setting(tmp_path))
    with pytest.raises(RecipeError, match="all layers but the 1 first and 1 last"):
        Depth(keep=0.5)(model, setting(tmp_path))


def test_groups_still_divide_what_is_left(tmp_path) -> None:
    """Heads of 16 with groups of 64: four heads go together, or none."""
    changes = {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 16, "intermediate_size": 512}
    model = open_model(make_checkpoint(tmp_path / "many", **changes))
    made, _ = open_recipe("w4g64-width70")(model, setting(tmp_path))
    for name in (name for name in made.spec.tensors() if is_linear(name)):
        assert not isinstance(made.weights.get(name), torch.Tensor), name


def test_norms_behind_layers_are_weighed(tmp_path) -> None:
    from edgesdk.model.random_weights import RandomWeights

    model = open_model(make_checkpoint(tmp_path / "plain"))
    layers = tuple(replace(layer, post_norms=True) for layer in model.spec.layers)
    spec = replace(model.spec, layers=layers)

    class Uneven(RandomWeights):  # the first layer's MLP hardly reaches the stream, however large its output is
        def get(self, name: str) -> torch.Tensor:
            tensor = super().get(name)
            if name == "layers.0.post_mlp_norm.weight":
                return torch.full_like(tensor, 1e-3)
            return 50 * tensor if name == "layers.0.down.weight" else tensor

    uneven = replace(model, spec=spec, weights=Uneven(spec))
    made = applied(Width(keep=0.85, heads=False), uneven, tmp_path)
    assert made.spec.layers[0].mlp.size < made.spec.layers[1].mlp.size


def test_neurons_that_do_nothing_go_and_the_rest_computes_the_same(checkpoint, tmp_path) -> None:
    model = open_model(checkpoint)

    class Idle:  # neurons 32 to 95, and the second group of heads
        def get(self, name: str) -> torch.Tensor:
            tensor = dense(model.weights.get(name)).clone()
            if name.endswith("down.weight"):
                tensor[:, 32:96] = 0
            if name.endswith(".o.weight"):
                tensor[:, 32:] = 0
            return tensor

    idle = model.with_weights(Idle())
    excess = 2 * (64 * 64 * 3 + 2 * 64 * (32 + 16))
    keep = 1 - (excess - 1) / model.spec.parameters
    made = applied(Width(keep=keep), idle, tmp_path)
    for layer in made.spec.layers:
        assert (layer.attention.heads, layer.attention.kv_heads, layer.mlp.size) == (2, 1, 64)
    ids = torch.arange(48).view(2, 24)
    before, after = (ReferenceModel(each).hidden([ids])[0] for each in (idle, made))
    assert float((before - after).abs().max()) < 1e-3 * float(before.abs().max())


def test_channels_that_nothing_uses_go_and_the_rest_computes_the_same(tmp_path) -> None:
    model = open_model(make_checkpoint(tmp_path / "untied", tie_word_embeddings=False))
    turn = torch.linalg.qr(torch.randn((64, 64), generator=torch.Generator().manual_seed(0)))[0]
    used = turn[:, :32] @ turn[:, :32].T  # the stream has 32 dimensions

    class Narrow:
        def get(self, name: str) -> torch.Tensor:
            tensor = dense(model.weights.get(name))
            if name == "embed.weight":
                return tensor @ used
            if name.endswith((".o.weight", ".down.weight")):
                return used @ tensor
            return tensor

    narrow = model.with_weights(Narrow())
    made = applied(Hidden(keep=0.6), narrow, tmp_path)
    assert made.spec.hidden == 32
    ids = torch.arange(48).view(2, 24)
    before, after = (reference.logits(reference.hidden([ids])[0]) for reference in map(ReferenceModel, (narrow, made)))
    assert float((before - after).abs().max()) < 5e-3 * float(before.abs().max())


@pytest.mark.parametrize(
    "recipe", ["w16-depth80-heal", "w16-width75-heal", "w4g32-hidden75-heal-gptq", "w16-sparsegpt50"]
)
def test_an_interrupted_run_resumes_to_the_same_bytes(tmp_path, recipe, monkeypatch) -> None:
    from . import test_compress

    monkeypatch.setattr("edgesdk.compress.recovery._SAVED", 0.0)
    chosen = open_recipe(recipe)
    chosen = short(chosen, steps=6)
    checkpoint = make_checkpoint(tmp_path / "deep", num_hidden_layers=3)
    arguments = {"recipe": chosen, "calibration": SMALL, "checks": SKIP}
    compress_model(checkpoint, tmp_path / "whole", **arguments)
    for title, count in (("Narrowing", 1), ("Learning from", 3), ("Rounding layers", 1), ("Pruning (Sp", 1)):
        out = tmp_path / f"cut{count}{title[:3]}"
        try:
            compress_model(checkpoint, out, progress=test_compress.Interrupted(title, count), **arguments)
        except KeyboardInterrupt:
            compress_model(checkpoint, out, resume=True, **arguments)
        for name in ("model.safetensors", "checkpoint.json"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_recovery_brings_predictions_nearer(checkpoint, tmp_path) -> None:
    model = open_model(checkpoint)
    shaped = applied(Width(keep=0.8, heads=False), model, tmp_path)
    ids = replace(SMALL, seed=9).tokens(model, SILENT)  # text that nothing is learned from

    def divergence(made: Model) -> float:
        wanted, found = (
            torch.log_softmax(each.logits(each.hidden([ids])[0]), -1) for each in map(ReferenceModel, (model, made))
        )
        return float((wanted.exp() * (wanted - found)).sum(-1).mean())

    for method, rate in (("full", 3e-3), ("lora", 2e-2)):
        (folder := tmp_path / method).mkdir()
        step = Recovery(steps=200, method=method, rate=rate, batch=4, own_sequences=512)
        result = step(shaped, setting(folder, original=model))
        assert divergence(result.model) < 0.8 * divergence(shaped)
        assert "200 steps" in result.report.notes[0]


def test_recovery_ends_at_its_time_limit(checkpoint, tmp_path) -> None:
    model = open_model(checkpoint)
    result = Recovery(minutes=0.01, batch=1, own_sequences=4)(model, setting(tmp_path, original=model))
    assert "steps over" in result.report.notes[0]


def test_a_smaller_student_learns_from_a_given_teacher(checkpoint, tmp_path) -> None:
    student = open_model(make_checkpoint(tmp_path / "student", num_hidden_layers=1))
    result = Recovery(steps=2, batch=1, own_sequences=4, teacher=str(checkpoint))(
        student, setting(tmp_path, original=student)
    )
    assert result.model.spec == student.spec
    with pytest.raises(RecipeError, match="no recovery"):
        compress_model(student, tmp_path / "out", recipe="w4g32", teacher=str(checkpoint))
    other = make_checkpoint(tmp_path / "other")
    definition = json.loads((other / "tokenizer.json").read_text())
    definition["added_tokens"][0]["content"] = "<|another|>"
    (other / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(EdgeError, match="different tokens"):
        (folder := tmp_path / "again").mkdir()
        Recovery(steps=1, teacher=str(other))(student, setting(folder, original=student))


# Every runtime


@pytest.mark.parametrize(
    ("target", "recipe"),
    [
        ("linux-x86_64", "w4g32-width75-heal-sparsegpt50-a8"),
        ("host", "w4g32-width75-a8"),
        ("litert-arm64", "w4g32-width75"),
        ("linux-x86_64", "w4g32-hidden75"),
        ("host", "w4g32-hidden75"),
        ("cortex-m4f", "w8-width75"),
    ],
)
def test_every_runtime_takes_what_is_left(checkpoint, tmp_path, target, recipe) -> None:
    chosen = open_recipe(recipe)
    manifest = export(
        checkpoint, target, tmp_path / "out", recipe=short(chosen, steps=2), context=128, calibration=SMALL
    )
    assert manifest.model.parameters < 0.9 * open_model(checkpoint).spec.parameters or "hidden" in recipe
    if manifest.parity is not None:
        assert all(row["top1"] > 0.9 for row in manifest.parity)
        assert manifest.quality.divergence is not None
    assert manifest.recipe.passes[0]["use"] in ("width", "hidden")


def test_the_command_line_says_what_a_target_gains(checkpoint, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    arguments = ["compress", str(checkpoint), "-o", str(out), "--skip-checks", "--calibration-length", "24"]
    assert run([*arguments, "-r", "w4g32-width75-sparsegpt50", "-t", "android-arm64"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "fewer heads and neurons on android-arm64: speed, memory, storage, download" in text
    assert "zeros (50%) on android-arm64: download; not speed, memory, storage" in text
    assert edgesdk.open_model(out).compression is not None
