"""``/v1/completions``: a text, or tokens, and how it goes on; base models are asked so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from ..asking import Asking, Site, answered, streamed
from ..decoding import Answered, Generation, Likelihood, Piece
from ..errors import ApiError, documented
from ..prompts import PlainText, Prompt, Tokens
from .base import DONE, Completion, FinishReason, Flag, Sampled, Several, StreamOptions, Usage, Whole, event, limit
from .chat import STREAMED, finish, usage_of

_MOST_PROMPTS = 64
_MOST_ANSWERS = 64
_DEFAULT_TOKENS = 16  # OpenAI's, for this route
_MOST_TOKENS = 1_000_000
TokenIds = Annotated[Several[Annotated[Whole, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=_MOST_TOKENS)]
Texts = Annotated[Several[str], Field(min_length=1, max_length=_MOST_PROMPTS)]
Lists = Annotated[Several[TokenIds], Field(min_length=1, max_length=_MOST_PROMPTS)]


class CompletionRequest(Sampled):
    """A text completion request."""

    prompt: Annotated[str | Texts | TokenIds | Lists, Field(union_mode="left_to_right")] = Field(
        description="a text or its tokens, or several; special tokens in a text count"
    )
    stream_options: StreamOptions | None = None
    max_tokens: Whole | None = Field(
        None, ge=-1, description=f"{_DEFAULT_TOKENS} unless given, as with OpenAI; -1 and 0: as many as the server lets"
    )
    n_predict: Whole | None = Field(None, ge=-1, description="llama.cpp's name of max_tokens")
    logprobs: Annotated[Whole, Field(ge=-1, le=20)] | Literal[False] | None = Field(
        None, description="how many likely tokens to tell with each token"
    )
    echo: Flag | None = Field(None, description="whether the answer begins with the prompt")

    def prompts(self) -> list[Prompt]:
        """What answers follow."""
        return prompts_of(self.prompt, PlainText, Tokens)


def prompts_of(
    given: str | list[str] | list[int] | list[list[int]],
    text: Callable[[str], Prompt],
    tokens: Callable[[Sequence[int]], Prompt],
) -> list[Prompt]:
    """What a parameter asks for that is a text or its tokens, or several of these."""
    if isinstance(given, str):
        return [text(given)]
    if numbers := [each for each in given if isinstance(each, int)]:
        return [tokens(numbers)]
    return [text(each) if isinstance(each, str) else tokens(each) for each in given if not isinstance(each, int)]


class TextLogprobs(BaseModel):
    """The tokens of an answer, or of a part of it, as the model saw them before temperature and penalties."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(BaseModel):
    """One answer, or a part of it."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: FinishReason | None = None


class CompletionResponse(Completion):
    """Answers, or a part of one."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[TextChoice]
    usage: Usage | None = None


def add_completions(router: APIRouter, site: Site) -> None:
    """Serve texts that go on."""

    @router.post(
        "/v1/completions",
        response_model=CompletionResponse,
        responses={200: {"content": STREAMED}, **documented(400, 401, 403, 404, 408, 413, 429, 500, 503)},
    )
    async def completions(request: Request, asked: CompletionRequest) -> Response:
        """Continue texts, whole or as a stream of server-sent events."""
        site.check_model(asked.model)
        prompts = asked.prompts()
        if len(prompts) * asked.choices > _MOST_ANSWERS:
            raise ApiError(400, f"n: at most {_MOST_ANSWERS} answers a request", param="n")
        if asked.max_tokens is None and asked.n_predict is None:
            most = limit(site.settings.max_tokens, _DEFAULT_TOKENS)
        else:
            most = limit(site.settings.max_tokens, asked.max_tokens, asked.n_predict)
        likely = asked.logprobs if asked.logprobs is not False else None
        wants = likely is not None and likely >= 0
        if asked.echo and wants:
            raise ApiError(
                400,
                "logprobs: those of the prompt (echo) are not served",
                param="logprobs",
                code="unsupported_parameter",
            )
        job = partial(
            Generation,
            prompts=prompts,
            sampling=asked.sampling(),
            max_tokens=most,
            stop=asked.stops(),
            choices=asked.choices,
            logprobs=likely if wants else None,
            echo=bool(asked.echo),
        )
        asking, shared = Asking(site, request, lambda mine: job(**mine)), site.completion("cmpl-")
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return await streamed(asking, lambda events: _chunks(events, shared, asked.choices, usage))
        return await answered(asking, lambda events: _whole(events, shared, asked.choices))


def _whole(events: list[Any], shared: dict[str, Any], choices: int) -> Response:
    ends = [found for found in events if isinstance(found, Answered)]
    found = []
    for end in ends:
        pieces = [piece for piece in events if isinstance(piece, Piece) and piece.index == end.index]
        text = "".join(piece.text for piece in pieces)
        likely = _logprobs([each for piece in pieces for each in piece.likelihoods], 0)
        found.append(TextChoice(index=end.index, text=text, logprobs=likely, finish_reason=finish(end)))
    response = CompletionResponse(**shared, choices=found, usage=usage_of(ends, choices))
    return Response(response.model_dump_json(), media_type="application/json")


async def _chunks(
    events: AsyncIterator[Any], shared: dict[str, Any], choices: int, with_usage: bool
) -> AsyncIterator[str]:
    ends: list[Answered] = []
    offsets: dict[int, int] = {}
    async for found in events:
        match found:
            case Piece(index, text, likely):
                logprobs = _logprobs(likely, offsets.get(index, 0))
                offsets[index] = offsets.get(index, 0) + sum(len(each.token.text) for each in likely)
                choice = TextChoice(index=index, text=text, logprobs=logprobs)
            case Answered(index) as end:
                ends.append(end)
                choice = TextChoice(index=index, text="", finish_reason=finish(end))
            case _:
                continue
        yield event(CompletionResponse(**shared, choices=[choice]))
    if with_usage:
        yield event(CompletionResponse(**shared, choices=[], usage=usage_of(ends, choices)))
    yield DONE


def _logprobs(likely: Sequence[Likelihood], offset: int) -> TextLogprobs | None:
    if not likely:
        return None
    offsets = []
    for each in likely:
        offsets.append(offset)
        offset += len(each.token.text)
    return TextLogprobs(
        tokens=[each.token.text for each in likely],
        token_logprobs=[each.logprob for each in likely],
        top_logprobs=[{token.text: value for token, value in each.top} for each in likely],
        text_offset=offsets,
    )
