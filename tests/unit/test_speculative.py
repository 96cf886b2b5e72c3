"""Speculative decoding: whatever drafts, the answer is the target's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import edgesdk
from edgesdk import cli
from edgesdk.bundle import FILE
from edgesdk.errors import BundleError, EdgeError, ModelError, TargetError
from edgesdk.generation import Sampling, Statistics, generate
from edgesdk.speculative import MOST, ModelDrafter, PromptLookup, SpeculativeSession, Steps, find_steps

from ..conftest import make_checkpoint

IDS = np.random.default_rng(3).integers(0, 250, 21).tolist()
PROGRAMS = [("linux-x86_64", recipe) for recipe in ("none", "w4g32", "w8")]
PROGRAMS += [("host", recipe) for recipe in ("none", "w4g32", "w8")]


class Garbage:
    """Drafts whatever, and how much it likes."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)

    def propose(self, ids, most: int) -> list[int]:
        return self._random.integers(0, 260, self._random.integers(0, most + 3)).tolist()


class Half:
    """Knows the answer, and gets a third of it wrong."""

    def __init__(self, answer: list[int]) -> None:
        self._answer, self._random = answer, np.random.default_rng(1)

    def propose(self, ids, most: int) -> list[int]:
        right = self._answer[len(ids) : len(ids) + most]
        return [(token + 1) % 250 if self._random.random() < 0.3 else token for token in right]


@pytest.fixture(scope="module", params=PROGRAMS, ids="-".join)
def made(request, tmp_path_factory, checkpoint) -> Path:
    target, recipe = request.param
    out = tmp_path_factory.mktemp("speculative") / f"{target}-{recipe}"
    skip = edgesdk.Checks(skip=True)
    edgesdk.export(checkpoint, target, out, recipe=recipe, context=128, checks=skip)
    return out


def greedy(session, count: int, prompt: list[int] = IDS) -> tuple[list[int], np.ndarray]:
    session.reset()
    rows = [session.prefill(prompt).copy()]
    while len(rows) <= count:
        rows.append(session.decode(int(rows[-1].argmax())).copy())
    return [int(row.argmax()) for row in rows], np.stack(rows)


def test_the_draft_changes_no_bit_of_the_logits(made) -> None:
    with edgesdk.open_bundle(made) as bundle:
        steps = find_steps(edgesdk.open_session(bundle, 2))
        assert steps.exact
        alone = SpeculativeSession(edgesdk.open_session(bundle, 2), None, steps)
        answer, rows = greedy(alone, 70)
        drafters = [
            Garbage(),
            Half([*IDS, *answer]),
            PromptLookup(),
            ModelDrafter(edgesdk.open_session(bundle, 2), 0.0),
        ]
        for drafter in drafters:
            session = SpeculativeSession(edgesdk.open_session(bundle, 2), drafter, steps)
            found, logits = greedy(session, 70)
            assert found == answer
            assert np.array_equal(logits, rows)
        assert 1.5 < session.statistics.tokens_per_step <= MOST
        plain, plain_rows = greedy(edgesdk.open_session(bundle, 2), 70)
        if steps.width == 1:
            assert np.array_equal(plain_rows, rows)
        if made.name.endswith("none"):  # rounding in float: the answer is that of decoding token by token
            assert plain == answer
            assert np.abs(plain_rows - rows).max() < 1e-4


def test_a_session_like_any_other(made) -> None:
    with edgesdk.open_bundle(made) as bundle:
        plain = edgesdk.open_session(bundle, 2)
        for steps in (Steps(1, False, False), Steps(2, False, False), Steps(MOST, True, True)):
            session = SpeculativeSession(edgesdk.open_session(bundle, 2), Garbage(), steps)
            for each in (session, plain):
                each.reset()
            close = 1e-3 if made.name.endswith("none") else 3.0

            def same(call, session=session, close=close) -> None:
                found, wanted = call(session), call(plain)
                assert np.abs(found - wanted).max() < close
                assert session.position == plain.position

            same(lambda it: it.prefill(IDS))
            same(lambda it: it.decode(7))
            same(lambda it: it.decode(9))
            for each in (session, plain):
                each.rewind(5)
            same(lambda it: it.decode(11))
            same(lambda it: it.score(IDS[:4]))
            same(lambda it: it.prefill(IDS[5:7]))
            same(lambda it: it.decode(1))
            with pytest.raises(EdgeError, match="cannot rewind"):
                session.rewind(session.position + 1)
            with pytest.raises(EdgeError, match="exceed the context"):
                session.prefill([1] * 128)
            while session.position < session.context:  # to the very end
                session.decode(3)
            assert session.context >= 121
            with pytest.raises(EdgeError, match="exceed the context"):
                session.decode(3)


def test_sampling_draws_the_same_tokens(made) -> None:
    """The logits are the target's own, so what is drawn from them does not depend on the draft."""
    with edgesdk.open_bundle(made) as bundle:
        tokenizer = edgesdk.Chat(bundle, drafting="off").tokenizer
        steps, answers = find_steps(edgesdk.open_session(bundle, 2)), []
        for drafter in (None, Garbage(), PromptLookup(), ModelDrafter(edgesdk.open_session(bundle, 2), 0.0)):
            session = SpeculativeSession(edgesdk.open_session(bundle, 2), drafter, steps)
            sampling, statistics = Sampling(0.9, top_k=40, repetition_penalty=1.1, seed=5), Statistics()
            list(generate(session, tokenizer, IDS, sampling=sampling, max_tokens=40, statistics=statistics))
            answers.append(statistics.tokens)
        assert all(answer == answers[0] for answer in answers)


def test_steps_take_the_cheapest_form_that_is_exact() -> None:
    class Kernels:
        """Logits that depend on what a step looks like."""

        vocab, context = 50, 64

        def __init__(self, seen) -> None:
            self._seen, self.position, self._ids = seen, 0, []

        def reset(self) -> None:
            self.rewind(self.position)

        def rewind(self, count: int) -> None:
            del self._ids[self.position - count :]
            self.position -= count

        def score(self, ids):
            at, self._ids = self.position, [*self._ids, *ids]
            self.position = len(self._ids)
            rows = [[hash((*self._ids[: at + i + 1], self._seen(at, i, len(ids))))] * 3 for i in range(len(ids))]
            return np.array(rows)

    assert find_steps(Kernels(lambda at, row, count: 0)) == Steps(1, False, True)
    assert find_steps(Kernels(lambda at, row, count: count == 1)) == Steps(2, False, True)
    assert find_steps(Kernels(lambda at, row, count: count % 4)) == Steps(4, False, True)
    assert find_steps(Kernels(lambda at, row, count: at + count)) == Steps(8, True, True)
    assert find_steps(Kernels(lambda at, row, count: np.random.random())) == Steps(1, False, False)


def test_lookup_continues_what_came_before() -> None:
    lookup = PromptLookup()
    assert lookup.propose([1, 2, 3, 4, 5, 9, 2, 3, 4], 3) == [5, 9, 2]
    assert lookup.propose([7, 3, 4, 5, 9, 3, 4], 2) == [5, 9]
    assert lookup.propose([1, 2, 3], 4) == []


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return make_checkpoint(
        tmp_path_factory.mktemp("small") / "small",
        num_hidden_layers=1,
        hidden_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
    )


@pytest.fixture(scope="module", params=["linux-x86_64", "host"])
def drafting(request, checkpoint, small, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("drafting")
    for name in ("bundle", "again"):
        arguments = ["export", str(checkpoint), "-t", request.param, "-r", "none", "--context", "128"]
        arguments += ["--draft", str(small), "--draft-recipe", "w8", "-o", str(out / name)]
        assert cli.run(arguments) == 0
    return out


def test_a_bundle_holds_its_draft(drafting, capsys) -> None:
    text = (drafting / "bundle" / FILE).read_text()
    assert text == (drafting / "again" / FILE).read_text()
    draft = json.loads(text)["draft"]
    assert draft["model"]["name"] == "small"
    assert draft["recipe"]["name"] == "w8"
    assert draft["worth"]["prompts"] == 6
    assert draft["worth"]["as_token_by_token"] == 6
    assert 0 <= draft["worth"]["accepted"] <= draft["worth"]["drafted"]
    assert (drafting / "bundle" / draft["program"]["main"]).is_file()
    assert cli.run(["verify", str(drafting / "bundle")]) == 0
    capsys.readouterr()
    assert cli.run(["inspect", str(drafting / "bundle")]) == 0
    assert "of drafted tokens taken" in capsys.readouterr().out


def test_run_answers_the_same_with_and_without(drafting, capsys) -> None:
    answers = {}
    for how in ("auto", "lookup", "off"):
        arguments = ["run", str(drafting / "bundle"), "hello hello hello", "--max-tokens", "40", "--json"]
        assert cli.run([*arguments, "--draft", how]) == 0
        answers[how] = json.loads(capsys.readouterr().out)
    assert answers["auto"]["tokens"] == answers["off"]["tokens"] == answers["lookup"]["tokens"]
    assert answers["off"]["draft"] is None
    found = answers["auto"]["draft"]
    assert found["exact"] and found["tokens"] == len(answers["auto"]["tokens"]) - 1
    assert cli.run(["run", str(drafting / "bundle"), "hello hello hello", "--max-tokens", "40"]) == 0
    assert "drafted" in capsys.readouterr().err


def test_a_conversation_goes_on(drafting) -> None:
    with edgesdk.open_bundle(drafting / "bundle") as bundle:
        answers = []
        for how in ("auto", "off"):
            chat = edgesdk.Chat(bundle, drafting=how)
            answers.append([chat.ask(text, max_tokens=12) for text in ("hello", "and more", "hello")])
        assert answers[0] == answers[1]


def test_other_sessions_pass_over_the_draft(drafting) -> None:
    with edgesdk.open_bundle(drafting / "bundle") as bundle:
        assert not isinstance(edgesdk.open_session(bundle), SpeculativeSession)


def test_a_draft_that_is_gone_is_missed(drafting, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(drafting / "bundle", copy)
    main = json.loads((copy / FILE).read_text())["draft"]["program"]["main"]
    (copy / main).unlink()
    with pytest.raises(BundleError, match="missing"), edgesdk.open_bundle(copy):
        pass


def test_what_cannot_draft_is_refused_before_any_work(checkpoint, small, tmp_path) -> None:
    other = tmp_path / "other"
    shutil.copytree(small, other)
    definition = json.loads((other / "tokenizer.json").read_text())
    vocab = definition["model"]["vocab"]
    vocab["A"], vocab["B"] = vocab["B"], vocab["A"]
    (other / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(ModelError, match=r"the draft model has other tokens: 'A' is \d+ in the model and \d+"):
        edgesdk.export(checkpoint, "linux-x86_64", tmp_path / "out", draft=other)
    config = json.loads((small / "config.json").read_text())
    stopping = tmp_path / "stopping"
    shutil.copytree(small, stopping)
    (stopping / "config.json").write_text(json.dumps(config | {"eos_token_id": 258}))
    (stopping / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="the draft model stops at other tokens"):
        edgesdk.export(checkpoint, "linux-x86_64", tmp_path / "out", draft=stopping)
    for target in ("litert-arm64", "cortex-m4f"):
        with pytest.raises(TargetError, match="take one token a step"):
            edgesdk.export(checkpoint, target, tmp_path / "out", draft=small)
    tight = {"memory_mb": 66, "recipe": "none", "checks": edgesdk.Checks(skip=True)}
    with pytest.raises(TargetError, match=r"the program needs about 67 MB .* but it may use 66 MB"):
        edgesdk.export(checkpoint, "linux-x86_64", tmp_path / "out", draft=checkpoint, draft_recipe="none", **tight)
    edgesdk.export(checkpoint, "linux-x86_64", tmp_path / "alone", **tight)
    assert not (tmp_path / "out").exists()
