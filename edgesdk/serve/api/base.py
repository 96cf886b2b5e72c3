"""What requests of every route have in common: which fields are taken, how tokens are chosen, what a client is told."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, model_validator

from ...generation import Sampling
from ...toml import toml_tables

_MOST_STOPS = 64  # OpenAI takes 4
_LARGEST_SEED = 2**63
_NOTHING: tuple[Any, ...] = (None, False, 0, "", [], {}, -1)
_COLDEST, _LEAST_PENALTY = 1e-4, 1e-3  # that are sampled with
_INERT = Path(__file__).with_name("inert.toml")
T = TypeVar("T")
N = TypeVar("N", int, float)
#: A list that is refused at its first wrong element: a million errors are no help, and much memory.
Several = Annotated[list[T], Field(fail_fast=True)]
#: Numbers and flags as JSON has them: 16.0 is whole, "16" and true are no numbers.
Whole = Annotated[int, BeforeValidator(lambda value: _as_whole(value)), Strict()]
Number = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[Number, Field(ge=-100, le=100)]
StopString = Annotated[str, Field(max_length=1000)]


def _as_whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Asked(BaseModel):
    """What a client sends: null is the default; a key that is not served is an error, unless it asks for nothing."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=lambda schema: _with_inert(schema))

    @model_validator(mode="before")
    @classmethod
    def _without_what_asks_for_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = cls.model_fields
        return {key: value for key, value in data.items() if key in known or not is_inert(key, value)}


class Named(Asked):
    """A request that may name a model."""

    model: str | None = Field(None, description="one model is served, by any name unless the server is strict")


def is_inert(key: str, value: Any) -> bool:
    """Whether a field that is not served would not change the answer with this value."""
    anything, values = _inert()
    return key in anything or any(value == each for each in (*_NOTHING, *values.get(key, ())))


@cache
def _inert() -> tuple[frozenset[str], Mapping[str, list[Any]]]:
    data = toml_tables(_INERT.read_text(encoding="utf-8"))
    return frozenset(data["any"]), data["values"]


def _with_inert(schema: dict[str, Any]) -> None:
    """Say in the OpenAPI document what :func:`is_inert` takes."""
    anything, values = _inert()
    properties = schema["properties"]
    for key in sorted(anything - set(properties)):
        properties[key] = {"description": "changes nothing"}
    for key in sorted(set(values) - set(properties)):
        properties[key] = {"enum": [*_NOTHING, *values[key]], "description": "nothing else is served"}
    schema["additionalProperties"] = {"enum": list(_NOTHING)}


class Sampled(Named):
    """A request for text: how its tokens are chosen, and what ends it."""

    temperature: Number | None = Field(
        None, ge=-1, le=1000, description="0 is greedy; 1 unless given, as with OpenAI, and below 0"
    )
    top_p: Number | None = Field(None, ge=0, le=1, description="0 and 1: all")
    top_k: Whole | None = Field(None, ge=-1, le=1_000_000, description="keep the k likeliest tokens; 0 and -1: all")
    min_p: Number | None = Field(
        None, ge=-1, lt=1, description="keep tokens with this part of the best's probability; below 0: all"
    )
    repetition_penalty: Number | None = Field(
        None, ge=0, le=1e3, description="of the logits of every token of the conversation and the answer; 0 and 1: none"
    )
    repeat_penalty: Number | None = Field(None, ge=0, le=1e3, description="llama.cpp's name of repetition_penalty")
    frequency_penalty: Number | None = Field(None, ge=-100, le=100, description="of a token, for each time it was said")
    presence_penalty: Number | None = Field(None, ge=-100, le=100, description="of a token that was said")
    logit_bias: dict[TokenId, Bias] | None = Field(None, description="added to logits, by the id of the token")
    seed: Whole | None = Field(None, ge=-_LARGEST_SEED, lt=_LARGEST_SEED, description="below 0: by chance")
    stop: StopString | Annotated[Several[StopString], Field(max_length=_MOST_STOPS)] | None = None
    n: Whole | None = Field(None, ge=-1, le=16, description="answers, one after the other")
    stream: Flag | None = None

    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        penalty = self.repeat_penalty if self.repetition_penalty is None else self.repetition_penalty
        given: dict[str, Any] = {
            "top_p": self.top_p or None,
            "top_k": _positive(self.top_k),
            "min_p": _positive(self.min_p),
            "repetition_penalty": max(penalty, _LEAST_PENALTY) if penalty else None,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "bias": {int(token): value for token, value in (self.logit_bias or {}).items()},
            "seed": self.seed if self.seed is not None and self.seed >= 0 else None,
        }
        temperature = 1.0 if self.temperature is None or self.temperature < 0 else self.temperature
        known = {name: value for name, value in given.items() if value is not None}
        return Sampling(temperature if temperature >= _COLDEST else 0.0, **known)

    def stops(self) -> list[str]:
        """Strings that end the answer."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [string for string in stops if string]

    @property
    def choices(self) -> int:
        """How many answers are wanted."""
        return max(1, self.n or 1)


class StreamOptions(BaseModel):
    """What a stream says besides the answer; what is not known changes nothing."""

    include_usage: Flag | None = None


def limit(most: int, *asked: int | None) -> int:
    """How many tokens an answer may have: the least that was asked for, and not more than ``most``."""
    return min([most, *(value for value in map(_positive, asked) if value is not None)])


def _positive(value: N | None) -> N | None:
    """The number; None where it asks for nothing."""
    return None if value is None or value <= 0 else value


FinishReason = Literal["stop", "length"]


class CachedTokens(BaseModel):
    """How much of a prompt need not run again."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of one exchange."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Completion(BaseModel):
    """What every answer and every part of a stream says of itself."""

    id: str
    created: int
    model: str
    system_fingerprint: str = Field(description="the bundle's digest")


def event(data: BaseModel, kind: str | None = None) -> str:
    """A server-sent event."""
    return (f"event: {kind}\n" if kind else "") + f"data: {data.model_dump_json()}\n\n"


DONE = "data: [DONE]\n\n"
