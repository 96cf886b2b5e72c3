"""``/v1/embeddings``: texts become rows of numbers, where an encoder is served."""

from __future__ import annotations

import base64
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from ..asking import Asking, Site, answered
from ..encoding import Embedding, EncodedText, EncodedTokens, Rows
from ..errors import ApiError, documented
from ..prompts import Prompt
from .base import Flag, Named, Several, Whole
from .completions import TokenIds, prompts_of

_MOST_TEXTS = 2048  # as OpenAI


class EmbeddingRequest(Named):
    """A request for embeddings."""

    input: Annotated[
        str
        | Annotated[Several[str], Field(min_length=1, max_length=_MOST_TEXTS)]
        | TokenIds
        | Annotated[Several[TokenIds], Field(min_length=1, max_length=_MOST_TEXTS)],
        Field(union_mode="left_to_right"),
    ] = Field(description="a text or its tokens (of this model), or several")
    encoding_format: Literal["float", "base64"] | None = Field(None, description="base64: of little-endian float32")
    dimensions: Whole | None = Field(None, ge=-1, description="that of the model; no other")
    truncate: Flag | None = Field(None, description="whether a text that is too long is cut; an error unless given")

    def prompts(self) -> list[Prompt]:
        """What is embedded."""
        return prompts_of(self.input, EncodedText, EncodedTokens)


class EmbeddingRow(BaseModel):
    """The embedding of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens of the texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """Embeddings in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[EmbeddingRow]
    model: str
    usage: EmbeddingUsage


def add_embeddings(router: APIRouter, site: Site, size: int) -> None:
    """Serve embeddings of so many numbers."""

    @router.post(
        "/v1/embeddings",
        response_model=EmbeddingResponse,
        responses=documented(400, 401, 403, 404, 408, 413, 429, 500, 503),
    )
    async def embeddings(request: Request, asked: EmbeddingRequest) -> Response:
        """The embeddings of texts."""
        site.check_model(asked.model)
        if asked.dimensions not in (None, -1, 0, size):
            raise ApiError(
                400, f"dimensions: embeddings have {size} here", param="dimensions", code="unsupported_value"
            )
        job = partial(Embedding, prompts=asked.prompts(), cut=bool(asked.truncate))
        written = partial(_written, site.served.name, asked.encoding_format == "base64")
        return await answered(Asking(site, request, lambda mine: job(**mine)), written)


def _written(model: str, coded: bool, events: list[Any]) -> Response:
    (rows,) = events
    assert isinstance(rows, Rows)
    values = [base64.b64encode(row.astype("<f4").tobytes()).decode() if coded else row.tolist() for row in rows.values]
    found = EmbeddingResponse(
        data=[EmbeddingRow(index=index, embedding=value) for index, value in enumerate(values)],
        model=model,
        usage=EmbeddingUsage(prompt_tokens=rows.tokens, total_tokens=rows.tokens),
    )
    return Response(found.model_dump_json(), media_type="application/json")
