"""The end of the context in ExecuTorch's own text runner, as apps have it: answers end, and nothing fails late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgesdk.converter import CONVERTERS, ProgramOptions
from edgesdk.model import Model
from edgesdk.model.opening import open_model
from edgesdk.model.tokenizer import SpecialTokens, Tokenizer
from edgesdk.progress import SILENT
from edgesdk_converters.executorch import sizes
from edgesdk_converters.executorch.session import load_program

from ..conftest import make_checkpoint, make_tokenizer
from .family_cells import IDS, Case, opened
from .family_rows import CONTEXT, ROWS

#: Caches of the whole context, rings in some and in all layers, a soft cap, tables of positions, none, experts, states.
FAMILIES = (
    *("llama", "qwen2-window", "mistral-window", "gemma2", "gemma3", "bloom", "gpt2", "smollm3", "mixtral"),
    *("mamba", "mamba2", "rwkv", "lfm2", "qwen3_5"),
)
VOCAB = 259
CONVERTER = CONVERTERS.get("executorch")
OPTIONS = ProgramOptions(CONTEXT, "float32", 32)


class Runner:
    """ExecuTorch's ``TextLLMRunner`` over one program; a letter of a prompt is a token."""

    def __init__(self, program: Path, tokenizer: Path) -> None:
        CONVERTER.text_runner(program, tokenizer)  # loads the kernels
        self._module: Any = import_module("executorch.extension.llm.runner._llm_runner")
        self._runner = self._module.TextLLMRunner(str(program), str(tokenizer))

    def tokens(self, prompt: int, **limits: int) -> int:
        """Tokens of the answer to so many; 0 for a prompt that was prefilled before."""
        found: list[Any] = []
        config = self._module.GenerationConfig(echo=False, temperature=0.0, warming=True, **limits)
        self._runner.generate("a" * prompt, config, None, found.append)
        return int(found[0].num_generated_tokens) + 1

    def prefill(self, prompt: int) -> None:
        config = self._module.GenerationConfig(echo=False, temperature=0.0, warming=True)
        self._runner.prefill("a" * prompt, config)

    def reset(self) -> None:
        self._runner.reset()


def refused(work: Callable[[], object]) -> None:
    """The runner's own error, before any text."""
    with pytest.raises(RuntimeError, match=r"Generation failed|Prefill failed"):
        work()


def made(model: Model, folder: Path, options: ProgramOptions) -> Path:
    folder.mkdir(exist_ok=True)
    return folder / CONVERTER.convert(model, options, folder, SILENT).main


def ends_at(context: int, runner: Runner) -> None:
    """Every way to ask meets the end of the context with as many tokens as there is room for."""
    nearly = context - 17
    for limits in ({"max_new_tokens": 100}, {"seq_len": context}, {}, {"seq_len": 2 * context}):
        runner.reset()
        assert runner.tokens(nearly, **limits) == 17, limits
    runner.reset()
    assert runner.tokens(nearly, max_new_tokens=5) == 5
    for room in (1, 2):
        runner.reset()
        assert runner.tokens(context - room) == room
    for length in (context, context + 1, 2 * context + 3):
        runner.reset()
        refused(lambda length=length: runner.tokens(length, max_new_tokens=10))
    runner.reset()
    assert runner.tokens(nearly) == 17  # and goes on as if nothing had been refused


def goes_on(context: int, runner: Runner) -> None:
    """What the caches hold counts: of earlier answers, and of prompts that were prefilled."""
    runner.reset()
    first = runner.tokens(context // 2, max_new_tokens=4)  # the last token is not run
    held = context // 2 + first - 1
    assert runner.tokens(5) == context - held - 5
    refused(lambda: runner.tokens(5))
    runner.reset()
    runner.prefill(context - 9)
    assert runner.tokens(0, max_new_tokens=50) == 9
    runner.reset()
    runner.prefill(context - 9)
    refused(lambda: runner.prefill(10))


def with_tokenizer(name: str, folder: Path) -> Case:
    (row,) = (row for row in ROWS if row.name == name)
    case = opened(replace(row, changes=row.changes | {"vocab_size": VOCAB}), folder)
    assert make_tokenizer(folder) == VOCAB
    return replace(case, model=endless(case.model, folder))


def endless(model: Model, folder: Path) -> Model:
    """The model with a token that ends its answers and that it never gives."""
    tokenizer = Tokenizer((folder / "tokenizer.json").read_text(encoding="utf-8"), SpecialTokens(stop=(VOCAB + 1,)))
    return Model(model.spec, model.weights, tokenizer)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoint")


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, checkpoint: Path) -> Case:
    (folder := checkpoint / request.param).mkdir()
    return with_tokenizer(request.param, folder)


@pytest.mark.parametrize("chunk", [8, 24, 256])
def test_an_answer_ends_at_the_context(case, checkpoint, tmp_path, monkeypatch, chunk) -> None:
    """Steps that divide the context, that do not, and one that is as long."""
    monkeypatch.setattr(sizes, "CHUNK", chunk)
    tokenizer = checkpoint / case.row.name / "tokenizer.json"
    runner = Runner(made(case.model, tmp_path, OPTIONS), tokenizer)
    ends_at(CONTEXT, runner)
    goes_on(CONTEXT, runner)


@pytest.mark.parametrize("chunk", [8, 24])
def test_one_call_gives_what_many_give(case, tmp_path, monkeypatch, chunk) -> None:
    """A method takes as many tokens as the context has, from any position, and a session takes up where it ended."""
    monkeypatch.setattr(sizes, "CHUNK", chunk)
    main = made(case.model, tmp_path, OPTIONS)
    method = load_program(main, None).load_method("forward")
    for start in (0, 3):
        if start:
            method.call([torch.tensor([IDS[:start]]), torch.tensor([0])])
        (logits,) = method.call([torch.tensor([IDS[start:]]), torch.tensor([start])])
        assert np.abs(logits[0, -1].numpy() - case.wanted[-1]).max() < 1e-3
    session = CONVERTER.open(main, CONTEXT)
    assert np.abs(session.prefill(IDS[:-1]) - case.wanted[-2]).max() < 1e-3
    assert np.abs(session.decode(IDS[-1]) - case.wanted[-1]).max() < 1e-3


@pytest.mark.parametrize("context", [1, 2, 31, 256, 257, 300, 1000])
def test_contexts_of_any_size(tmp_path, context) -> None:
    folder = make_checkpoint(tmp_path / "model")
    options = ProgramOptions(context, "float32", 32)
    model = endless(open_model(folder), folder)
    runner = Runner(made(model, tmp_path / "out", options), folder / "tokenizer.json")
    if context > 30:
        ends_at(context, runner)
        goes_on(context, runner)
        return
    for length in range(1, context):
        runner.reset()
        assert runner.tokens(length) == context - length
    runner.reset()
    refused(lambda: runner.tokens(context))


@pytest.mark.parametrize("name", ["llama", "qwen2-window", "lfm2"])
def test_caches_of_int8_end_likewise(tmp_path, monkeypatch, name) -> None:
    monkeypatch.setattr(sizes, "CHUNK", 8)
    case = with_tokenizer(name, tmp_path)
    runner = Runner(made(case.model, tmp_path / "out", replace(OPTIONS, kv_bits=8)), tmp_path / "tokenizer.json")
    ends_at(CONTEXT, runner)
    goes_on(CONTEXT, runner)


def test_steps_take_no_memory_of_the_whole_context(tmp_path) -> None:
    """What a longer prompt adds to a method's memory is its ids, beside the caches."""
    model = open_model(make_checkpoint(tmp_path / "model"))
    planned = {}
    for context in (512, 1024):
        folder = tmp_path / str(context)
        folder.mkdir()
        made = CONVERTER.convert(model, ProgramOptions(context, "float32", 32), folder, SILENT)
        assert made.facts["methods"]["get_step_len"] == 256
        planned[context] = made.facts["planned_memory"]
    caches = 2 * 2 * 2 * 16 * 4  # of a token: two layers, keys and values of two heads of 16 floats
    more = {name: planned[1024][name] - planned[512][name] for name in ("forward", "score")}
    assert more["score"] == 512 * caches
    assert 0 <= more["forward"] - more["score"] <= 512 * 8 + 64
