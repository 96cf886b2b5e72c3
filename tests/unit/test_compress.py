"""Compressed checkpoints: written once, carried by every export, resumed to the same bytes, guarded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import edgesdk
from edgesdk.cli import run
from edgesdk.compress.allocation import parse_size
from edgesdk.compress.base import PORTABLE, Setting
from edgesdk.compress.calibration import Calibration
from edgesdk.compress.recipe import choose_recipe, open_recipe
from edgesdk.compressing import compress_model
from edgesdk.converter import CONVERTERS
from edgesdk.errors import EdgeError, ModelError, RecipeError
from edgesdk.exporting import Checks, export
from edgesdk.model import Compression
from edgesdk.model.checkpoint import read_description
from edgesdk.model.opening import open_model
from edgesdk.model.spec import is_linear
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.options import program_options
from edgesdk.progress import SILENT
from edgesdk_converters.executorch import readback as executorch
from edgesdk_converters.onnx import readback as onnx
from edgesdk_converters.tflite import readback as tflite

from ..conftest import make_checkpoint
from ..integers import assert_carried

SMALL = Calibration(sequences=4, length=24)
SKIP = Checks(skip=True)


@pytest.fixture(scope="module")
def compressed(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with mixed bits."""
    out = tmp_path_factory.mktemp("compressed") / "tiny"
    recipe = open_recipe("w4g32-gptq")
    mixed = replace(recipe.passes[0], exceptions={"layers.*.v": 8, "layers.1.down": 8})
    compress_model(checkpoint, out, recipe=replace(recipe, passes=(mixed,)), calibration=SMALL)
    return out


class Interrupted:
    """Progress that a user interrupts in a stage after so many steps."""

    def __init__(self, title: str, steps: int) -> None:
        self._title, self._left = title, steps

    @contextmanager
    def stage(self, title: str, total: int | None) -> Iterator[Interrupted]:
        self._counts = title.startswith(self._title)
        yield self

    def advance(self, steps: int = 1) -> None:
        if self._counts:
            self._left -= 1
            if not self._left:
                raise KeyboardInterrupt

    def note(self, text: str) -> None:
        pass


def test_every_runtime_carries_the_same_integers(compressed, tmp_path) -> None:
    model = open_model(compressed)
    names = [name for name in model.spec.tensors() if is_linear(name)]
    assert {model.weights.get(name).scheme for name in names} == {"w4g32", "w8"}
    for target, reader in (("linux-x86_64", onnx), ("host", executorch), ("litert-arm64", tflite)):
        manifest = export(compressed, target, tmp_path / target, context=64, checks=SKIP)
        assert_carried(model, reader.read_packed(tmp_path / target / manifest.program.main))
        assert manifest.recipe.name == "w4g32-gptq"
        assert manifest.recipe.passes[0]["exceptions"] == {"layers.*.v": 8, "layers.1.down": 8}


def test_integers_that_kernels_cannot_hold_are_refused_by_name(checkpoint, tmp_path) -> None:
    plain = open_model(checkpoint)
    rounded, _ = open_recipe("w4g32")(plain, Setting(tmp_path, SILENT, PORTABLE))

    class Asymmetric:
        def get(self, name: str) -> object:
            stored = rounded.weights.get(name)
            if not isinstance(stored, QuantizedTensor) or stored.bits != 4:
                return stored
            return replace(stored, zero_points=torch.ones(stored.scales.shape, dtype=torch.int8))

    names = [name for name in plain.spec.tensors() if is_linear(name)]
    done = Compression("awq", dict.fromkeys(names, (4, 32)))
    model = replace(plain, weights=Asymmetric(), compression=done)
    with pytest.raises(RecipeError, match=r"layers\.0\.q\.weight is w4g32-asym .* zero points"):
        export(model, "android-arm64", tmp_path / "out", checks=SKIP)
    export(model, "linux-x86_64", tmp_path / "board", checks=SKIP)


def test_an_export_to_a_size_leaves_nothing_beside_it(checkpoint, tmp_path) -> None:
    (folder := tmp_path / "only").mkdir()
    export(checkpoint, "linux-x86_64", folder / "out", recipe="w4g32@0.6MB", calibration=SMALL, checks=SKIP)
    assert [path.name for path in folder.iterdir()] == ["out"]


def test_an_export_measures_what_it_can_and_says_the_rest(compressed, tmp_path) -> None:
    manifest = export(compressed, "linux-x86_64", tmp_path / "out", context=256)
    assert manifest.parity
    assert manifest.quality.divergence is None
    assert "compressed before" in (manifest.quality.divergence_reason or "")
    with pytest.raises(EdgeError, match="--max-kl compares"):
        export(compressed, "linux-x86_64", tmp_path / "other", checks=Checks(max_kl=1.0))
    kept = export(compressed, "linux-x86_64", tmp_path / "kept", recipe="none-a32", context=64, checks=SKIP)
    assert kept.recipe.activations == 32
    assert kept.recipe.passes == manifest.recipe.passes


def test_it_opens_as_it_was_written(checkpoint, compressed) -> None:
    original, model = open_model(checkpoint), open_model(compressed)
    assert (model.spec, model.origin.name) == (original.spec, original.origin.name)
    assert model.tokenizer.encode("a b") == original.tokenizer.encode("a b")
    assert torch.equal(model.weights.get("final_norm.weight").float(), original.weights.get("final_norm.weight"))
    assert model.compression.grids["layers.0.q.weight"] == (4, 32)
    assert model.compression.grids["layers.0.v.weight"] == (8, 0)
    again = compressed.parent / "again"
    with pytest.raises(RecipeError, match="already compressed"):
        compress_model(compressed, again)
    assert not again.exists()


@pytest.mark.parametrize(
    ("recipe", "title", "steps"),
    [
        ("w4g32-gptq", "Rounding layers", 1),
        ("w3g32-awq-gptq", "Scaling channels", 2),
        ("w4g32@5bpw", "Measuring sensitivity", 1),
        ("w4g32-rec-qat", "Learning rounding", 1),
    ],
)
def test_an_interrupted_run_resumes_to_the_same_bytes(checkpoint, tmp_path, recipe, title, steps) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    compress_model(checkpoint, whole, recipe=recipe, calibration=SMALL)
    with pytest.raises(KeyboardInterrupt):
        compress_model(checkpoint, cut, recipe=recipe, calibration=SMALL, progress=Interrupted(title, steps))
    assert not cut.exists()
    work = tmp_path / "cut.partial"
    assert work.is_dir()
    with pytest.raises(EdgeError, match="holds an interrupted run"):
        compress_model(checkpoint, cut, recipe=recipe, calibration=SMALL)
    with pytest.raises(EdgeError, match="had another recipe"):
        compress_model(checkpoint, cut, recipe="w8", calibration=SMALL, resume=True)
    compress_model(checkpoint, cut, recipe=recipe, calibration=SMALL, resume=True)
    assert not work.exists()
    for name in ("checkpoint.json", "model.safetensors"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_a_run_that_fails_at_once_leaves_nothing(checkpoint, tmp_path) -> None:
    with pytest.raises(EdgeError, match="less than one calibration sequence"):
        (tmp_path / "short.txt").write_text("x")
        text = Calibration(tmp_path / "short.txt", 2, 32)
        compress_model(checkpoint, tmp_path / "out", recipe="w4g32-gptq-e16", calibration=text)
    assert [path.name for path in tmp_path.iterdir()] == ["short.txt"]


def test_a_size_is_met_with_the_bits_that_matter(checkpoint, tmp_path) -> None:
    model, found = open_model(checkpoint), {}
    for size in ("3.0bpw", "4.0bpw", "5.5bpw"):
        described = compress_model(checkpoint, tmp_path / size, recipe=f"w4g32-e4@{size}", calibration=SMALL)
        grids = [grid.bits for name, grid in described.grids.items() if is_linear(name)]
        found[size] = sum(grids) / len(grids)
        weights = next(file.size for file in described.files if file.path == "model.safetensors")
        header = int.from_bytes((tmp_path / size / "model.safetensors").read_bytes()[:8], "little") + 8
        assert weights - header <= parse_size(size, model.spec.parameters)
    assert found["3.0bpw"] < found["4.0bpw"] < found["5.5bpw"]
    with pytest.raises(RecipeError, match=r"no choice of bits makes this .* the smallest, 2 bits in every layer, has"):
        compress_model(checkpoint, tmp_path / "tiny", recipe="w4g32", size="1bpw", calibration=SMALL)
    assert not (tmp_path / "tiny.partial").exists()
    with pytest.raises(RecipeError, match="one rounding pass"):
        compress_model(checkpoint, tmp_path / "tiny", recipe="none", size="4bpw")


@pytest.mark.parametrize("text", ["", "90", "MB", "0MB", "90 miles", "-3MB"])
def test_sizes_that_are_none_are_refused(text) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        parse_size(text, 1)


def test_sizes_are_read() -> None:
    assert parse_size("90MB", 1) == 90_000_000
    assert parse_size("1.5 kB", 1) == 1500
    assert parse_size("4.5bpw", 1000) == 562


def test_damage_is_refused(compressed, tmp_path) -> None:
    import shutil

    def changed(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(compressed, folder)
        return folder

    folder = changed("flipped")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="SHA-256"):
        open_model(folder)
    folder = changed("cut")
    (folder / "model.safetensors").write_bytes(data[:1000])
    with pytest.raises(ModelError, match="size or SHA-256"):
        open_model(folder)
    folder = changed("missing")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="missing"):
        open_model(folder)
    for name, value, message in (("newer", 99, "schema 99"), ("older", 0, "schema 0"), ("odd", "x", "schema 'x'")):
        folder = changed(name)
        described = json.loads((folder / "checkpoint.json").read_text())
        (folder / "checkpoint.json").write_text(json.dumps({**described, "schema": value}))
        with pytest.raises(ModelError, match=message):
            open_model(folder)
    folder = changed("outside")
    described["files"][0]["path"] = "../../etc/passwd"
    (folder / "checkpoint.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match="unsafe file name"):
        open_model(folder)


def test_the_command_line(checkpoint, tmp_path, capsys) -> None:
    out = str(tmp_path / "out")
    options = ["--calibration-sequences", "2", "--calibration-length", "16"]
    assert run(["compress", str(checkpoint), "-r", "w4g32-gptq", "-o", out, *options]) == 0
    shown = capsys.readouterr().out
    assert "14 x w4g32" in shown
    assert "edgesdk export" in shown
    assert run(["compress", str(checkpoint), "-r", "balanced", "-t", "host", "-o", out, *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == "w4g32-gptq"
    assert run(["export", str(checkpoint), "-t", "host", "--size", "1MB", "-r", "w4g32", "-o", f"{out}2"]) == 0
    capsys.readouterr()
    assert run(["compress", str(checkpoint), "-o", str(checkpoint)]) == 1
    assert "not a compressed checkpoint" in capsys.readouterr().err
    assert run(["compress", str(checkpoint), "-o", out, "--size", "1kB"]) == 1
    assert "no choice of bits" in capsys.readouterr().err
    assert run(["compress", str(checkpoint), "-o", out, "--calibration", "nowhere.txt"]) == 1
    assert "no such calibration text" in capsys.readouterr().err
    assert edgesdk.open_model(out).compression is not None
    capsys.readouterr()
    assert run(["compress", str(checkpoint), "-o", f"{out}3", "-r", "w2g32", "--max-kl", "0.0001"]) == 1
    assert "over the limit of 0.0001" in capsys.readouterr().err
    assert not Path(f"{out}3").exists()


def test_every_preset_passes_its_target(checkpoint) -> None:
    model = open_model(checkpoint)
    for name in edgesdk.target_names():
        target = edgesdk.open_target(name)
        assert set(target.recipes) == {"fast", "balanced", "best"}
        for preset in target.recipes:
            recipe = open_recipe(preset, target.recipes)
            options = program_options(model, target, recipe, 64)
            CONVERTERS.get(target.converter).check(recipe.spec(model.spec), recipe, options, target)


def test_what_makes_no_sense_is_refused(checkpoint, tmp_path) -> None:
    for recipe, message in (
        ("w8g32", "which not every target holds"),
        ("w8t@9bpw", "one scale a row"),
        ("w8@6bpw", "one scale a row"),
    ):
        with pytest.raises(RecipeError, match=message):
            compress_model(checkpoint, tmp_path / "out", recipe=recipe)
    file = tmp_path / "recipe.toml"
    for text, message in (
        ("[[pass]]\nuse='rtn'\n[[pass]]\nuse='awq'\n", "prepares rounding"),
        ("[[pass]]\nuse='qat'\n", "learns what was rounded"),
        ("[[pass]]\nuse='rtn'\n[pass.exceptions]\n'layers.*.v.weight'=8\n", "matches no matrix"),
        ("[[pass]]\nuse='rtn'\n[pass.exceptions]\n'layers.*.v'=5\n", "must be 2, 3, 4, 8 or 16"),
        ("[[pass]]\nuse='rtn'\n[[pass]]\nuse='qat'\nminutes=nan\n", "must be above 0"),
    ):
        file.write_text(text)
        with pytest.raises(RecipeError, match=message):
            compress_model(checkpoint, tmp_path / "out", recipe=str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_a_size_keeps_groups_and_what_the_user_fixed(checkpoint, tmp_path) -> None:
    recipe = open_recipe("w4g32")
    fixed = replace(recipe.passes[0], exceptions={"layers.0.q": 16})
    made = compress_model(
        checkpoint, tmp_path / "out", recipe=replace(recipe, passes=(fixed,), size="7bpw"), calibration=SMALL
    )
    grids = {name: (grid.bits, grid.group) for name, grid in made.grids.items() if is_linear(name)}
    assert "layers.0.q.weight" not in grids
    assert {group for bits, group in grids.values() if bits < 8} == {32}


def test_the_observer_and_notes_survive(checkpoint, tmp_path) -> None:
    compress_model(checkpoint, tmp_path / "out", recipe="w8-a16-mse", checks=SKIP)
    chosen = choose_recipe(open_model(tmp_path / "out"), open_recipe("none"))
    assert (chosen.observer, chosen.activations) == ("mse", 16)
    odd = make_checkpoint(tmp_path / "odd", intermediate_size=100)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    compress_model(odd, whole, recipe="w4g32", target="cortex-m4f", checks=SKIP)
    with pytest.raises(KeyboardInterrupt):
        progress = Interrupted("Writing", 1)
        compress_model(odd, cut, recipe="w4g32", target="cortex-m4f", checks=SKIP, progress=progress)
    with pytest.raises(EdgeError, match="another target"):
        compress_model(odd, cut, recipe="w4g32", target="cortex-m33", checks=SKIP, resume=True)
    compress_model(odd, cut, recipe="w4g32", target="cortex-m4f", checks=SKIP, resume=True)
    assert (cut / "checkpoint.json").read_bytes() == (whole / "checkpoint.json").read_bytes()
    assert "has 8 bits a row" in (whole / "checkpoint.json").read_text()


def test_a_description_that_nothing_can_hold_is_refused(compressed, tmp_path) -> None:
    import shutil

    changes = {
        "unknown": {"grids": {"nothing": {"bits": 4, "group": 32}}},
        "bits": {"grids": {"layers.0.q.weight": {"bits": 5, "group": 32}}},
        "group": {"grids": {"layers.0.q.weight": {"bits": 4, "group": 0}}},
        "norm": {"grids": {"final_norm.weight": {"bits": 4, "group": 32}}},
        "files": {"files": []},
        "reports": {"reports": [{}]},
        "activations": {"activations": 5},
    }
    for name, change in changes.items():
        folder = tmp_path / name
        shutil.copytree(compressed, folder)
        described = json.loads((folder / "checkpoint.json").read_text())
        (folder / "checkpoint.json").write_text(json.dumps({**described, **change}))
        with pytest.raises(ModelError, match="no checkpoint can hold"):
            open_model(folder)


@pytest.mark.parametrize(("target", "widened"), [("host", True), ("litert-arm64", True), ("linux-x86_64", False)])
def test_two_bits_go_to_every_target(checkpoint, tmp_path, target, widened) -> None:
    manifest = export(checkpoint, target, tmp_path / "out", recipe="w2g32", context=128)
    assert any("stored in 4 on this target" in note for note in manifest.notes) is widened
    assert manifest.parity
    assert manifest.parity[0]["top1"] > 0.9


def test_what_compression_cost_is_recorded(checkpoint, compressed) -> None:
    described = read_description(compressed)
    assert described.quality is not None
    assert 0 < described.quality["own_text"]["kl"] < 1
    assert described.quality["perplexity"] is None
    skipped = compress_model(checkpoint, compressed.parent / "skipped", recipe="w8", checks=SKIP)
    assert (skipped.quality, skipped.quality_reason) == (None, "skipped with --skip-checks")
    rotated = compress_model(checkpoint, compressed.parent / "rotated", recipe="w8-rot")
    assert rotated.quality["own_text"]["kl"] < 0.01
    report = edgesdk.compare_quality(checkpoint, compressed.parent / "rotated", samples=0)
    assert "rotated" in (report.layers_reason or "")
