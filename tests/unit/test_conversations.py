"""The same prompt gives the same answer wherever it is asked, and whatever a cache holds of it already."""

from __future__ import annotations

import queue
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import edgesdk
from edgesdk.bundle import Bundle, open_bundle
from edgesdk.chat import Answering, bundle_tokenizer
from edgesdk.devices import Settings
from edgesdk.devices.base import DeviceTimeoutError
from edgesdk.devices.chat import DeviceChat
from edgesdk.devices.local import LocalDevice
from edgesdk.devices.runner import remote
from edgesdk.devices.runner.link import RunnerLink
from edgesdk.devices.runner.start import running as runner_on
from edgesdk.errors import EdgeError
from edgesdk.generation import Sampler, Sampling, Statistics, generate
from edgesdk.model.tokenizer import Tokenizer
from edgesdk.serve.stoppable import StoppableSession, StoppedError
from edgesdk.session import refuse_rewind, refuse_tokens
from edgesdk.speculative import PromptLookup, SpeculativeSession, Steps

from .serving import PATIENCE, Running, running

CONTEXT, VOCAB = 256, 260
GREEDY = Sampling()


class Remembering:
    """A session whose logits are drawn from a hash of every token in its cache, and favour what is in it.

    So an answer shows each token that the cache lacks, has twice or has at another place, bit for bit.
    """

    def __init__(self) -> None:
        self.context, self.vocab = CONTEXT, VOCAB
        self.ids: list[int] = []

    @property
    def position(self) -> int:
        return len(self.ids)

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        return self.score(ids)[-1]

    def decode(self, token: int) -> np.ndarray:
        return self.prefill([token])

    def score(self, ids: Sequence[int]) -> np.ndarray:
        refuse_tokens(self, ids)
        rows = []
        for token in ids:
            self.ids.append(token)
            rows.append(_logits(self.ids))
        return np.array(rows)

    def reset(self) -> None:
        self.ids = []

    def rewind(self, count: int) -> None:
        refuse_rewind(self, count)
        del self.ids[self.position - count :]


def _logits(ids: Sequence[int]) -> np.ndarray:
    logits = np.random.default_rng(zlib.crc32(bytes(str(ids), "ascii"))).standard_normal(VOCAB).astype(np.float32)
    logits[list(ids)] += 1.5
    return logits


class InProcess:
    """A line to the runner of boards, in a thread of this process."""

    def __init__(self, session: Remembering, stop: frozenset[int], patch: pytest.MonkeyPatch) -> None:
        self._events: queue.Queue[bytes] = queue.Queue()
        self._commands: queue.Queue[bytes | None] = queue.Queue()
        self._stopped = threading.Event()
        patch.setattr(remote, "say", lambda event, **fields: self._events.put(remote.event_line(event, **fields)))
        facts = {"protocol": remote.PROTOCOL, "context": CONTEXT, "prompt_tokens": CONTEXT - 1}
        incoming: Any = self
        threading.Thread(target=remote.Runner(session, facts, stop, incoming).serve, daemon=True).start()

    def send(self, data: bytes) -> None:
        if b"\x03" in data:
            self._stopped.set()
        else:
            self._commands.put(data)

    def line(self, seconds: float | None = None) -> bytes | None:
        """The next event for the host; the next command for the runner, which asks without a time."""
        if seconds is None:
            return self._commands.get()
        try:
            return self._events.get(timeout=PATIENCE)
        except queue.Empty:
            raise DeviceTimeoutError("nothing came") from None

    def stopped(self) -> bool:
        stopped = self._stopped.is_set()
        self._stopped.clear()
        return stopped

    def close(self) -> None:
        self._commands.put(None)


@dataclass
class Consumers:
    """Everything that answers, each with a cache of its own that lives as long as the tests of this module."""

    tokenizer: Tokenizer
    bundle: Bundle
    server: Running
    runner: DeviceChat
    kept: dict[str, Answering]
    chat: edgesdk.Chat


@contextmanager
def _consumers(path: Path) -> Iterator[Consumers]:
    with pytest.MonkeyPatch.context() as patch, open_bundle(path, check=False) as bundle:
        tokenizer = bundle_tokenizer(bundle)
        lookup = SpeculativeSession(Remembering(), PromptLookup(), Steps(1, aligned=False, exact=True))
        kept = {"kept": Answering(Remembering(), tokenizer), "drafting": Answering(lookup, tokenizer)}
        line: Any = InProcess(Remembering(), frozenset(tokenizer.special.stop), patch)
        runner = DeviceChat(RunnerLink(line, "here"), bundle)
        with pytest.MonkeyPatch.context() as opening:
            opening.setattr("edgesdk.chat.open_session", lambda *_, **__: Remembering())
            chat = edgesdk.Chat(bundle)
        with running(path, session=Remembering()) as server:
            yield Consumers(tokenizer, bundle, server, runner, kept, chat)
        line.close()


@pytest.fixture(scope="module")
def consumers(bundle: Path) -> Iterator[Consumers]:
    with _consumers(bundle) as found:
        yield found


@dataclass(frozen=True)
class Turn:
    """One question of a conversation.

    Attributes:
        text: what is asked.
        cut: after so many pieces the user goes away; None: reads to the end.
        edited: the conversation goes on from its beginning, not from the answer before.
    """

    text: str
    sampling: Sampling
    most: int
    stop: list[str]
    cut: int | None
    edited: bool


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.0, 0.7, 1.5]),
    top_k=st.sampled_from([0, 20]),
    top_p=st.sampled_from([1.0, 0.9]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 0.5, 1.1, 1.5, 3.0]),
    seed=st.integers(0, 3),
)
turns = st.builds(
    Turn,
    text=st.text("ab é", max_size=8),
    sampling=samplings,
    most=st.integers(1, 12),
    stop=st.lists(st.text("ab ", min_size=1, max_size=2), max_size=2),
    cut=st.none() | st.integers(0, 3),
    edited=st.booleans(),
)


def fresh(tokenizer: Tokenizer, ids: list[int], turn: Turn) -> tuple[str, Statistics]:
    """What a new session answers."""
    statistics = Statistics()
    options: Any = {"sampling": turn.sampling, "max_tokens": turn.most, "stop": turn.stop}
    return "".join(generate(Remembering(), tokenizer, ids, statistics=statistics, **options)), statistics


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(turns, min_size=1, max_size=4))
def test_a_prompt_has_one_answer(consumers: Consumers, conversation: list[Turn]) -> None:
    """Over turns that follow on each other, begin anew, or were given up in their middle."""
    messages: list[Any] = []
    for turn in conversation:
        messages = [*([] if turn.edited else messages), {"role": "user", "content": turn.text}]
        ids = consumers.tokenizer.chat(messages)
        if len(ids) >= CONTEXT - 16:
            return
        text, wanted = fresh(consumers.tokenizer, ids, turn)
        _ask_kept(consumers, ids, turn, text, wanted)
        _ask_chat(consumers, messages, turn, text, wanted)
        _ask_server(consumers, messages, ids, turn, text, wanted)
        if turn.sampling.temperature == 0 and turn.sampling.repetition_penalty == 1:
            _ask_runner(consumers, messages, turn, text)
        messages = [*messages, {"role": "assistant", "content": text}]


def _ask_kept(consumers: Consumers, ids: list[int], turn: Turn, text: str, wanted: Statistics) -> None:
    for name, answering in consumers.kept.items():
        for cut in [turn.cut, None] if turn.cut is not None else [None]:
            found = Statistics()
            pieces = answering.stream(
                ids, sampling=turn.sampling, max_tokens=turn.most, stop=turn.stop, statistics=found
            )
            if cut is None:
                assert "".join(pieces) == text, name
                assert (found.tokens, found.reason) == (wanted.tokens, wanted.reason), name
                assert found.prompt_tokens + answering.reused == len(ids), name
            else:
                begun = "".join(piece for piece, _ in zip(pieces, range(cut), strict=False))
                assert text.startswith(begun)
                pieces.close()  # type: ignore[attr-defined]


def _ask_chat(consumers: Consumers, messages: list[Any], turn: Turn, text: str, wanted: Statistics) -> None:
    chat = consumers.chat
    chat.messages, chat.sampling = messages[:-1], turn.sampling
    assert chat.ask(turn.text, max_tokens=turn.most, stop=turn.stop) == text
    assert chat.statistics.tokens == wanted.tokens


def _ask_server(
    consumers: Consumers, messages: list[Any], ids: list[int], turn: Turn, text: str, wanted: Statistics
) -> None:
    options = {
        name: value
        for name, value in vars(turn.sampling).items()
        if name in ("top_p", "top_k", "min_p", "repetition_penalty")
    }
    extra = {name: options.pop(name) for name in ("top_k", "min_p", "repetition_penalty")}
    answer = consumers.server.client().chat.completions.create(
        model="default",
        messages=messages,
        temperature=turn.sampling.temperature,
        top_p=turn.sampling.top_p,
        seed=turn.sampling.seed,
        max_tokens=turn.most,
        stop=turn.stop or None,
        extra_body=extra,
    )
    assert answer.choices[0].message.content == text
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), len(wanted.tokens))
    assert 0 <= (answer.usage.prompt_tokens_details.cached_tokens or 0) < len(ids)


def _ask_runner(consumers: Consumers, messages: list[Any], turn: Turn, text: str) -> None:
    consumers.runner.messages = messages[:-1]
    assert "".join(consumers.runner.stream(turn.text, max_tokens=turn.most, stop=turn.stop)) == text


def test_an_answer_that_was_stopped_within_its_prompt_leaves_a_cache_to_go_on_with(consumers: Consumers) -> None:
    session, sampling = StoppableSession(Remembering()), Sampling(repetition_penalty=1.5)
    answering = Answering(session, consumers.tokenizer)

    def ask(ids: list[int]) -> list[int]:
        found = Statistics()
        for _ in answering.stream(ids, sampling=sampling, max_tokens=8, stop=(), statistics=found):
            pass
        return found.tokens

    turn = Turn("", sampling, 8, [], None, edited=False)
    first = [5, 9, 33, 7, 60]
    ids = [*first, *ask(first), 11, 12]
    session.stopped.set()
    with pytest.raises(StoppedError):
        ask(ids)
    session.stopped.clear()
    assert ask(ids) == fresh(consumers.tokenizer, ids, turn)[1].tokens
    assert answering.reused >= len(first) + 7


def test_a_session_that_holds_something_else_is_refused(consumers: Consumers) -> None:
    """Else a penalty and an answer would follow from tokens that nobody named."""
    session = Remembering()
    session.prefill([1, 2, 3])
    for held in (0, 2, 4):
        with pytest.raises(EdgeError, match="holds 3 tokens"):
            list(generate(session, consumers.tokenizer, [1, 2, 3, 4, 5], held=held))
    with pytest.raises(EdgeError, match="no tokens to run"):
        list(generate(session, consumers.tokenizer, [1, 2, 3], held=3))
    assert list(generate(session, consumers.tokenizer, [1, 2, 3, 4, 5], held=3, max_tokens=2)) is not None
    assert session.ids[:5] == [1, 2, 3, 4, 5]


def test_a_real_bundle_answers_alike_here_on_a_server_and_on_a_device(bundle: Path, tmp_path: Path) -> None:
    device = LocalDevice("local", Settings("local", store=str(tmp_path / "store")))
    ask: Any = {"model": "default", "temperature": 0, "max_tokens": 10}
    with open_bundle(bundle) as opened, running(bundle) as server, runner_on(device, opened) as link:
        for penalty in (1.0, 1.3):
            chat, there = edgesdk.Chat(opened, sampling=Sampling(repetition_penalty=penalty)), DeviceChat(link, opened)
            messages: list[Any] = []
            for question in ("one", "two", "three"):
                whole = edgesdk.Chat(opened, sampling=Sampling(repetition_penalty=penalty))
                whole.messages = list(messages)
                text = whole.ask(question, max_tokens=10)
                assert chat.ask(question, max_tokens=10) == text
                messages.append({"role": "user", "content": question})
                create = server.client().chat.completions.create
                answer = create(messages=messages, extra_body={"repetition_penalty": penalty}, **ask)
                assert answer.choices[0].message.content == text
                if penalty == 1:
                    assert "".join(there.stream(question, max_tokens=10)) == text
                messages.append({"role": "assistant", "content": text})


@pytest.mark.parametrize("sampling", [Sampling(repetition_penalty=1.2), Sampling(top_k=5), Sampling(min_p=0.1)])
def test_what_runners_on_devices_lack_is_refused(consumers: Consumers, sampling: Sampling) -> None:
    with pytest.raises(EdgeError, match="by nothing else"):
        DeviceChat(consumers.runner._link, consumers.bundle, sampling)


LOGITS = arrays.arrays(np.float32, 24, elements=st.floats(-60, 60, width=32))


@settings(deadline=None)
@given(LOGITS, st.lists(st.integers(0, 23), min_size=1, max_size=40), st.floats(0.25, 4))
def test_the_penalty_is_that_of_transformers(logits: np.ndarray, seen: list[int], penalty: float) -> None:
    """Its processor's scores and ours have the same best token, and the same chances at a temperature of 1."""
    from transformers import RepetitionPenaltyLogitsProcessor

    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), torch.from_numpy(logits.copy())[None])[0]
    options = Sampling(repetition_penalty=penalty)
    assert theirs[Sampler(options).choose(logits, seen)] == theirs.max()
    one = replace(options, temperature=1.0, top_k=1, seed=0)
    assert theirs[Sampler(one).choose(logits, seen)] == theirs.max()
