"""``/props``: what llama.cpp's web page and other clients of its server ask for before they chat."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel

from ... import __version__
from ...model.tokenizer import Tokenizer
from ..asking import Site
from ..errors import documented


class DefaultParameters(BaseModel):
    """What counts where a request does not say otherwise, with llama.cpp's names."""

    n_predict: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = -1


class DefaultGeneration(BaseModel):
    """The context, and the parameters."""

    n_ctx: int
    params: DefaultParameters


class Modalities(BaseModel):
    """What is taken besides text."""

    vision: Literal[False] = False
    audio: Literal[False] = False


class Properties(BaseModel):
    """What a client of llama.cpp's server asks for at its start."""

    default_generation_settings: DefaultGeneration
    total_slots: Literal[1] = 1  # one answer is made at a time
    model_path: str  # the model's id: paths stay here
    model_alias: str
    role: Literal["model"] = "model"
    modalities: Modalities = Modalities()
    chat_template: str
    bos_token: str
    eos_token: str
    build_info: str
    is_sleeping: Literal[False] = False


def add_props(router: APIRouter, site: Site, tokenizer: Tokenizer) -> None:
    """Serve properties."""
    special, name = tokenizer.special, site.served.name
    found = Properties(
        default_generation_settings=DefaultGeneration(
            n_ctx=site.engine.context, params=DefaultParameters(n_predict=site.settings.max_tokens)
        ),
        model_path=name,
        model_alias=name,
        chat_template=tokenizer.chat_template or "",
        bos_token=tokenizer.token(special.bos),
        eos_token=tokenizer.token(next(iter(special.stop), None)),
        build_info=f"edgesdk {__version__}",
    )

    @router.get("/props", response_model=Properties, responses=documented(401, 403))
    async def props() -> Response:
        """What runs here, as llama.cpp's server says it."""
        return Response(found.model_dump_json(), media_type="application/json")
