"""The application: the routes that fit what is served, behind limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from .. import __version__
from .api.chat import add_chat
from .api.completions import add_completions
from .api.embeddings import add_embeddings
from .api.models import add_health, add_models
from .api.props import add_props
from .api.responses import add_responses
from .api.tokens import add_tokens
from .asking import Served, Site, refuse_when_full
from .errors import add_handlers
from .limits import Limits
from .metrics import Metrics
from .pages import Pages
from .parsing import ParsedApart

if TYPE_CHECKING:
    from ..encoders import Encoder
    from ..model.tokenizer import Tokenizer
    from .engine import Engine
    from .settings import Settings

AddRoutes = Callable[[APIRouter, Site], None]
#: What answers, what runs the program, and the routes of its kind of model.
Loaded = tuple["Engine", tuple[str, ...], AddRoutes]


def make_app(engine: Engine, served: Served, settings: Settings, tokens: Sequence[str], add: AddRoutes) -> FastAPI:
    """The ASGI application over one engine; ``add`` adds the routes of its kind of model."""
    metrics = Metrics(engine, {"model": served.name, "bundle": served.digest, "providers": " ".join(served.providers)})
    site = Site(engine, metrics, served, settings)
    bearer = Depends(HTTPBearer(auto_error=False, description="needed where the server has a token"))
    guarded, open_to_all = APIRouter(route_class=ParsedApart, dependencies=[bearer]), APIRouter()
    add(guarded, site)
    add_models(guarded, site)
    add_health(open_to_all, site)
    app = FastAPI(title="edgesdk serve", version=__version__, docs_url=None, redoc_url=None)
    app.include_router(guarded)
    app.include_router(open_to_all)
    paths = [route for router in (guarded, open_to_all) for route in router.routes if isinstance(route, APIRoute)]
    add_handlers(app, _said(paths))
    app.add_middleware(
        Limits,
        body=settings.body_kb * 1000,
        tokens=tokens,
        pages=Pages(settings.origins, bool(tokens)),
        paths=[app.openapi_url or "", *(route.path.partition("{")[0] for route in paths)],
        responded=metrics.responded,
        refuse=lambda: refuse_when_full(engine),
    )
    return app


def add_decoder(router: APIRouter, site: Site, tokenizer: Tokenizer) -> None:
    """The routes of a decoder: conversations where it has a chat template, texts always."""
    if tokenizer.chat_template is not None:
        add_chat(router, site, tokenizer)
        add_responses(router, site, tokenizer)
    add_completions(router, site)
    add_props(router, site, tokenizer)
    add_tokens(router, site, tokenizer)


def add_encoder(router: APIRouter, site: Site, encoder: Encoder) -> None:
    """The routes of an encoder that embeds."""
    add_embeddings(router, site, encoder.session.size)
    add_tokens(router, site, encoder.tokenizer)


def _said(routes: Sequence[APIRoute]) -> str:
    """The routes in words."""
    named = [f"{'/'.join(sorted(route.methods or ()))} {route.path}" for route in routes]
    return f"served here are {', '.join(named)}"
