"""What clients send and get, as OpenAI's chat API has it: what is not served is refused, not ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ..generation import Sampling
from ..model.tokenizer import Message

_MOST_MESSAGES = 10_000
_MOST_STOPS = 16  # OpenAI takes 4
_MOST_PARTS = 1000  # of a message
_LARGEST_SEED = 2**63 - 1
T = TypeVar("T")
#: A list that is refused at its first wrong element: a million errors are no help, and much memory.
Several = Annotated[list[T], Field(fail_fast=True)]


class _Asked(BaseModel):
    """What a client sends: an unknown key is an error that names it; null is the default."""

    model_config = ConfigDict(extra="forbid")


class TextPart(_Asked):
    """A part of a message; there are no others than text."""

    type: Literal["text"]
    text: str


class AskedMessage(_Asked):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="developer is taken as system")
    content: Annotated[
        str | Annotated[Several[TextPart], Field(max_length=_MOST_PARTS)], Field(union_mode="left_to_right")
    ]
    refusal: None = None  # what clients send back of an answer

    def plain(self) -> Message:
        """As chat templates take it."""
        role = "system" if self.role == "developer" else self.role
        content = self.content
        return {
            "role": role,
            "content": content if isinstance(content, str) else "".join(part.text for part in content),
        }


class StreamOptions(_Asked):
    """What a stream says besides the answer."""

    include_usage: bool | None = None


class PlainText(_Asked):
    """The only format of answers."""

    type: Literal["text"]


StopString = Annotated[str, Field(min_length=1, max_length=1000)]


class ChatRequest(_Asked):
    """A chat completion request. Fields with one allowed value are here for clients that always send them."""

    model: str = Field(description="the served model's id, or 'default'")
    messages: Several[AskedMessage] = Field(min_length=1, max_length=_MOST_MESSAGES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy; 1 unless given, as with OpenAI")
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1_000_000, description="keep the k likeliest tokens; 0: all")
    min_p: float | None = Field(None, ge=0, lt=1, description="keep tokens with this part of the best's probability")
    repetition_penalty: float | None = Field(
        None, ge=1e-3, le=1e3, description="of the logits of every token of the conversation and the answer; 1: none"
    )
    seed: int | None = Field(None, ge=0, le=_LARGEST_SEED)
    stop: StopString | Annotated[Several[StopString], Field(max_length=_MOST_STOPS)] | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="the newer name of max_tokens")
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    response_format: PlainText | None = None
    user: str | None = Field(None, description="changes nothing")
    metadata: dict[str, str] | None = Field(None, description="changes nothing")
    store: Literal[False] | None = None

    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        names = ("top_p", "top_k", "min_p", "repetition_penalty")
        chosen = {name: getattr(self, name) for name in names}
        given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
        temperature = 1.0 if self.temperature is None else self.temperature
        return Sampling(temperature if temperature >= 1e-4 else 0.0, seed=self.seed, **given)

    def stops(self) -> list[str]:
        """Strings that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class CachedTokens(BaseModel):
    """How much of a prompt need not run again."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of one exchange."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


FinishReason = Literal["stop", "length"]


class Choice(BaseModel):
    """The one answer of a response."""

    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: FinishReason


class _Completion(BaseModel):
    id: str
    created: int
    model: str
    system_fingerprint: str = Field(description="the bundle's digest")


class ChatResponse(_Completion):
    """A whole answer."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[Choice]
    usage: Usage


class Delta(BaseModel):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The one answer of a stream."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: None = None
    finish_reason: FinishReason | None = None


class ChatChunk(_Completion):
    """One event of a stream."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    choices: list[ChunkChoice]
    usage: Usage | None = None


class ServedModel(BaseModel):
    """The model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    """All models: one."""

    object: Literal["list"] = "list"
    data: list[ServedModel]


class Health(BaseModel):
    """What runs here."""

    status: Literal["ok", "stopping"]
    model: str
    bundle: str = Field(description="the bundle's digest")
    edgesdk: str
    providers: list[str] = Field(description="what runs the program; operators go to the first that has them")
    context: int
    running: int
    waiting: int
