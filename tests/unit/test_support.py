"""The support matrix says what the converters say: a refusal in it is the message of an export, word for word."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from edgesdk.cli import edgesdk
from edgesdk.converter import CONVERTERS, ProgramOptions
from edgesdk.errors import EdgeError, ModelError
from edgesdk.model.families import FAMILIES
from edgesdk.model.families.support import Cell, FamilySupport, Variant, support
from edgesdk.model.opening import open_model
from tests.family_matrix import differences, matrix

from .family_cells import refusal
from .family_rows import CONTEXT, ROWS, save_checkpoint

BY_VARIANT = {(family.name, variant.name): variant for family in support() for variant in family.variants}
SCHEMES = {"float32": "none", "float16": "none"}


def test_every_family_and_every_row_is_there() -> None:
    assert {family.name for family in support()} == set(FAMILIES.names())
    assert {variant for _, variant in BY_VARIANT} == {row.name for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_converters_refuse_what_the_matrix_says_and_nothing_else(row, tmp_path) -> None:
    save_checkpoint(row, tmp_path)
    model = open_model(tmp_path)
    for runtime, cells in BY_VARIANT[model.spec.family, row.name].runtimes.items():
        if runtime not in CONVERTERS.names():
            continue
        for scheme, cell in cells.items():
            float_type, bits = (scheme, 32) if scheme in SCHEMES else ("float32", 8)
            options = ProgramOptions(CONTEXT, float_type, bits)
            assert refusal(CONVERTERS.get(runtime), model, SCHEMES.get(scheme, scheme), options) == cell.refused


def test_verdicts() -> None:
    good, bad = (
        Cell(difference=1e-6),
        Cell(refused="family x has a mixture of experts, which the y converter does not build"),
    )

    def verdict(*variants: dict[str, Cell]) -> str:
        return FamilySupport("x", tuple(Variant(str(i), {"y": v}) for i, v in enumerate(variants))).verdict("y")

    assert verdict({"float32": good}, {"float32": good}) == "yes"
    assert verdict({"float32": good}, {"float32": bad}) == "yes, but not with a mixture of experts"
    assert verdict({"float32": good, "float16": bad}) == "float32; other floats not: a mixture of experts"
    assert verdict({"float32": bad}) == "no: a mixture of experts"
    assert verdict() == "not tried"


def test_results_are_compared_cell_by_cell() -> None:
    key = ("llama", "llama", "onnx", "w8")
    assert differences({key: {"passed": True, "error": 0.1}}, {key: {"error": 0.3}}) == []
    assert differences({key: {"passed": False, "error": 9.0}}, {key: {"error": 0.3}}) == [
        "llama / llama / onnx / w8: failed"
    ]
    assert differences({}, {key: {}}) == ["llama / llama / onnx / w8: said, but no test gave it"]
    assert differences({key: {"passed": True}}, {}) == ["llama / llama / onnx / w8: found, but not said"]
    assert "but said: no" in differences({key: {"passed": True}}, {key: {"refused": "no"}})[0]
    assert matrix({key: {"passed": True, "error": 0.123}})["families"][0]["variants"][0]["runtimes"] == {
        "onnx": {"w8": {"error": 0.12}}
    }


def test_the_command_lists_families_and_reasons() -> None:
    shown = CliRunner().invoke(edgesdk, ["models", "--families", "--json"])
    assert shown.exit_code == 0
    assert {family["name"] for family in json.loads(shown.output)} == set(FAMILIES.names())
    table = CliRunner().invoke(edgesdk, ["models", "--families"], terminal_width=400).output
    assert "mixtral" in table


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("mistrall", r"nearest: mistral.*models --families|nearest: mistral"),
        ("falcon_h1", r"attention and Mamba-2 side by side.*nearest: falcon"),
        ("zzz", r"belongs to no family that edgesdk knows; known: bitnet"),
    ],
)
def test_an_unknown_architecture_names_its_nearest(tmp_path, kind, says) -> None:
    save_checkpoint(ROWS[0], tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": kind}))
    with pytest.raises(ModelError, match=says) as failure:
        open_model(tmp_path)
    assert isinstance(failure.value, EdgeError)
    assert "adding-one-more" in (failure.value.hint or "")
