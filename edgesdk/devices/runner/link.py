"""The host's end of the runner protocol, over any line."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from ...errors import EdgeError
from ...runner_lines import measure_command, opened, sealed, tokens_command
from ..base import DeviceError, DeviceTimeoutError, Line
from .events import Clock, Done, Failed, Hello, Step, event_of, step_in

PROTOCOL = 1
_LOAD, _TOKEN, _CLOCK, _STOP = 600.0, 300.0, 30.0, 20.0  # seconds without an event


@dataclass(frozen=True)
class Answer:
    """The end of an answer, as the runner counted.

    Attributes:
        prompt_tokens: tokens of the prompt.
        new_tokens: tokens of the answer.
        stop: ``eos``, ``length``, ``context`` or ``user``.
        prefill_seconds: for the prompt; None where the runner's clock is no time, as in an emulator that counts
            instructions.
        decode_seconds: for the tokens after the first; None likewise.
        events: everything that the runner said.
    """

    prompt_tokens: int
    new_tokens: int
    stop: str
    prefill_seconds: float | None
    decode_seconds: float | None
    events: tuple[Step, ...]


class RunnerLink:
    """A runner that has said hello.

    Attributes:
        hello: what it said.
        load_seconds: for the program, where it measured that.
    """

    def __init__(self, line: Line, name: str, *, ask: bool = False, seconds: float = _LOAD) -> None:
        """Wait for hello, or ``ask`` for it where the runner has been there before us.

        Raises:
            DeviceError: the runner cannot run its bundle, or speaks another protocol.
            DeviceTimeoutError: nothing says hello.
        """
        self._line, self.name = line, name
        self.load_seconds: float | None = None
        try:
            self.hello = self._greeted(ask, seconds)
        except BaseException:
            line.close()
            raise

    def _greeted(self, ask: bool, seconds: float) -> Hello:
        if ask:
            self._line.send(b"\n" + sealed("hello"))
        hello = self._greeting(seconds, passing=ask)
        if hello["protocol"] != PROTOCOL:
            raise DeviceError(
                f"{self.name}: its runner speaks protocol {hello['protocol']}, this edgesdk speaks {PROTOCOL}",
                hint="flash or push it again with this edgesdk",
            )
        return hello

    def events(
        self, ids: Sequence[int], *, max_tokens: int, temperature: float = 0.0, top_p: float = 1.0, seed: int = 1
    ) -> Generator[Step, None, None]:
        """Have tokens answered: ``prefill``, each ``token``, ``done``; a consumer that stops early stops the runner.

        Raises:
            DeviceError: the runner refuses the tokens, or fails.
            DeviceGoneError: the line broke.
            EdgeError: a line of it was damaged on its way.
        """
        yield from self._answered(
            ids, tokens_command(list(ids), new_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)
        )

    def measured(self, ids: Sequence[int], tokens: int, *, operators: bool = False) -> Generator[Step, None, None]:
        """As :meth:`events`, of so many tokens, greedily and whatever they are; with every operator timed if asked."""
        yield from self._answered(ids, measure_command(list(ids), tokens, operators=operators))

    def clock(self) -> Clock | None:
        """The runner's clocks now, in nanoseconds: ``at`` and, where it has that, ``boottime``; None without a clock.

        Raises:
            DeviceError: the line broke.
        """
        self._line.send(sealed("clock"))
        event = event_of(self._line.line(_CLOCK), self.name)
        return event if event is not None and event["event"] == "clock" else None

    def _answered(self, ids: Sequence[int], command: bytes) -> Generator[Step, None, None]:
        most = self.hello.get("prompt_tokens")
        if most is not None and len(ids) > most:
            raise DeviceError(
                f"{self.name}: {len(ids)} tokens, and its runner takes {most} at once", hint="shorten the prompt"
            )
        self._line.send(command)
        ended = False
        try:
            while not ended:
                event = event_of(self._line.line(_TOKEN), self.name)
                if event is not None and event["event"] == "error":
                    ended = True
                    raise _failed(self.name, event)
                if (step := step_in(event)) is not None:
                    ended = step["event"] == "done"
                    yield step
        finally:
            if not ended:
                self._stop()

    def close(self) -> None:
        """End the runner, or let go of the line; never raises."""
        self._line.close()

    def _stop(self) -> None:
        """Ctrl-C to the runner, and pass over what it still says."""
        give_up = time.monotonic() + _STOP
        try:
            self._line.send(b"\x03")
            while time.monotonic() < give_up:
                try:
                    if opened(self._line.line(_STOP))["event"] in ("done", "error"):
                        return
                except DeviceError:
                    return
                except EdgeError:
                    continue
        except DeviceError:
            return

    def _greeting(self, seconds: float, *, passing: bool) -> Hello:
        give_up = time.monotonic() + seconds
        while (left := give_up - time.monotonic()) > 0:
            try:
                received = self._line.line(left)
            except DeviceTimeoutError:
                break
            try:
                event = event_of(received, self.name)
            except DeviceError:
                raise
            except EdgeError:
                continue  # a banner of the login, or the end of what came before us
            if event is None:
                continue
            if event["event"] == "hello":
                return event
            if event["event"] == "load" and event["ticks_per_second"]:
                self.load_seconds = event["ticks"] / event["ticks_per_second"]
            if event["event"] == "loader":
                raise DeviceError(f"{self.name}: its loader waits for a firmware", hint="edgesdk flash BUNDLE")
            if event["event"] == "error" and not (passing and event.get("code") == "line"):
                raise _failed(self.name, event)
        raise DeviceTimeoutError(
            f"{self.name}: no runner says hello in {seconds:g} s",
            hint="on a microcontroller: edgesdk flash BUNDLE, and is this its baud rate?",
        )


def answered(events: Sequence[Step], hello: Hello) -> Answer:
    """What the events of one answer, which end with ``done``, come to; :class:`Answer` says in which units."""
    done = _the_end(events)
    ticks = 0 if hello.get("emulated") else hello.get("ticks_per_second") or 0
    prefill = next((event["ticks"] for event in events if event["event"] == "prefill"), None)
    decoding = [event["ticks"] for event in events if event["event"] == "token"][:-1]
    return Answer(
        done["prompt_tokens"],
        done["new_tokens"],
        done["stop"],
        prefill / ticks if ticks and prefill is not None else None,
        sum(decoding) / ticks if ticks and decoding else None,
        tuple(events),
    )


def _the_end(events: Sequence[Step]) -> Done:
    last = events[-1] if events else None
    if last is None or last["event"] != "done":
        raise DeviceError("the runner's answer has no end")
    return last


def _failed(name: str, event: Failed) -> DeviceError:
    return DeviceError(f"{name}: {event.get('message') or event.get('code')}", hint=event.get("hint") or None)
