"""JSON of requests is read beside the event loop, one body at a time, so that the others are answered meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from .errors import ApiError

_MOST_KEYS = 64  # of one object
_READER = ThreadPoolExecutor(1, "json")


class ParsedApart(APIRoute):
    """A route whose bodies are parsed in a thread of their own."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def handler(request: Request) -> Response:
            return await answer(_Parsed(request.scope, request.receive))

        return handler


class _Parsed(Request):
    async def json(self) -> Any:
        return await asyncio.get_running_loop().run_in_executor(_READER, _parsed, await self.body())


def _parsed(body: bytes) -> Any:
    """JSON without large objects: each of their keys would become an error of its own.

    Raises:
        json.JSONDecodeError: it is not valid.
        ApiError: an object has too many keys.
    """
    try:
        data = json.loads(body)
    except (RecursionError, ValueError) as failure:
        if isinstance(failure, json.JSONDecodeError):
            raise
        raise json.JSONDecodeError(str(failure), "", 0) from None
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if len(value) > _MOST_KEYS:
                raise ApiError(400, f"an object may have {_MOST_KEYS} keys here, and not {len(value)}")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return data
