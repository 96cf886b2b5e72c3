"""Firmware of microcontroller bundles on five emulated cores: the double's tokens, its logits bit for bit.

The model is the project's own example, barely trained; instructions are QEMU's, and no time is claimed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import edgesdk
from edgesdk.boards import open_board
from edgesdk.model import Model
from edgesdk.model.random_weights import RandomWeights
from edgesdk.model.spec import Attention, DecoderSpec, Layer, Mlp, Rope
from edgesdk.runner_lines import prompt_command, sealed, tokens_command
from edgesdk.session import Session
from edgesdk_converters.cortex_m.double import DoubleSession
from edgesdk_converters.cortex_m.footprint import LARGEST, footprint
from edgesdk_converters.cortex_m.layout import ram
from edgesdk_converters.cortex_m.sizing import STACK_BYTES

from .cortex_m.lab import BOARDS, TOOLS, Runner, build, running, sections

missing = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")

EXAMPLE = Path(__file__).parents[1] / "examples" / "tiny_model" / "train.py"
CONTEXT, COUNT = 256, 24
M4F = "mps2-an386"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    subprocess.run([sys.executable, EXAMPLE, "--quick", "--out", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session", params=["w8", "w4g32"])
def bundle(request, tiny, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "bundle"
    checks = edgesdk.Checks(skip=True)
    edgesdk.export(str(tiny), "cortex-m4f", folder, recipe=request.param, context=CONTEXT, checks=checks)
    return folder


@pytest.fixture(scope="session")
def plain(tiny, tmp_path_factory) -> Path:
    """One 8-bit bundle, for tests of the runner."""
    folder = tmp_path_factory.mktemp("plain") / "bundle"
    edgesdk.export(str(tiny), "cortex-m4f", folder, recipe="w8", context=CONTEXT, checks=edgesdk.Checks(skip=True))
    return folder


@pytest.fixture
def runner(plain):
    with running(build(plain / "firmware", M4F), M4F) as found:
        assert found.event()["event"] == "hello"
        yield found


def said(events: Sequence[dict]) -> list[tuple[int, str]]:
    return [(event["id"], event["logits"]) for event in events if event["event"] == "token"]


def expected(session: Session, prompt: list[int], count: int) -> list[tuple[int, str]]:
    """Greedy tokens of the double, each with the hash of the logits that chose it."""
    logits, found = session.prefill(prompt), []
    for number in range(count):
        found.append((int(logits.argmax()), f"{zlib.crc32(logits.astype('<f4').tobytes()):08x}"))
        if number + 1 < count:
            logits = session.decode(found[-1][0])
    return found


@pytest.mark.parametrize("board", BOARDS)
def test_every_core_gives_the_doubles_logits(bundle, board) -> None:
    golden = json.loads((bundle / "firmware" / "golden.json").read_text())
    prompt = np.random.default_rng(5).integers(1, 500, 30).tolist()
    wanted = expected(DoubleSession(bundle / "model.lm"), prompt, COUNT)
    with running(build(bundle / "firmware", board), board) as runner:
        hello = runner.event()
        kernels = {"cortex-m3": "portable", "cortex-m55": "mve"}.get(open_board(board).core, "dsp")
        assert (hello["kernels"], hello["board"], hello["emulated"]) == (kernels, board, 1)
        events = runner.answer(tokens_command(golden["prompt"], new_tokens=len(golden["tokens"])))
        pairs = list(zip(golden["tokens"], golden["logits_crc32"], strict=True))
        assert said(events) == pairs[: len(said(events))]
        assert len(said(events)) == len(pairs) or events[-1]["stop"] == "eos"
        events = runner.answer(tokens_command(prompt, new_tokens=COUNT))
        assert said(events) == wanted[: len(said(events))]
        assert events[-1]["prompt_tokens"] == 30
        assert 200 < events[-1]["stack"] < STACK_BYTES * 3 / 4


@pytest.mark.parametrize("board", [M4F, "mps3-an547"])
@pytest.mark.parametrize("recipe", ["w8", "w4"])
def test_tails_of_rows(tmp_path, board, recipe) -> None:
    """Sizes that leave tails in every kernel."""
    attention = Attention(6, 3, 10, 0.3, Rope(10000.0))
    spec = DecoderSpec("llama", 97, 66, 64, (Layer(attention, Mlp(172, "silu")),) * 2, 1e-5, tied=True)
    folder, model = tmp_path / "bundle", Model(spec, RandomWeights(spec))
    edgesdk.export(model, "cortex-m4f", folder, recipe=recipe, context=64, checks=edgesdk.Checks(skip=True))
    prompt = np.random.default_rng(5).integers(0, 97, 21).tolist()
    with running(build(folder / "firmware", board), board) as runner:
        runner.event()
        events = runner.answer(tokens_command(prompt, new_tokens=COUNT))
    assert said(events) == expected(DoubleSession(folder / "model.lm"), prompt, COUNT)


def test_portable_kernels_give_the_same_on_the_same_core(plain) -> None:
    answers = []
    for options in ((), ("-DCMAKE_C_FLAGS=-DLM_PORTABLE",)):
        with running(build(plain / "firmware", M4F, *options), M4F) as runner:
            assert runner.event()["kernels"] == ("portable" if options else "dsp")
            answers.append(said(runner.answer(tokens_command([5, 6, 7], new_tokens=COUNT))))
    assert answers[0] == answers[1] != []


def test_instructions_and_sizes(tiny, plain) -> None:
    """MVE needs less than half of the instructions of the Cortex-M4F; sizes are what `edgesdk fit` says."""
    counts = {}
    for board in (M4F, "mps3-an547"):
        elf = build(plain / "firmware", board)
        with running(elf, board) as runner:
            runner.event()
            events = runner.answer(tokens_command(list(range(1, 100)), new_tokens=100))
        ticks = [event["ticks"] for event in events if event["event"] == "token"][:-1]
        counts[board] = runner.instructions(int(np.median(ticks)))
        found, core = sections(elf), footprint(open_board(board).core)
        image = (plain / "model.lm").stat().st_size
        assert core.flash <= LARGEST.flash and core.ram <= LARGEST.ram
        assert abs(found[".text"] + found.get(".data", 0) - image - core.flash) <= 16
        assert abs(found[".bss"] - ram(edgesdk.open_model(str(tiny)).spec, CONTEXT).total - core.ram) <= 16
    assert counts["mps3-an547"] < counts[M4F] / 2


@pytest.mark.parametrize("text", ["Once upon a time", 'a "quoted" line\nand \\ é 雨', " ", "<|endoftext|>x"])
def test_text_goes_in_and_comes_out_as_in_python(plain, runner, text) -> None:
    with edgesdk.open_bundle(plain) as bundle:
        chat = edgesdk.Chat(bundle)
    session, tokenizer = chat.session, chat.tokenizer
    prompt = tokenizer.encode(text, prefix=True)
    wanted = expected(session, prompt, COUNT)
    events = runner.answer(prompt_command(text, new_tokens=COUNT))
    assert events[-1]["prompt_tokens"] == len(prompt)
    assert said(events) == wanted[: len(said(events))]
    spoken = "".join(event["text"] for event in events if event["event"] == "token")
    assert tokenizer.decode([token for token, _ in said(events)]).startswith(spoken)


def test_sampling_repeats_with_its_seed(runner) -> None:
    def ask(seed: int) -> list[tuple[int, str]]:
        command = tokens_command([5, 6, 7], new_tokens=COUNT, temperature=1.0, top_p=0.9, seed=seed)
        return said(runner.answer(command))

    first = ask(3)
    assert ask(3) == first
    assert any(ask(seed) != first for seed in range(4, 9))


def test_a_full_context_stops_or_slides(plain, runner) -> None:
    prompt = np.random.default_rng(6).integers(1, 500, 60).tolist()
    wide = tokens_command(prompt, new_tokens=300)
    events = runner.answer(wide)
    if events[-1]["stop"] != "eos":
        assert (events[-1]["stop"], events[-1]["new_tokens"]) == ("context", CONTEXT - 60 + 1)
    session = DoubleSession(plain / "model.lm")
    session.slides = True
    events = runner.answer(tokens_command(prompt, new_tokens=300, slide=True))
    assert said(events) == expected(session, prompt, len(said(events)))
    assert len(said(events)) == 300 or events[-1]["stop"] == "eos"


def test_lines_that_were_cut_are_refused_and_the_next_one_works(runner) -> None:
    whole = tokens_command([5, 6, 7], new_tokens=2)
    for broken in (whole[:9] + b"\n", whole[9:], whole.replace(b"5", b"4", 1), b"hello\n", b"x" * 1000 + b"\n"):
        runner.send(broken)
        assert runner.event()["code"] == "line"
    assert runner.answer(whole)[-1]["event"] == "done"


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("dance", "command", "there are: hello, run, ids, measure"),
        ("run 5 0 1000", "command", "expected MAX"),
        ("run 4294967297 0 1000 1 0 a", "command", "expected MAX"),
        ("run 5 0 5000 1 0 a", "command", "TOP_P (to 1000)"),
        ("run 5 0 1000 1 7 a", "command", "SLIDE (0, 1)"),
        ("run 5 0 1000 1 0Once", "command", "expected MAX"),
        ("ids 5 0 1000 1 0 4294967297", "prompt", "not valid"),
        ("ids 5 0 1000 1 0 1,x", "prompt", "not valid"),
        ("ids 5 0 1000 1 0 ", "prompt", "empty"),
        ("ids 5 0 1000 1 0 1,99999", "token", "outside the vocabulary"),
        ("ids 5 0 1000 1 0 " + "1," * 250, "line", "too long"),
    ],
)
def test_wrong_commands_get_one_error(runner, command, code, words) -> None:
    runner.send(sealed(command))
    event = runner.event()
    assert (event["event"], event["code"]) == ("error", code)
    assert words in event["message"]
    runner.send(sealed("hello"))
    assert runner.event()["event"] == "hello"


def test_the_user_can_stop_an_answer(runner: Runner) -> None:
    runner.send(tokens_command(list(range(1, 60)), new_tokens=150))
    assert runner.event()["event"] == "prefill"
    runner.send(b"\x03")
    events = runner.until("done")
    assert events[-1]["stop"] in ("user", "eos")
    assert len(said(events)) < 150


def test_a_corrupted_image_is_an_error_at_boot(plain, tmp_path) -> None:
    project = tmp_path / "firmware"
    shutil.copytree(plain / "firmware", project)
    source = project / "model" / "model_image.c"
    lines = source.read_text().splitlines()
    row = lines[2000].split(",")
    row[3] = str(int(row[3]) ^ 1)
    lines[2000] = ",".join(row)
    source.write_text("\n".join(lines) + "\n")
    with running(build(project, M4F), M4F) as runner:
        event = runner.event()
        assert (event["event"], event["code"]) == ("error", "crc")
        runner.send(tokens_command([1], new_tokens=1))
        assert runner.event()["code"] == "crc"
