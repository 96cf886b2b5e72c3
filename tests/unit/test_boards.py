"""Boards as data, what fits them, and the lines that their firmware speaks."""

from __future__ import annotations

import json
import zlib

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.boards import board_names, boards_with, cores, open_board
from edgesdk.cli import edgesdk
from edgesdk.errors import EdgeError, TargetError
from edgesdk.fit import fit, largest
from edgesdk.model import Model
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope
from edgesdk.runner_lines import opened, prompt_command, sealed, tokens_command
from edgesdk.targets import open_target, target_names


def model(hidden: int = 64, layers: int = 5, context: int = 2048) -> Model:
    attention = Attention(8, 4, hidden // 8, (hidden // 8) ** -0.5, Rope(10000.0))
    spec = DecoderSpec("llama", 512, hidden, context, (Layer(attention, Mlp(hidden * 5 // 2, "silu")),) * layers, 1e-5)
    return Model(spec, RandomWeights(spec))


@pytest.mark.parametrize("name", board_names())
def test_every_board_loads(name) -> None:
    board = open_board(name)
    assert board.core in cores()
    assert board.flash >= board.ram // 64
    assert board.emulator is None or board.emulator.machine == name


def test_the_issues_boards_are_there_and_served() -> None:
    names = {board.name for board in boards_with()}
    assert names == {
        "stm32h743",
        "stm32f411",
        "nrf52840",
        "nrf5340",
        "rp2350",
        "esp32-s3",
        "alif-e7",
        "apollo510",
    }
    served = {core for name in target_names() for core in open_target(name).cores}
    assert {board.core for board in boards_with()} - served == {"xtensa-lx7"}


def test_an_unknown_board_is_named() -> None:
    with pytest.raises(TargetError, match="did you mean 'nrf5340'"):
        open_board("nrf534")


def test_fit_gives_the_largest_context_that_fits() -> None:
    found = {each.board: each for each in fit(model(), recipe="w8", context=256)}
    small = found["stm32f411"]
    assert small.fits
    assert 256 < small.largest_context < 2048
    assert found["alif-e7"].largest_context == 2048
    at_most = {each.board: each for each in fit(model(), recipe="w8", context=small.largest_context)}["stm32f411"]
    beyond = {each.board: each for each in fit(model(), recipe="w8", context=small.largest_context + 1)}["stm32f411"]
    assert (at_most.fits, beyond.fits) == (True, False)
    assert at_most.kv_cache + at_most.work + at_most.runner <= at_most.ram
    assert beyond.kv_cache + beyond.work + beyond.runner > beyond.ram


def test_fit_says_when_nothing_holds_a_model() -> None:
    found = fit(model(hidden=1024, layers=24), recipe="w4g32", context=64)
    assert not any(each.fits for each in found)
    assert {each.largest_context for each in found} == {0}


def test_fit_on_the_command_line(checkpoint) -> None:
    done = CliRunner().invoke(edgesdk, ["fit", str(checkpoint), "--recipe", "w8", "--json"])
    assert done.exit_code == 0
    found = {each["board"]: each for each in json.loads(done.stdout)}
    assert found["nrf52840"]["fits"]
    assert found["nrf52840"]["tokenizer"] > 0
    table = CliRunner().invoke(edgesdk, ["fit", str(checkpoint), "--recipe", "w8"]).stdout
    assert "largest context" in table
    assert "no compiler here builds for" in table


@given(st.integers(0, 300), st.integers(0, 300))
def test_largest(threshold, most) -> None:
    assert largest(lambda number: number <= threshold, most) == min(threshold, most)


@given(st.dictionaries(st.text(), st.integers() | st.text(), max_size=4))
def test_a_line_comes_back_as_it_went(fields) -> None:
    event = {**fields, "event": "token"}
    text = json.dumps(event, ensure_ascii=True)
    assert opened(text.encode() + b"*%08x\n" % zlib.crc32(text.encode())) == event


@given(st.data())
def test_a_cut_or_changed_line_is_refused(data) -> None:
    line = sealed('{"event":"token","id":17}')
    at = data.draw(st.integers(1, len(line) - 2))
    with pytest.raises(EdgeError, match="cut or changed"):
        opened(line[:at])
    bit = data.draw(st.integers(0, 7))
    changed = bytes([*line[:at], line[at] ^ (1 << bit), *line[at + 1 :]])
    with pytest.raises(EdgeError):
        opened(changed)


def test_commands() -> None:
    assert prompt_command("a\\b\nc", new_tokens=7, temperature=0.8, top_p=0.95, seed=3, slide=True).rpartition(b"*")[
        0
    ] == (b"run 7 800 950 3 1 a\\\\b\\nc")
    assert tokens_command([1, 22], new_tokens=2).rpartition(b"*")[0] == b"ids 2 0 1000 1 0 1,22"
    with pytest.raises(EdgeError, match="one line"):
        sealed("a\nb")
    with pytest.raises(EdgeError, match="no event"):
        opened(sealed("[1]"))
