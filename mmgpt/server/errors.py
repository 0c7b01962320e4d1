"""Errors as OpenAI's clients read them: ``{"error": {"message", "type", "param", "code"}}``."""

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

LOGGER = logging.getLogger("uvicorn.error")
# Status: type and code, where an error names no code of its own.
KINDS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("invalid_request_error", "request_timeout"),
    413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    500: ("server_error", "internal_error"),
    503: ("server_error", "shutting_down"),
    504: ("server_error", "time_limit"),
}


class ApiError(Exception):
    """What a request is refused with.

    Args:
        status: HTTP status, one of KINDS.
        message: a sentence for the user.
        param: the part of the request that is to blame, such as ``messages[0].content``.
        code: instead of the status's own.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.headers = status, headers
        kind, usual = KINDS[status]
        self.body = {"error": dict(message=message, type=kind, param=param, code=code or usual)}


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


def full() -> ApiError:
    """There is no room for another request."""
    return ApiError(429, "too many requests at once: try again in a moment", headers={"Retry-After": "1"})


def shutting_down() -> ApiError:
    """The server is about to end."""
    return ApiError(503, "the server is shutting down", headers={"Retry-After": "5"})


def as_api_error(error: Exception) -> ApiError:
    """What to tell a client about an error; of a fault of the program only that there was one, the rest is logged."""
    if isinstance(error, ApiError):
        return error
    LOGGER.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed to answer; its log says why")


def add_handlers(app: FastAPI) -> None:
    """Make every error that ends a request of the app a response in OpenAI's shape."""

    # These are async: Starlette would run others in threads, up to 40 of them.
    async def handle(_: Request, error: Exception) -> Response:
        error = as_api_error(error)
        return JSONResponse(error.body, error.status, error.headers)

    async def handle_http(request: Request, error: HTTPException) -> Response:
        # The router's own: no such path, or no such method there.
        message = f"{error.detail}: {request.method} {request.url.path}"
        return await handle(request, ApiError(error.status_code, message, headers=error.headers))

    async def handle_gone(_: Request, __: ClientGone) -> Response:
        return Response(status_code=499)  # nobody reads it; the metrics count it, by nginx's number for this

    app.add_exception_handler(ApiError, handle)
    app.add_exception_handler(HTTPException, handle_http)
    app.add_exception_handler(ClientGone, handle_gone)
    app.add_exception_handler(Exception, handle)
