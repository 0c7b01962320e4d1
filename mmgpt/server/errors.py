"""Error responses in OpenAI's format: ``{"error": {"message", "type", "param", "code"}}``."""

import logging
from collections.abc import Collection, Mapping

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

LOGGER = logging.getLogger("uvicorn.error")
# HTTP status: OpenAI's type of the error, and the code unless an error names another one.
TYPES_AND_CODES = {
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
    """Error response to a request.

    Args:
        status: HTTP status, one of TYPES_AND_CODES.
        message: a sentence for the user.
        param: parameter of the request that is wrong, such as ``messages[0].content``.
        code: instead of the usual one of the status.
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
        kind, usual_code = TYPES_AND_CODES[status]
        self.body = {"error": dict(message=message, type=kind, param=param, code=code or usual_code)}


class ClientGone(Exception):
    """The client left, so that nobody waits for the answer."""


def model_not_found(name: str, models: Collection[str]) -> ApiError:
    """Error for a request of another model than the served ones."""
    message = f"the model {name!r} does not exist: this server has {', '.join(map(repr, models))}"
    return ApiError(404, message, "model", "model_not_found")


def too_many_requests() -> ApiError:
    """Error for a request beyond the limit of requests at once."""
    return ApiError(429, "too many requests at once: try again in a moment", headers={"Retry-After": "1"})


def shutting_down() -> ApiError:
    """Error for requests while the server shuts down."""
    return ApiError(503, "the server is shutting down", headers={"Retry-After": "5"})


def as_api_error(error: Exception) -> ApiError:
    """Error response for any error. The details of an unexpected one go to the log, not to the client."""
    if isinstance(error, ApiError):
        return error
    LOGGER.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed to answer; its log says why")


def add_handlers(app: FastAPI) -> None:
    """Turn every error of a request into a response in OpenAI's format."""

    # The handlers are async because Starlette runs others in threads, up to 40 of them.
    async def handle(_: Request, error: Exception) -> Response:
        error = as_api_error(error)
        return JSONResponse(error.body, error.status, error.headers)

    async def handle_http(request: Request, error: HTTPException) -> Response:
        # The router raises it for an unknown path or method.
        message = f"{error.detail}: {request.method} {request.url.path}"
        return await handle(request, ApiError(error.status_code, message, headers=error.headers))

    async def handle_gone(_: Request, __: ClientGone) -> Response:
        return Response(status_code=499)  # The metrics count it; nginx uses this status for a client that left.

    app.add_exception_handler(ApiError, handle)
    app.add_exception_handler(HTTPException, handle_http)
    app.add_exception_handler(ClientGone, handle_gone)
    app.add_exception_handler(Exception, handle)
