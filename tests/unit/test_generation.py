"""Sampling, stop strings, and streaming that never splits a character."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.errors import EdgeError
from edgesdk.generation import Sampler, Sampling, Statistics, generate
from edgesdk.model.tokenizer import SpecialTokens, Tokenizer, open_tokenizer

from ..conftest import make_tokenizer

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder)
    return open_tokenizer(folder)


class Script:
    """A session that says given tokens."""

    vocab = 260

    def __init__(self, tokens: list[int], context: int = 1000) -> None:
        self.tokens, self.context, self.position, self.said = tokens, context, 0, 0

    def prefill(self, ids) -> np.ndarray:
        self.position += len(ids)
        logits = np.zeros(self.vocab, dtype=np.float32)
        logits[self.tokens[self.said]] = 1
        self.said += 1
        return logits

    def decode(self, token: int) -> np.ndarray:
        return self.prefill([token])


def draws(sampling: Sampling, count: int = 2000, seen=()) -> Counter[int]:
    sampler = Sampler(sampling)
    return Counter(sampler.choose(LOGITS, seen) for _ in range(count))


def test_greedy_takes_the_best() -> None:
    assert set(draws(Sampling(), 5)) == {0}


def test_temperature_one_follows_the_probabilities() -> None:
    found = draws(Sampling(temperature=1.0, seed=1), 20000)
    for token, probability in enumerate([0.5, 0.3, 0.15, 0.05]):
        assert found[token] / 20000 == pytest.approx(probability, abs=0.02)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.79}, {0, 1}),
        ({"top_p": 0.81}, {0, 1, 2}),
        ({"min_p": 0.5}, {0, 1}),
        ({"min_p": 0.05, "top_k": 3}, {0, 1, 2}),
        ({"top_p": 0.01}, {0}),
    ],
)
def test_cut_offs_keep_just_the_right_tokens(options, kept) -> None:
    assert set(draws(Sampling(temperature=1.0, seed=3, **options))) == kept


def test_a_seed_repeats_and_another_differs() -> None:
    def sequence(seed: int) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, seed=seed))
        return [sampler.choose(LOGITS) for _ in range(50)]

    assert sequence(5) == sequence(5)
    assert sequence(5) != sequence(6)


def test_repetition_penalty_lowers_seen_tokens_of_either_sign() -> None:
    logits = np.array([2.0, 1.5, -1.0, -1.2], dtype=np.float32)
    sampler = Sampler(Sampling(repetition_penalty=2.0))
    assert sampler.choose(logits, [0]) == 1
    assert sampler.choose(np.array([-1.0, -1.2]), [0]) == 1
    assert logits[0] == 2.0  # the session's array is not changed


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"min_p": 1},
        {"repetition_penalty": 0},
        {"seed": -1},
        {"temperature": 1e-310},
        {"top_k": -1},
    ],
)
def test_values_out_of_range_are_refused(options) -> None:
    with pytest.raises(EdgeError, match="out of range"):
        Sampling(**options)


@given(st.text(min_size=1, max_size=20))
def test_streaming_joins_to_the_text_and_never_splits_a_character(tokenizer, text) -> None:
    ids = tokenizer.encode(text)
    pieces = list(generate(Script([*ids, 0]), tokenizer, [1], max_tokens=len(ids)))
    assert "".join(pieces) == text.encode().decode()
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3))
def test_stop_strings_end_the_text_before_their_first_occurrence(tokenizer, text, stops) -> None:
    ids = tokenizer.encode(text)
    statistics = Statistics()
    found = "".join(
        generate(Script([*ids, 0]), tokenizer, [1], max_tokens=max(1, len(ids)), stop=stops, statistics=statistics)
        if ids
        else ""
    )
    # The text ends at the stop string that completes first while it is read from the left.
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    first = min((end for end, _ in ends), default=None)
    wanted = text if first is None else text[: min(start for end, start in ends if end == first)]
    assert found == wanted
    assert (statistics.reason == "stop") == (first is not None) or not ids


def test_a_stop_token_ends_silently(tokenizer) -> None:
    special = Tokenizer(tokenizer.definition, SpecialTokens(stop=(257,)))
    statistics = Statistics()
    ids = special.encode("hi")
    assert "".join(generate(Script([*ids, 257]), special, [1], statistics=statistics)) == "hi"
    assert (statistics.reason, statistics.tokens) == ("stop", ids)


def test_a_full_context_ends_with_that_reason(tokenizer) -> None:
    statistics = Statistics()
    list(generate(Script([70] * 50, context=6), tokenizer, [1, 2], statistics=statistics))
    assert statistics.reason == "context"
    assert len(statistics.tokens) == 5
