"""Errors in the shape that OpenAI's clients read."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every response that is no success."""

    error: ErrorDetail


class ApiError(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.detail = ErrorDetail(message=message, type=kind, param=param, code=code)
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    def response(self) -> JSONResponse:
        """As it goes out."""
        return JSONResponse(error_body(self.detail), self.status, self.headers)


def error_body(detail: ErrorDetail) -> dict[str, Any]:
    """The JSON of an error, which any client can read: what is not Unicode is replaced."""
    data = detail.model_dump()
    return {"error": {key: value and _sendable(value) for key, value in data.items()}}


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What these statuses mean, for the OpenAPI document."""
    said = {
        400: "The request cannot be answered as it is; the message names the parameter.",
        401: "The token is missing or wrong.",
        403: "The server has no token, and was asked by another name than this machine's, or by a web page.",
        404: "There is no such model, or no such route.",
        408: "The body did not come in time.",
        413: "The body is too large.",
        429: "Every place is taken, or none became free in time.",
        500: "The model failed.",
        503: "The server is stopping.",
    }
    retry = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": said[status]} | ({"headers": retry} if status == 429 else {})
        for status in statuses
    }
    return found | {"default": {"model": ErrorBody, "description": "Any other error."}}


def add_handlers(app: FastAPI, routes: str) -> None:
    """Answer every failure in one shape; ``routes`` says what is served."""

    @app.exception_handler(ApiError)
    async def _api(_: Request, failure: ApiError) -> JSONResponse:
        return failure.response()

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, failure: RequestValidationError) -> JSONResponse:
        return _refused(failure).response()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, failure: HTTPException) -> JSONResponse:
        words = {404: "there is no such route", 405: f"this route does not take {request.method}"}
        said = words.get(failure.status_code)
        message = str(failure.detail) if said is None else f"{said}; {routes}"
        code = "unknown_url" if failure.status_code == 404 else None
        response = ApiError(failure.status_code, message, code=code).response()
        response.headers.update(failure.headers or {})
        return response

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, failure: Exception) -> JSONResponse:
        return ApiError(500, f"the server failed ({type(failure).__name__})", kind="server_error").response()


def _refused(failure: RequestValidationError) -> ApiError:
    first = failure.errors()[0]
    name = ".".join(_place(first["loc"]))
    message = first["msg"].lower()
    match first["type"]:
        case "extra_forbidden":
            return ApiError(400, f"{name}: this server does not support it", param=name, code="unsupported_parameter")
        case "literal_error":
            message += "; nothing else is supported here"
            return ApiError(400, f"{name}: {message}", param=name, code="unsupported_value")
        case "value_error":
            message = message.removeprefix("value error, ")
            return ApiError(400, f"{name}: {message}", param=name, code="unsupported_value")
        case "json_invalid":
            return ApiError(400, "the body is not valid JSON", code="invalid_json")
    return ApiError(
        400,
        f"{name}: {message}" if name else "send a JSON object, with Content-Type: application/json",
        param=name or None,
    )


def _place(parts: tuple[int | str, ...]) -> list[str]:
    """The parameter's path; behind it pydantic names the kinds of values that it tried."""
    place = []
    for part in parts:
        if isinstance(part, str) and (part in _KINDS or "[" in part or not part.isidentifier()):
            break
        place.append(str(part))
    return place[1:] if place[:1] == ["body"] else place


_KINDS = ("str", "int", "float", "bool", "TextPart")
