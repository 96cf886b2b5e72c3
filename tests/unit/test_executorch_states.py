"""States in ExecuTorch's programs: where a call may begin, going back, and ExecuTorch's own text runner."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgesdk.compress.recipe import open_recipe
from edgesdk.converter import CONVERTERS, ProgramOptions
from edgesdk.errors import EdgeError
from edgesdk.model.opening import open_model
from edgesdk.model.tokenizer import open_tokenizer
from edgesdk.progress import SILENT
from edgesdk.targets import open_target
from edgesdk_converters.executorch import sizes
from edgesdk_converters.executorch.data import DataFile
from edgesdk_converters.executorch.program import Method, ProgramFile
from edgesdk_converters.executorch.recurrent import softplus
from edgesdk_converters.executorch.session import load_program
from edgesdk_converters.executorch.subgraph import Subgraph

from ..conftest import make_tokenizer
from .family_cells import IDS, Case, chunked, fixture
from .family_cells import opened as opened_case
from .family_rows import CONTEXT, ROWS, save_checkpoint

STATEFUL = [row for row in ROWS if row.name in ("jamba", "lfm2", "mamba", "mamba2", "rwkv")]
CONVERTER = CONVERTERS.get("executorch")
OPTIONS = ProgramOptions(CONTEXT, "float32", 32)
case = fixture(STATEFUL)


class Recorder:
    """A method of a program, and where its calls began, with how many tokens."""

    def __init__(self, method: Any) -> None:
        self._method = method
        self.calls: list[tuple[int, int]] = []

    def call(self, inputs: list[torch.Tensor]) -> Any:
        self.calls.append((int(inputs[1]), inputs[0].shape[1]))
        return self._method.call(inputs)


def opened(case: Case, folder: Path) -> tuple[Any, Recorder]:
    """A session, and its method that gives the last logits."""
    made = CONVERTER.convert(case.model, OPTIONS, folder, SILENT)
    session = CONVERTER.open(folder / made.main, CONTEXT, threads=2)
    session._forward._method = recorder = Recorder(session._forward._method)
    return session, recorder


def test_going_back_runs_again_from_where_the_last_tokens_began(case, tmp_path) -> None:
    session, recorder = opened(case, tmp_path)
    session.prefill(IDS[:9])
    session.prefill(IDS[9:16])
    for token in IDS[16:19]:
        session.decode(token)
    session.rewind(5)
    assert np.abs(session.decode(IDS[14]) - case.wanted[14]).max() < 1e-3
    session.rewind(6)  # exactly there
    assert np.abs(session.decode(IDS[9]) - case.wanted[9]).max() < 1e-3
    session.rewind(4)  # before it
    assert np.abs(session.prefill(IDS[6:]) - case.wanted[-1]).max() < 1e-3
    assert recorder.calls == [(0, 9), (9, 7), (16, 1), (17, 1), (18, 1), (9, 5), (14, 1), (9, 1), (0, 6), (6, 34)]


def test_a_conversation_that_begins_anew_knows_nothing_of_the_last(case, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sizes, "CHUNK", 8)
    session, _ = opened(case, tmp_path)
    first = session.prefill(IDS)
    assert np.abs(first - case.wanted[-1]).max() < 1e-3
    session.decode(3)
    session.reset()
    assert np.array_equal(session.prefill(IDS), first)
    session.reset()
    found = [session.decode(token) for token in IDS[:12]]
    assert np.abs(np.stack(found) - case.wanted[:12]).max() < 1e-3


def test_a_state_that_another_text_left_is_not_gone_back_to(case, tmp_path) -> None:
    session, recorder = opened(case, tmp_path)
    session.prefill(IDS[20:29])
    session.prefill(IDS[29:36])
    session.reset()
    for token in IDS[:12]:
        session.decode(token)
    session.rewind(3)  # to 9, where the other text had its last tokens
    assert np.abs(session.decode(IDS[9]) - case.wanted[9]).max() < 1e-3
    session.reset()
    session.decode(IDS[0])
    with pytest.raises(RuntimeError):
        recorder.call([torch.tensor([[4]]), torch.tensor([9])])


def test_a_call_that_begins_where_no_state_is_known_fails(case, tmp_path) -> None:
    session, recorder = opened(case, tmp_path)
    session.prefill(IDS[:9])
    tokens = torch.tensor([[4]])
    for start in (5, 10):
        with pytest.raises(RuntimeError):
            recorder.call([tokens, torch.tensor([start])])
    (logits,) = recorder.call([torch.tensor([IDS[9:12]]), torch.tensor([9])])
    assert np.abs(logits[0, 0].numpy() - case.wanted[11]).max() < 1e-3


def test_states_stand_beside_int8_caches(case, tmp_path) -> None:
    made = CONVERTER.convert(case.model, replace(OPTIONS, kv_bits=8), tmp_path, SILENT)
    difference = np.abs(chunked(CONVERTER.open(tmp_path / made.main, CONTEXT, threads=2), IDS) - case.wanted).max()
    rounded = any(layer.mixer.kind == "attention" for layer in case.model.spec.layers)
    assert (1e-3 < difference < 5e-2) if rounded else difference < 1e-3


def test_states_beside_rings_are_refused(case) -> None:
    spec = case.model.spec
    windowed = [
        replace(layer, mixer=replace(layer.mixer, window=4)) if layer.mixer.kind == "attention" else layer
        for layer in spec.layers
    ]
    options = replace(OPTIONS, context=4096)
    arguments = open_recipe("none"), options, open_target("host")
    if windowed == list(spec.layers):
        assert any("states: a call of the program begins" in remark for remark in CONVERTER.remarks(spec, options))
        return
    with pytest.raises(EdgeError, match="no states beside rings"):
        CONVERTER.check(replace(spec, layers=tuple(windowed)), *arguments)


def test_the_text_runner_goes_on_and_begins_anew(tmp_path) -> None:
    """ExecuTorch's TextLLMRunner, as apps have it: the session's words, also for a prompt behind the first answer."""
    folder = tmp_path / "model"
    (row,) = (row for row in STATEFUL if row.name == "mamba")
    row = replace(row, changes=row.changes | {"vocab_size": 259, "tie_word_embeddings": False})
    save_checkpoint(row, folder)
    assert make_tokenizer(folder) == 259
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][94:] = 0  # only ASCII's letters are ever the best: the binding stops at parts of others
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    model = open_model(folder)
    main = tmp_path / CONVERTER.convert(model, OPTIONS, tmp_path, SILENT).main
    runner, session = CONVERTER.text_runner(main, folder / "tokenizer.json"), CONVERTER.open(main, CONTEXT)
    tokenizer = open_tokenizer(folder)

    def wanted(prompt: str) -> str:
        """Greedy words; the runner runs all but the last."""
        found = [int(session.prefill(tokenizer.encode(prompt)).argmax())]
        while len(found) < 8:
            found.append(int(session.decode(found[-1]).argmax()))
        return tokenizer.decode(found)

    def said(prompt: str) -> str:
        pieces: list[str] = []
        runner.generate(prompt, pieces.append, max_tokens=8)
        return "".join(pieces)

    first = wanted("Where?")
    assert said("Where?") == first
    assert said("And then?") == wanted("And then?") != first
    runner._runner.reset()
    assert said("Where?") == first


def test_a_loop_keeps_what_it_reads_and_what_it_leaves(tmp_path) -> None:
    """Tensors that are used before, in or behind a loop share no memory with others that only live inside it."""
    size = 64
    with DataFile(tmp_path / "data") as data:
        method = Method("forward", data)
        x, times = method.input(torch.float32, (size,)), method.input(torch.int64, (1,))
        count = method.variable()
        method.call("aten::_local_scalar_dense", [times], count)
        threefold, total, doubled, square, out = (method.tensor(torch.float32, (size,)) for _ in range(5))
        places = method.tensor(torch.float32, (1, 8, 1, 1))
        method.call("aten::mul.Scalar_out", [x, 3.0], threefold)
        method.call("aten::full_like.out", [x, 0.0, None], total)
        with method.each(count) as (at, following):
            row = method.tensor(torch.float32, (1, 1, 1, 1))
            method.call("aten::mul.Scalar_out", [threefold, 2.0], doubled)
            method.call("aten::mul.out", [doubled, doubled], square)
            method.call("aten::add.out", [total, square, 1], total)
            method.call("aten::full.out", [(1, 1, 1, 1), following], row)
            method.call("llama::update_cache.out", [row, places, at], method.tensor(torch.float32, (1,)))
        method.call("aten::add.out", [total, x, 1], out)
        method.output(out)
        method.output(places)
        file = ProgramFile(data)
        file.method(method)
        file.write(tmp_path / "model.pte")
    run = load_program(tmp_path / "model.pte", None).load_method("forward")
    x = torch.randn(size)
    for times in (1, 5, 3):
        sums, numbers = run.call([x, torch.tensor([times])])
        assert torch.allclose(sums, 36 * times * x.square() + x, rtol=1e-5)
        assert numbers.flatten()[:times].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0][:times]


def test_small_steps_of_a_state_space_keep_their_digits(tmp_path) -> None:
    """A step size is a softplus, often of numbers far below 0, where XNNPACK's own logarithm is off by half."""
    x = torch.linspace(-16, 16, 4001)
    with DataFile(tmp_path / "data") as data:
        method, file, graph = Method("forward", data), ProgramFile(data), Subgraph(data, torch.float32)
        given, out = method.input(torch.float32, x.shape), method.tensor(torch.float32, x.shape)
        graph.output(softplus(graph, graph.input(x.shape)))
        method.delegate(file.delegate(graph.document()), [given, out])
        method.output(out)
        file.method(method)
        file.write(tmp_path / "model.pte")
    (found,) = load_program(tmp_path / "model.pte", None).load_method("forward").call([x])
    wanted = torch.nn.functional.softplus(x.double(), threshold=50)
    assert ((found.double() - wanted) / wanted).abs().max() < 2e-6


@pytest.mark.parametrize("name", ["qwen2-window", "gemma3", "llama", "mamba2", "rwkv", "lfm2"])
def test_methods_that_take_turns_know_what_the_other_has_overwritten(tmp_path, monkeypatch, name) -> None:
    """All methods of a program have the same memory: rings and states of one hold the other's tokens."""
    monkeypatch.setattr(sizes, "CHUNK", 8)
    monkeypatch.setattr(sizes, "SCORE_CHUNK", 8)
    case = opened_case(next(row for row in ROWS if row.name == name), tmp_path)
    session = CONVERTER.open(tmp_path / CONVERTER.convert(case.model, OPTIONS, tmp_path, SILENT).main, CONTEXT)
    session.prefill(IDS[:12])
    for start, stop in ((12, 20), (20, 39)):
        assert np.abs(session.score(IDS[start:stop]) - case.wanted[start:stop]).max() < 1e-3
    session.rewind(27)
    assert np.abs(session.decode(IDS[12]) - case.wanted[12]).max() < 1e-3
    assert np.abs(session.score(IDS[13:20]) - case.wanted[13:20]).max() < 1e-3
    assert np.abs(session.prefill(IDS[20:]) - case.wanted[-1]).max() < 1e-3
