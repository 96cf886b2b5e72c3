"""What the benchmark of an app writes, with types: more of its phone than a runner says, and less of its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Gt, Lt
from typing_extensions import NotRequired, TypedDict

from ..devices.runner.events import Count, Failed


class AppHello(TypedDict):
    """Bundle, phone and clock."""

    event: Literal["hello"]
    protocol: int
    digest: NotRequired[str]
    ticks_per_second: Annotated[int, Gt(0), Lt(2**63)]
    manufacturer: NotRequired[str | None]
    model: NotRequired[str | None]
    fingerprint: NotRequired[str | None]
    os: NotRequired[str | None]
    release: NotRequired[str | None]
    runtime: NotRequired[str | None]


class AppLoad(TypedDict):
    """How long the program took to load."""

    event: Literal["load"]
    ticks: Count
    ticks_per_second: Annotated[int, Gt(0), Lt(2**63)]


class AppMemory(TypedDict):
    """A look at the app's memory."""

    event: Literal["memory"]
    moment: str
    pss_kb: NotRequired[Count | None]


class AppSensors(TypedDict):
    """What the phone says of itself before and after a run."""

    event: Literal["sensors"]
    at: Count
    battery_celsius: NotRequired[float | None]


class AppRun(TypedDict):
    """A run begins."""

    event: Literal["run"]
    kind: str


class AppPrefill(TypedDict):
    """The prompt went through."""

    event: Literal["prefill"]
    ticks: Count
    at: Count


class AppToken(TypedDict):
    """One token; the last has no ticks."""

    event: Literal["token"]
    ticks: Count | None
    at: Count


class AppDone(TypedDict):
    """The answer's end."""

    event: Literal["done"]
    prompt_tokens: Count
    new_tokens: Count
    decode_ticks: NotRequired[Annotated[int, Gt(0), Lt(2**63)] | None]


KINDS: Mapping[str, Any] = {
    "hello": AppHello,
    "load": AppLoad,
    "memory": AppMemory,
    "sensors": AppSensors,
    "run": AppRun,
    "prefill": AppPrefill,
    "token": AppToken,
    "done": AppDone,
    "error": Failed,
}
