"""Recipes and targets: names, files, and what is wrong with them."""

from __future__ import annotations

import pytest

from edgesdk.compress.base import WHOLE, Setting
from edgesdk.compress.recipe import BUILTIN, open_recipe
from edgesdk.compress.rtn import RoundToNearest
from edgesdk.converter import CONVERTERS, ProgramOptions
from edgesdk.doctor import tiny_model
from edgesdk.errors import EdgeError, RecipeError, TargetError
from edgesdk.model.tensors import QuantizedTensor
from edgesdk.progress import SILENT
from edgesdk.targets import open_target, target_names


@pytest.mark.parametrize("name", list(BUILTIN))
def test_listed_recipes_open(name) -> None:
    assert open_recipe(name).name == name


@pytest.mark.parametrize(
    ("name", "step", "activations"),
    [
        ("w4g32", RoundToNearest(4, 32, 8, 8), None),
        ("w4g128-e4-h8-a32", RoundToNearest(4, 128, 4, 8), 32),
        ("w8", RoundToNearest(8, 0, 8, 8), None),
        ("w8-e16-a8", RoundToNearest(8, 0, 16, 16), 8),
        ("w8-a16-kv8", RoundToNearest(8, 0, 8, 8), 16),
        ("w8t-a16", RoundToNearest(8, WHOLE, 8, 8), 16),
        ("w8t-e16", RoundToNearest(8, WHOLE, 16, 16), None),
    ],
)
def test_names_decode(name, step, activations) -> None:
    recipe = open_recipe(name)
    assert recipe.passes == (step,)
    assert recipe.activations == activations


@pytest.mark.parametrize(
    "name", ["", "w5g32", "w4g33", "w4g32-x8", "W4", "none-e8", "w4 g32", "w4t", "w8tg32", "w8t-gptq", "w8-a4"]
)
def test_other_names_do_not(name) -> None:
    with pytest.raises(RecipeError, match="no recipe"):
        open_recipe(name)


def test_one_scale_serves_a_whole_matrix(tmp_path) -> None:
    model = tiny_model()
    rounded, (report,) = open_recipe("w8t")(model, Setting(tmp_path, SILENT))
    assert report.tensors == {"w8": 16}
    for name in model.spec.tensors():
        stored = rounded.weights.get(name)
        if not isinstance(stored, QuantizedTensor):
            assert name.endswith("norm.weight")
            continue
        assert len(stored.scales.unique()) == 1 and stored.values.int().abs().max() >= 127
        error = (stored.dequantize() - model.weights.get(name)).abs().max()
        assert error <= 0.51 * stored.scales[0, 0].abs() + 1e-6 or stored.values.max() == 127


def test_a_checkpoints_rows_are_rounded_again_when_one_scale_is_wanted(tmp_path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "whole").mkdir()
    rows = open_recipe("w8")(tiny_model(), Setting(tmp_path / "rows", SILENT))[0]
    again = open_recipe("w8t")(rows, Setting(tmp_path / "whole", SILENT))[0]
    name = "layers.0.q.weight"
    assert len(rows.weights.get(name).scales.unique()) > 1 == len(again.weights.get(name).scales.unique())


def test_int16_activations_are_refused_where_the_target_has_none() -> None:
    spec = tiny_model().spec
    for name in ("linux-x86_64", "host"):
        target, recipe = open_target(name), open_recipe("w8-a16")
        with pytest.raises(RecipeError, match=f"target {name} has no int16 activations"):
            CONVERTERS.get(target.converter).check(spec, recipe, ProgramOptions(64, "float32", 16), target)


def test_a_file_says_the_same_as_a_name(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nactivations = 8\n[[pass]]\nuse = "rtn"\nbits = 4\ngroup = 64\nembedding_bits = 4\n')
    recipe = open_recipe(str(path))
    assert (recipe.name, recipe.activations) == ("mine", 8)
    assert recipe.passes == (RoundToNearest(4, 64, 4, 8),)
    assert recipe.describe()[0] == {
        "use": "rtn",
        "bits": 4,
        "group": 64,
        "embedding_bits": 4,
        "head_bits": 8,
        "exceptions": {},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[[pass]]\nuse = 'rtn'\nbitz = 4\n",
            r"unknown key 'bitz'; known here: bits, embedding_bits, exceptions, group",
        ),
        ("[[pass]]\nuse = 'rnt'\n", r"no pass 'rnt' \(did you mean 'rtn'\?\)"),
        ("[[pass]]\nbits = 4\n", "pass 1 needs 'use'"),
        ("[[pass]]\nuse = 'rtn'\nbits = 5\n", "'bits' must be 2, 3, 4, 8 or 16, found 5"),
        ("[[pass]]\nuse = 'rtn'\nbits = 'four'\n", "key 'bits'"),
        ("[[pass]]\nuse = 'rtn'\ngroup = 48\n", "'group' must be -1, 0, 32, 64 or 128"),
        ("[[pass]]\nuse = 'rtn'\ngroup = -1\n", "needs 8 bits, and fewer were asked for"),
        ("[[pass]]\nuse = 'gptq'\nbits = 8\ngroup = -1\n", r"is for rounding to nearest \(rtn\) only"),
        ("activations = 7\n", "'activations' must be 8, 16 or 32"),
        ("activations = [\n", "not valid TOML"),
        ("colour = 'red'\n", "unknown key 'colour'"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path, text, message) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as failure:
        open_recipe(str(path))
    assert "mine.toml" in failure.value.message or "rtn" in failure.value.message


@pytest.mark.parametrize("name", target_names())
def test_every_target_loads_and_its_converter_exists(name) -> None:
    target = open_target(name)
    assert target.converter in CONVERTERS.names()
    assert target.memory_mb > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("memory_mb = 'lots'", "key 'memory_mb'"),
        ("wings = 2", "unknown key 'wings'"),
        ("[runtime.extra]\nx = 1", r"unknown key 'runtime\.extra'"),
    ],
)
def test_a_wrong_target_is_named_with_its_key(tmp_path, monkeypatch, change, message) -> None:
    from edgesdk.targets import targets_dir

    text = (targets_dir() / "linux-x86_64" / "target.toml").read_text()
    key = change.partition(" ")[0]
    lines = [line for line in text.splitlines() if not line.startswith(f"{key} ")]
    lines = [*lines, change] if change.startswith("[") else [change, *lines]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "target.toml").write_text("\n".join(lines))
    monkeypatch.setenv("EDGESDK_TARGETS", str(tmp_path))
    with pytest.raises(TargetError, match=message):
        open_target("mine")


def test_a_missing_extra_names_the_command(monkeypatch) -> None:
    import builtins

    from edgesdk import doctor

    real = builtins.__import__

    def without(name: str, *arguments: object, **named: object) -> object:
        if name.partition(".")[0] == "onnx_ir":
            raise ModuleNotFoundError("No module named 'onnx_ir'", name="onnx_ir")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    (finding,) = [found for found in doctor.examine() if found.converter == "onnx"]
    assert not finding.ok
    assert "pip install 'edgesdk[onnx]'" in finding.detail


def test_doctor_finds_the_converters_well() -> None:
    from edgesdk.doctor import examine

    assert all(finding.ok for finding in examine()), examine()


def test_plugins_and_unknown_names_share_one_lookup() -> None:
    with pytest.raises(EdgeError, match=r"no converter 'onxn' \(did you mean 'onnx'\?\)"):
        CONVERTERS.get("onxn")
