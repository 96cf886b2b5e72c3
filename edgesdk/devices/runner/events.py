"""What runners say, with types: every event is checked where it comes in, so that nothing behind reads a key in hope.

An event may have keys beyond those that are named here; they stay in it, unread, for the record of a profile.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Le
from typing_extensions import NotRequired, TypedDict

from ...runner_lines import opened
from ...schema import load_open
from ..base import DeviceError

Count: TypeAlias = Annotated[int, Ge(0), Le(2**63 - 1)]


class Hello(TypedDict):
    """What runs there; ``ticks_per_second`` is of its clock, ``emulated`` where that counts no time."""

    event: Literal["hello"]
    protocol: int
    runner: NotRequired[str]
    board: NotRequired[str]
    model_crc: NotRequired[str | Count]
    digest: NotRequired[str]
    runtime: NotRequired[str]
    kernels: NotRequired[str]
    clock: NotRequired[str]
    vocab: NotRequired[Count]
    context: NotRequired[Count]
    prompt_tokens: NotRequired[Count]
    ticks_per_second: NotRequired[Count]
    emulated: NotRequired[bool | Count]
    pid: NotRequired[Count]
    ram: NotRequired[Count]


class Load(TypedDict):
    """How long the program took to load."""

    event: Literal["load"]
    ticks: Count
    ticks_per_second: Count


class Prefill(TypedDict):
    """The prompt went through; ``at`` is the moment, where the runner has a clock."""

    event: Literal["prefill"]
    tokens: NotRequired[Count]
    ticks: Count
    at: NotRequired[Count]


class Token(TypedDict):
    """One token of the answer, and the ticks until the logits after it."""

    event: Literal["token"]
    id: Count
    ticks: Count
    text: NotRequired[str]
    sample_ticks: NotRequired[Count]
    at: NotRequired[Count]


class Operator(TypedDict):
    """One kind of operator, timed."""

    event: Literal["operator"]
    operator: str
    phase: str
    calls: Annotated[float, Ge(0)]
    seconds: Annotated[float, Ge(0)]


class Done(TypedDict):
    """The answer's end."""

    event: Literal["done"]
    prompt_tokens: Count
    new_tokens: Count
    stop: str


class Failed(TypedDict):
    """The runner refuses, or cannot go on."""

    event: Literal["error"]
    code: NotRequired[str]
    message: NotRequired[str]
    hint: NotRequired[str]


class Clock(TypedDict):
    """The runner's clocks, in nanoseconds."""

    event: Literal["clock"]
    at: Count
    boottime: NotRequired[Count | None]


class Loader(TypedDict):
    """No runner but the loader of a microcontroller."""

    event: Literal["loader"]


#: What an answer consists of.
Step: TypeAlias = Prefill | Token | Operator | Done
Event: TypeAlias = Hello | Load | Step | Failed | Clock | Loader
_KINDS: dict[str, Any] = {
    "hello": Hello,
    "load": Load,
    "prefill": Prefill,
    "token": Token,
    "operator": Operator,
    "done": Done,
    "error": Failed,
    "clock": Clock,
    "loader": Loader,
}


def event_of(line: bytes, name: str) -> Event | None:
    """The event of one received line; None for one of another kind than those above.

    Raises:
        EdgeError: the line was cut or changed on its way, or is no event.
        DeviceError: a key of it is missing or of another type than the protocol says.
    """
    said = opened(line)
    kind = _KINDS.get(said["event"])
    if kind is None:
        return None
    found: Event = load_open(kind, said, f"{name}: its runner's event '{said['event']}'", DeviceError)
    return found


def step_in(event: Event | None) -> Step | None:
    """The event if it belongs to an answer; a runner may say more in between."""
    if event is not None and (
        event["event"] == "prefill"
        or event["event"] == "token"
        or event["event"] == "operator"
        or event["event"] == "done"
    ):
        return event
    return None
