"""The routes: chat completions, the model, health and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI, Path, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.security import HTTPBearer

from .. import __version__
from .answers import Answer, GoneError, refuse_when_full
from .errors import ApiError, add_handlers, documented
from .limits import USER, Limits
from .messages import ChatRequest, ChatResponse, Health, ModelList, ServedModel
from .metrics import CONTENT_TYPE, Metrics
from .parsing import ParsedApart

if TYPE_CHECKING:
    from .engine import Engine
    from .settings import Settings

ANY_MODEL = "default"
_GONE = 499  # what nginx writes into its log of clients that went away
_EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
_STREAM = {"text/event-stream": {"schema": _EVENT}}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}


@dataclass(frozen=True)
class Served:
    """What a server serves.

    Attributes:
        name: the model's id.
        digest: of the bundle.
        created: when the server started, in seconds since 1970.
        providers: what runs the program.
    """

    name: str
    digest: str
    created: int
    providers: tuple[str, ...]


def make_app(engine: Engine, served: Served, settings: Settings, tokens: Sequence[str]) -> FastAPI:
    """The ASGI application over one engine."""
    metrics = Metrics(engine, {"model": served.name, "bundle": served.digest, "providers": " ".join(served.providers)})
    app = FastAPI(title="edgesdk serve", version=__version__, docs_url=None, redoc_url=None)
    add_handlers(app)
    app.router.route_class = ParsedApart
    app.add_middleware(
        Limits,
        body=settings.body_kb * 1000,
        tokens=tokens,
        responded=metrics.responded,
        refuse=lambda: refuse_when_full(engine),
    )
    bearer = [Depends(HTTPBearer(auto_error=False, description="needed where the server has a token"))]
    model = ServedModel(id=served.name, created=served.created, owned_by="edgesdk")
    names = served.name, f"edgesdk-{served.digest[:12]}"

    @app.post(
        "/v1/chat/completions",
        response_model=ChatResponse,
        dependencies=bearer,
        responses={200: {"content": _STREAM}, **documented(400, 401, 403, 404, 408, 413, 429, 500, 503)},
    )
    async def chat_completions(request: Request, asked: ChatRequest) -> Response:
        """Answer a conversation, whole or as a stream of server-sent events."""
        _check_model(asked.model, served.name)
        limit = _limit(asked, settings.max_tokens)
        answer = Answer(engine, metrics, asked, request.scope[USER], limit, names)
        try:
            await answer.begin(request, settings.wait_seconds)
            if asked.stream:
                return StreamingResponse(
                    answer.stream(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
                )
            whole = await answer.whole(request)
        except GoneError:
            return Response(status_code=_GONE)
        return Response(whole.model_dump_json(), media_type="application/json")

    @app.get("/v1/models", dependencies=bearer, responses=documented(401, 403))
    async def models() -> ModelList:
        """The one model."""
        return ModelList(data=[model])

    @app.get("/v1/models/{name:path}", dependencies=bearer, responses=documented(401, 403, 404))
    async def one_model(name: Annotated[str, Path(description="its id, or 'default'")]) -> ServedModel:
        """The model, by name."""
        _check_model(name, served.name)
        return model

    @app.get(
        "/health",
        response_model=Health,
        responses={**documented(403), 503: {"model": Health, "description": "It stops."}},
    )
    async def health() -> Response:
        """Whether it answers, and what runs it."""
        found = Health(
            status="stopping" if engine.stopping else "ok",
            model=served.name,
            bundle=served.digest,
            edgesdk=__version__,
            providers=list(served.providers),
            context=engine.context,
            running=engine.running,
            waiting=engine.waiting,
        )
        return Response(found.model_dump_json(), 503 if engine.stopping else 200, media_type="application/json")

    @app.get("/metrics", dependencies=bearer, responses={200: {"content": _TEXT}, **documented(401, 403)})
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    return app


def _check_model(asked: str, served: str) -> None:
    if asked not in (served, ANY_MODEL):
        raise ApiError(
            404, f"model: there is no such model here; there is '{served}'", param="model", code="model_not_found"
        )


def _limit(asked: ChatRequest, most: int) -> int:
    if asked.stream_options is not None and not asked.stream:
        raise ApiError(400, "stream_options: only with stream", param="stream_options")
    given = [(name, value) for name in ("max_completion_tokens", "max_tokens") if (value := getattr(asked, name))]
    if not given:
        return most
    name, value = min(given, key=lambda pair: int(pair[1]))
    if value > most:
        raise ApiError(400, f"{name}: answers have at most {most} tokens here", param=name, code="too_many_tokens")
    return int(value)
