"""The body of a request: JSON of limited size, sent in limited time."""

import asyncio

from fastapi import Request
from starlette.requests import ClientDisconnect

from mmgpt.server.errors import ApiError, ClientGone

SECONDS = 30


async def read_body(request: Request, limit: int) -> bytes:
    """The bytes that a client sends, at most `limit`.

    Raises:
        ApiError: 415: it is not declared as JSON. A page in a browser can send such a body to any address without
            asking that address (a "simple request"); JSON it cannot. 413: more bytes. 408: not here in SECONDS.
        ClientGone: the client left before its end.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"the request must have the header Content-Type: application/json, got {kind!r}")
    too_large = ApiError(413, f"the request has more than {limit} bytes")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError as error:
        raise ApiError(408, f"the request did not arrive within {SECONDS} seconds") from error
    except ClientDisconnect as error:
        raise ClientGone from error
    return bytes(body)
