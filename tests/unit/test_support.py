"""The support matrix says what the converters say: a refusal in it is the message of an export, word for word."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from edgesdk.cli import edgesdk
from edgesdk.converter import CONVERTERS, ProgramOptions
from edgesdk.errors import EdgeError, ModelError
from edgesdk.kinds import DECODER, ENCODER, SEQ2SEQ, VISION
from edgesdk.model.encoders import ENCODERS
from edgesdk.model.families import FAMILIES
from edgesdk.model.opening import open_any, open_model
from edgesdk.model.seq2seq import SEQ2SEQS
from edgesdk.model.support import Cell, FamilySupport, Variant, Verdict, support
from edgesdk.model.vision import VISIONS
from tests.family_matrix import differences, matrix

from . import encoder_rows, seq2seq_rows, vision_rows
from .cells import Other
from .family_cells import refusal
from .family_rows import CONTEXT, ROWS, save_checkpoint

BY_VARIANT = {(family.kind, family.name, variant.name): variant for family in support() for variant in family.variants}
SCHEMES = {"float32": "none", "float16": "none"}
REGISTRIES = {DECODER: FAMILIES, ENCODER: ENCODERS, SEQ2SEQ: SEQ2SEQS, VISION: VISIONS}
OTHERS = [
    *((ENCODER, row, encoder_rows.save_encoder) for row in encoder_rows.ROWS),
    *((SEQ2SEQ, row, seq2seq_rows.save_seq2seq) for row in seq2seq_rows.ROWS),
    *((VISION, row, vision_rows.save_vision) for row in vision_rows.ROWS),
]


def test_every_family_and_every_row_is_there() -> None:
    for kind, registry in REGISTRIES.items():
        assert {family.name for family in support() if family.kind == kind} == set(registry.names())
    rows = {(DECODER, row.name) for row in ROWS} | {(kind, row.name) for kind, row, _ in OTHERS}
    assert {(kind, variant) for kind, _, variant in BY_VARIANT} == rows


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_converters_refuse_what_the_matrix_says_and_nothing_else(row, tmp_path) -> None:
    save_checkpoint(row, tmp_path)
    model = open_model(tmp_path)
    for runtime, cells in BY_VARIANT[DECODER, model.spec.family, row.name].runtimes.items():
        if runtime not in CONVERTERS.names():
            continue
        for scheme, cell in cells.items():
            float_type, bits = (scheme, 32) if scheme in SCHEMES else ("float32", 8)
            options = ProgramOptions(CONTEXT, float_type, bits)
            assert refusal(CONVERTERS.get(runtime), model, SCHEMES.get(scheme, scheme), options) == cell.refused


@pytest.mark.parametrize(("kind", "row", "save"), OTHERS, ids=lambda part: getattr(part, "name", ""))
def test_the_same_of_models_that_are_no_decoders(kind, row, save, tmp_path) -> None:
    save(row, tmp_path)
    other = Other(kind, row.name, open_any(tmp_path), CONTEXT)
    for runtime, cells in BY_VARIANT[kind, other.model.spec.family, row.name].runtimes.items():
        for scheme, cell in cells.items():
            if runtime in CONVERTERS.names():
                float_type, bits = (scheme, 32) if scheme in SCHEMES else ("float32", 8)
                options = ProgramOptions(CONTEXT, float_type, bits)
                assert other.refusal(runtime, SCHEMES.get(scheme, scheme), options) == cell.refused


def test_verdicts() -> None:
    good, bad = (
        Cell(difference=1e-6),
        Cell(refused="family x has a mixture of experts, which the y converter does not build"),
    )

    def verdict(*variants: dict[str, Cell]) -> Verdict:
        tried = tuple(Variant(str(i), {"y": v}) for i, v in enumerate(variants))
        return FamilySupport(DECODER, "x", tried).verdict("y")

    assert verdict({"float32": good}, {"float32": good}) == Verdict("yes")
    assert verdict({"float32": good}, {"float32": bad}) == Verdict("partly", "a mixture of experts")
    assert verdict({"float32": good, "float16": bad}) == Verdict("float32", "a mixture of experts")
    assert verdict({"float32": bad}) == Verdict("no", "a mixture of experts")
    assert verdict() == Verdict("not tried")


def test_results_are_compared_cell_by_cell() -> None:
    key = ("decoder", "llama", "llama", "onnx", "w8")
    assert differences({key: {"passed": True, "error": 0.1}}, {key: {"error": 0.3}}) == []
    assert differences({key: {"passed": False, "error": 9.0}}, {key: {"error": 0.3}}) == [
        "decoder / llama / llama / onnx / w8: failed"
    ]
    assert differences({}, {key: {}}) == ["decoder / llama / llama / onnx / w8: said, but no test gave it"]
    assert differences({key: {"passed": True}}, {}) == ["decoder / llama / llama / onnx / w8: found, but not said"]
    assert "but said: no" in differences({key: {"passed": True}}, {key: {"refused": "no"}})[0]
    assert matrix({key: {"passed": True, "error": 0.123}})["families"][0]["variants"][0]["runtimes"] == {
        "onnx": {"w8": {"error": 0.12}}
    }


def test_the_command_lists_families_and_reasons() -> None:
    shown = CliRunner().invoke(edgesdk, ["models", "--families", "--json"])
    assert shown.exit_code == 0
    names = {name for registry in REGISTRIES.values() for name in registry.names()}
    assert {family["name"] for family in json.loads(shown.output)} == names
    table = CliRunner().invoke(edgesdk, ["models", "--families"], terminal_width=400).output
    assert "mixtral" in table and "modernbert" in table


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
