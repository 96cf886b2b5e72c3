"""Speculative decoding on SmolLM2-135M, drafted by what is left of it without a third of its layers."""

from __future__ import annotations

from dataclasses import replace

import pytest

import edgesdk
from edgesdk.compress.pruning.depth import Renumbered
from edgesdk.generation import Statistics, generate
from edgesdk.speculative import PromptLookup, SpeculativeSession

pytestmark = pytest.mark.real
DROPPED = (3, 4, 5, 7, 12, 13, 14, 15, 17, 25)  # by -depth75
QUESTIONS = ("What is the capital of France?", "Write a Python function that adds two numbers.")


@pytest.fixture(scope="module")
def model() -> edgesdk.Model:
    return edgesdk.open_model("smollm2-135m")


@pytest.mark.parametrize(
    ("target", "recipe"), [("linux-x86_64", "w4g32"), ("linux-x86_64", "w4g32-a32"), ("host", "w4g32")]
)
def test_no_draft_changes_an_answer(model, tmp_path, target, recipe) -> None:
    left = [index for index in range(len(model.spec.layers)) if index not in DROPPED]
    spec = replace(model.spec, layers=tuple(model.spec.layers[index] for index in left))
    draft = replace(model, spec=spec, weights=Renumbered(model.weights, left))
    skip = edgesdk.Checks(skip=True)
    edgesdk.export(model, target, tmp_path / "bundle", recipe=recipe, draft=draft, context=512, checks=skip)
    with edgesdk.open_bundle(tmp_path / "bundle") as bundle:
        chat = edgesdk.Chat(bundle)
        assert isinstance(chat.session, SpeculativeSession)
        steps = chat.session.steps
        assert steps.exact
        sessions = {
            "draft": chat.session,
            "lookup": SpeculativeSession(edgesdk.open_session(bundle), PromptLookup(), steps),
            "nothing": SpeculativeSession(edgesdk.open_session(bundle), None, steps),
            "token by token": edgesdk.open_session(bundle),
        }
        for question in QUESTIONS:
            ids = chat.tokenizer.chat([{"role": "user", "content": question}])
            answers = {}
            for name, session in sessions.items():
                statistics = Statistics()
                session.reset()
                list(generate(session, chat.tokenizer, ids, max_tokens=40, statistics=statistics))
                answers[name] = statistics.tokens
            assert answers["draft"] == answers["lookup"] == answers["nothing"]
            if recipe.endswith("a32"):  # float rounding alone: no tie is near enough here
                assert answers["draft"] == answers["token by token"]
        assert 0 < chat.session.statistics.steps <= chat.session.statistics.tokens
