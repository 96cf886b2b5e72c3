"""JSON and TOML of others: ordinary values come through, and everything odd is one error that names the file."""

from __future__ import annotations

import pytest

from edgesdk.documents import parse_json, parse_toml, read_json, read_text, whole
from edgesdk.errors import EdgeError, ModelError
from edgesdk.schema import load, load_open
from edgesdk.serve import Settings


def test_ordinary_documents_are_what_they_say() -> None:
    assert parse_json('{"a": [1, -2.5, true, null, "\\u00e9\\ud83d\\ude00"]}', "x") == {
        "a": [1, -2.5, True, None, "é😀"]
    }
    assert parse_json(str(2**64 - 1), "x") == 2**64 - 1
    assert parse_toml("a = 1\n[b]\nc = 'd'\n", "x") == {"a": 1, "b": {"c": "d"}}
    assert parse_json("[NaN, Infinity]", "x", infinities=True)[1] == float("inf")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff{}", "not UTF-8 text"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "64 bits"),
        (str(2**64), "64 bits"),
        (str(-(10**30)), "64 bits"),
        ("1e999", "not finite"),
        ("NaN", "no number"),
        ("-Infinity", "no number"),
        ('"\\ud800"', "surrogate"),
        ('{"\\udfff": 1}', "surrogate"),
    ],
)
def test_odd_json_is_one_error(text, words) -> None:
    with pytest.raises(ModelError, match=f"^file.json.*{words}"):
        parse_json(text, "file.json", ModelError)


@pytest.mark.parametrize(
    "text", [b"\xff", "a = ", "a = " + "9" * 5000, f"a = {2**65}", "a = " + "[" * 100_000, "a\0 = 1"]
)
def test_odd_toml_is_one_error(text) -> None:
    with pytest.raises(EdgeError, match=r"file\.toml"):
        parse_toml(text, "file.toml")


def test_files_that_cannot_be_read(tmp_path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "a\0b", tmp_path / ("x" * 5000)):
        with pytest.raises(EdgeError):
            read_json(path)
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    with pytest.raises(EdgeError, match=r"latin: not UTF-8 text \(byte 0\)"):
        read_text(tmp_path / "latin")


@pytest.mark.parametrize("text", ["²", "٣", "", "-1", "1.0", " 1", "1" * 19, "0x1", None])
def test_only_plain_digits_are_a_whole_number(text) -> None:
    assert whole(text) is None
    assert whole("0012") == 12


@pytest.mark.parametrize(
    ("key", "value"),
    [("port", True), ("port", "80"), ("port", 80.5), ("queue", None), ("host", 1)],
)
def test_values_of_another_type_are_refused(key, value) -> None:
    with pytest.raises(EdgeError, match=f"x: key '{key}'"):
        load(Settings, {key: value}, "x")


def test_a_whole_number_is_a_number_and_text_is_one_where_that_is_said() -> None:
    assert load(Settings, {"wait_seconds": 5}, "x").wait_seconds == 5
    assert load(Settings, {"port": "80"}, "x", texts=True).port == 80


def test_further_keys_of_an_open_record_stay() -> None:
    from edgesdk.devices.runner.events import Load

    said = {"event": "load", "ticks": 1, "ticks_per_second": 2, "more": [1]}
    assert load_open(Load, said, "x") == said
    for wrong in ({"ticks": "1"}, {"ticks": -1}, {"ticks": True}, {"ticks_per_second": 1.5}):
        with pytest.raises(EdgeError, match="x: key"):
            load_open(Load, said | wrong, "x")
