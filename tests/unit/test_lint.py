"""Lint finds what stands between a model and a target, all at once, and builds nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgesdk.cli import run
from edgesdk.errors import EdgeError, ModelError
from edgesdk.linting import lint
from edgesdk.model.opening import open_model

from ..conftest import make_checkpoint


def test_a_model_that_fits_has_no_errors(checkpoint) -> None:
    remarks = lint(str(checkpoint), "android-arm64")
    assert {remark.about for remark in remarks} == {"program", "memory", "delivery", "tokenizer"}
    assert "error" not in {remark.level for remark in remarks}
    assert any(r"(?!\S)" in remark.text for remark in remarks if remark.level == "warning")


def test_every_error_is_told_at_once(checkpoint) -> None:
    remarks = lint(str(checkpoint), "android-arm64", recipe="w8g32", memory_mb=1)
    errors = [remark for remark in remarks if remark.level == "error"]
    assert [remark.about for remark in errors] == ["program", "memory"]
    assert errors == remarks[:2]
    assert all(remark.way_out for remark in errors[1:])


def test_a_context_that_the_model_was_not_trained_for_is_an_error(checkpoint) -> None:
    (remark,) = (remark for remark in lint(str(checkpoint), "host", context=4096) if remark.level == "error")
    assert "longer than the 1024" in remark.text


def test_delivery_limits_come_from_the_target(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("edgesdk.estimate.available_memory", lambda: None)
    folder = make_checkpoint(tmp_path / "m")
    model = open_model(folder)
    small = {remark.text for remark in lint(model, "ios-arm64") if remark.about == "delivery"}
    assert all(" fits " in text for text in small)
    assert len(small) == 4


def test_a_prefix_that_executorch_does_not_add_is_said(checkpoint) -> None:
    model = open_model(checkpoint)
    special = replace(model.tokenizer.special, prefix=(model.tokenizer.special.bos,))
    model = replace(model, tokenizer=replace(model.tokenizer, special=special))

    def said(target: str) -> list[str]:
        return [f"{remark.level}: {remark.text}" for remark in lint(model, target) if "begins with" in remark.text]

    assert said("android-arm64") == said("ios-arm64") != []
    assert said("android-arm64")[0].startswith("warning: plain text begins with <s>, and no post-processor")
    assert said("linux-arm64") == []
    assert not [remark for remark in lint(str(checkpoint), "android-arm64") if "begins with" in remark.text]


def test_a_tokenizer_that_executorch_does_not_read_is_said(checkpoint) -> None:
    model = open_model(checkpoint)
    definition = json.loads(model.tokenizer.definition)
    definition["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    other = replace(model, tokenizer=replace(model.tokenizer, definition=json.dumps(definition)))

    def said(each: object, target: str) -> list[str]:
        return [remark.text for remark in lint(each, target) if "does not read" in remark.text]

    (text,) = said(other, "android-arm64")
    assert text.endswith(
        "does not read this one: Failed to setup pretokenizer: Unsupported PreTokenizer type: WhitespaceSplit"
    )
    assert said(other, "linux-arm64") == said(model, "android-arm64") == []


def test_onnx_targets_have_no_remarks_about_regular_expressions(checkpoint) -> None:
    remarks = [remark for remark in lint(str(checkpoint), "linux-arm64") if remark.about == "tokenizer"]
    assert [remark.level for remark in remarks] == ["note"] and remarks[0].text.startswith("an answer ends at </s>")


def test_the_command_prints_json_and_exits_by_what_it_found(checkpoint, capsys) -> None:
    assert run(["lint", str(checkpoint), "-t", "host", "--json"]) == 0
    assert {row["level"] for row in json.loads(capsys.readouterr().out)} == {"warning", "note"}
    assert run(["lint", str(checkpoint), "-t", "host", "-r", "w4g32-a32"]) == 1
    assert "XNNPACK holds" in capsys.readouterr().out
    assert run(["lint", str(checkpoint / "none"), "-t", "host"]) == 1


def test_a_model_that_cannot_be_read_is_an_error_of_its_own(tmp_path) -> None:
    with pytest.raises(ModelError):
        lint(str(tmp_path), "host")


def test_a_program_of_another_kind_is_told_what_a_microcontroller_lacks(checkpoint, tmp_path) -> None:
    """LiteRT's dynamic range (float activations, int8 weights) has no kernel in TFLite-Micro."""
    from edgesdk.exporting import Checks, export
    from edgesdk.linting import lint_program

    export(str(checkpoint), "litert-arm64", tmp_path / "b", recipe="w8", context=32, checks=Checks(skip=True))
    program = tmp_path / "b" / "model.tflite"
    remarks = lint_program(program, "cortex-m4f")
    assert {remark.level for remark in remarks} == {"error"}
    assert any("FULLY_CONNECTED" in remark.text for remark in remarks)
    assert all(remark.way_out for remark in remarks)
    assert run(["lint", str(program), "-t", "cortex-m4f"]) == 1
    with pytest.raises(EdgeError, match="cannot check finished programs"):
        lint_program(program, "linux-x86_64")
    program.write_bytes(program.read_bytes()[:2000])
    with pytest.raises(EdgeError, match="does not hold together"):
        lint_program(program, "cortex-m4f")


def test_a_family_that_is_not_built_is_said_where_no_size_can_be(tmp_path) -> None:
    from .family_rows import ROWS, save_checkpoint

    (row,) = [row for row in ROWS if row.name == "mamba2"]
    save_checkpoint(row, tmp_path)
    remarks = lint(tmp_path, "litert-arm64")
    assert [remark.level for remark in remarks if remark.about in ("program", "memory", "delivery")] == ["error"]
    assert "Mamba-2's state spaces, which the tflite converter does not build" in remarks[0].text
    for target in ("linux-arm64", "android-arm64"):
        assert not any(remark.level == "error" for remark in lint(tmp_path, target))
