"""``/v1/models``, ``/health`` and ``/metrics``: what is served, and how it fares."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import BaseModel, Field

from ... import __version__
from ..asking import Site
from ..errors import documented
from ..metrics import CONTENT_TYPE

_TEXT = {"text/plain": {"schema": {"type": "string"}}}


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


def add_models(router: APIRouter, site: Site) -> None:
    """Serve what is known of the model."""
    served = site.served
    model = ServedModel(id=served.name, created=served.created, owned_by="edgesdk")

    @router.get("/v1/models", responses=documented(401, 403))
    async def models() -> ModelList:
        """The one model."""
        return ModelList(data=[model])

    @router.get("/v1/models/{name:path}", responses=documented(401, 403, 404))
    async def one_model(name: Annotated[str, Path(description="any, unless the server is strict")]) -> ServedModel:
        """The model, by name."""
        site.check_model(name)
        return model

    @router.get("/metrics", responses={200: {"content": _TEXT}, **documented(401, 403)})
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(site.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


def add_health(router: APIRouter, site: Site) -> None:
    """Serve, to anyone, whether it answers."""
    engine, served = site.engine, site.served

    @router.get(
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
