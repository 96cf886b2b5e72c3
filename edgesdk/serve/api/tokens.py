"""``/tokenize`` and ``/detokenize``, with the names of fields that llama.cpp's server and vLLM have."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from ...errors import EdgeError
from ...model.tokenizer import Tokenizer
from ..asking import Site, api_error
from ..errors import ApiError, documented
from ..prompts import Conversation, PlainText, Prompt, PromptError, Tokens
from .base import Asked, Flag, Named, Several
from .chat import AskedMessage
from .completions import TokenIds


class TokenizeRequest(Named):
    """A text, or a conversation."""

    content: str | None = Field(None, description="the text; prompt is another name")
    prompt: str | None = None
    messages: Annotated[Several[AskedMessage], Field(min_length=1, max_length=10_000)] | None = Field(
        None, description="in place of a text; written by the chat template"
    )
    add_special: Flag | None = Field(None, description="whether a text gets the tokenizer's prefix; false unless given")
    add_special_tokens: Flag | None = Field(None, description="the same, with vLLM's name")
    with_pieces: Flag | None = Field(None, description="whether pieces are given too")

    def asked(self) -> Prompt:
        """What is to be made tokens.

        Raises:
            ApiError: nothing, or two things.
        """
        given = [value for value in (self.content, self.prompt, self.messages) if value is not None]
        if len(given) != 1:
            raise ApiError(400, "content: give one text (content or prompt), or messages", param="content")
        if self.messages is not None:
            return Conversation([message.plain() for message in self.messages])
        return PlainText(str(given[0]), "content", bool(self.add_special or self.add_special_tokens))


class TokenizeResponse(BaseModel):
    """Tokens as the model sees them."""

    tokens: list[int]
    count: int
    max_model_len: int = Field(description="the context")
    pieces: list[str] | None = Field(None, description="the written form of each token in the vocabulary")


class DetokenizeRequest(Asked):
    """Tokens."""

    model: str | None = None
    tokens: TokenIds


class DetokenizeResponse(BaseModel):
    """Their text, without special tokens."""

    content: str


def add_tokens(router: APIRouter, site: Site, tokenizer: Tokenizer) -> None:
    """Serve the tokenizer."""

    @router.post(
        "/tokenize", response_model=TokenizeResponse, responses=documented(400, 401, 403, 404, 408, 413, 429, 503)
    )
    async def tokenize(asked: TokenizeRequest) -> Response:
        """The tokens of a text or of a conversation."""
        site.check_model(asked.model)
        prompt = asked.asked()
        try:
            ids = await run_in_threadpool(prompt.ids, tokenizer)
        except EdgeError as failure:
            raise api_error(failure) from None
        pieces = [tokenizer.token(index) for index in ids] if asked.with_pieces else None
        found = TokenizeResponse(tokens=ids, count=len(ids), max_model_len=site.engine.context, pieces=pieces)
        return Response(found.model_dump_json(), media_type="application/json")

    @router.post(
        "/detokenize", response_model=DetokenizeResponse, responses=documented(400, 401, 403, 404, 408, 413, 429, 503)
    )
    async def detokenize(asked: DetokenizeRequest) -> Response:
        """The text of tokens."""
        site.check_model(asked.model)
        try:
            ids = Tokens(asked.tokens, "tokens").ids(tokenizer)
        except PromptError as failure:
            raise api_error(failure) from None
        text = await run_in_threadpool(tokenizer.decode, ids)
        return Response(DetokenizeResponse(content=text).model_dump_json(), media_type="application/json")
