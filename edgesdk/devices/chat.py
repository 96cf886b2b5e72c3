"""A conversation with a bundle that runs on a device: the host has the tokenizer, the device the model."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing

from ..bundle import Bundle
from ..chat import bundle_tokenizer
from ..generation import Sampling, TextStream
from ..model.tokenizer import Message
from .base import DeviceError
from .runner.events import Step
from .runner.link import Answer, RunnerLink, answered


class DeviceChat:
    """As :class:`edgesdk.Chat`, over a runner. Each turn sends the whole conversation.

    Attributes:
        answer: the runner's counts of the last turn; None before the first, and after one that was broken off.
    """

    def __init__(self, link: RunnerLink, bundle: Bundle, sampling: Sampling | None = None) -> None:
        """Raises DeviceError: a sampling that no runner on a device has."""
        sampling = sampling or Sampling()
        if sampling != Sampling(sampling.temperature, top_p=sampling.top_p, seed=sampling.seed):
            raise DeviceError("runners on devices sample by temperature, top_p and seed, and by nothing else")
        self._link, self._sampling = link, sampling
        self.tokenizer = bundle_tokenizer(bundle)
        self.messages: list[Message] = []
        self.answer: Answer | None = None

    def stream(self, prompt: str, *, max_tokens: int = 256, stop: Sequence[str] = ()) -> Iterator[str]:
        """The answer piece by piece, as its tokens arrive.

        Raises:
            DeviceError: the runner refuses or fails, or the device is gone.
        """
        asked: list[Message] = [*self.messages, {"role": "user", "content": prompt}]
        templated = self.tokenizer.chat_template is not None
        ids = self.tokenizer.chat(asked) if templated else self.tokenizer.encode(prompt, prefix=True)
        text, said, events = TextStream(self.tokenizer, stop), "", list[Step]()
        self.answer = None
        choice = self._sampling
        stepping = self._link.events(
            ids,
            max_tokens=max_tokens,
            temperature=choice.temperature,
            top_p=choice.top_p,
            seed=(secrets.randbits(32) if choice.seed is None else choice.seed) & 0xFFFFFFFF,
        )
        with closing(stepping):
            for event in stepping:
                events.append(event)
                if event["event"] == "token" and (piece := text.push(event["id"])):
                    said += piece
                    yield piece
                if text.stopped:
                    break
        if rest := text.flush():
            said += rest
            yield rest
        if templated:
            self.messages = [*asked, {"role": "assistant", "content": said}]
        if events and events[-1]["event"] == "done":
            self.answer = answered(events, self._link.hello)
