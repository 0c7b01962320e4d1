"""Request bodies, read as a whole, with limits on size and time, before the request takes any other resource.

The server and the web page share this reader. It counts the bytes that arrive, with `Content-Length` or in chunks; what
a sender declares can only make a refusal earlier.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_PENDING = 256  # bodies that arrive at once; each holds a connection
LINGER = 2  # seconds


class BodyRefused(Exception):
    """Refusal of a request body.

    Args:
        status: HTTP status: 408, 413, 429 or 503.
        message: a sentence for the sender.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(eq=False)
class PendingBody:
    """A body that is still arriving: its reader's timeout, its bytes so far, and why it was refused, if it was."""

    timeout: asyncio.Timeout
    size: int = 0
    refusal: BodyRefused | None = None

    def refuse(self, refusal: BodyRefused) -> None:
        """End the reader, which waits for more bytes."""
        self.refusal = refusal
        if not self.timeout.expired():
            self.timeout.reschedule(0)


class BodyReader:
    """Reader of request bodies, many at once.

    There is always room for one more body: where the pending bodies exceed their number or bytes, the oldest of them is
    refused. So nobody can keep others out by sending slowly, or nothing at all.

    Args:
        max_bytes: of one body.
        seconds: in which a body has to arrive.
        max_pending_bytes: of all pending bodies together, at least `max_bytes`.
        max_pending: number of pending bodies.
    """

    def __init__(self, max_bytes: int, seconds: float, max_pending_bytes: int, max_pending: int = MAX_PENDING):
        self.max_bytes, self.seconds = max_bytes, seconds
        self.max_pending_bytes, self.max_pending = max_pending_bytes, max_pending
        self.closed = False
        self._pending: dict[PendingBody, None] = {}  # the oldest first

    async def read(self, scope: Scope, receive: Receive, write: Callable[[bytes], object]) -> None:
        """Read the body of an ASGI request, and write every chunk as it arrives.

        Raises:
            BodyRefused: 413: more than `max_bytes` bytes; 408: incomplete after `seconds`; 429: refused in favor of
                newer ones; 503: the reader is closed.
            ClientDisconnect: the client left before the end of its body.
        """
        too_large = BodyRefused(413, f"the request has more than {self.max_bytes} bytes")
        if self.closed:
            raise _shutting_down()
        if _declared_length(scope) > self.max_bytes:
            raise too_large
        if len(self._pending) >= self.max_pending:
            self._refuse_oldest()
        body, more = None, True
        try:
            async with asyncio.timeout(self.seconds) as timeout:
                body = PendingBody(timeout)
                self._pending[body] = None
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    body.size += len(chunk)
                    if body.size > self.max_bytes:
                        raise too_large
                    while sum(pending.size for pending in self._pending) > self.max_pending_bytes:
                        self._refuse_oldest()
                    if body.refusal:
                        raise body.refusal
                    write(chunk)
        except TimeoutError as error:
            timed_out = BodyRefused(408, f"the request did not arrive within {self.seconds:g} seconds")
            raise body.refusal or timed_out from error
        finally:
            self._pending.pop(body, None)

    def close(self) -> None:
        """Refuse all bodies from now on, pending ones too."""
        self.closed = True
        for body in self._pending:
            body.refuse(_shutting_down())

    def _refuse_oldest(self) -> None:
        oldest = next(iter(self._pending))
        del self._pending[oldest]
        oldest.refuse(BodyRefused(429, "too many requests are arriving at once: try again in a moment"))


class CloseUnread:
    """ASGI middleware that closes the connection after a response that did not wait for the body of its request.

    Otherwise the rest of the body would hold the connection for as long as its sender likes. The middleware drops what
    arrives for LINGER seconds first: closing while bytes come in resets a connection, and clients may lose the
    response.

    Args:
        app: the wrapped application.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and close the connection where that is needed."""
        has_body = scope["type"] == "http" and (
            b"transfer-encoding" in dict(scope["headers"]) or _declared_length(scope) > 0
        )
        if not has_body:
            return await self.app(scope, receive, send)
        arrived, closing = False, False

        async def receive_and_record_the_end() -> Message:
            nonlocal arrived
            message = await receive()
            arrived = not message.get("more_body", False)
            return message

        async def send_and_close(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start" and not arrived:
                closing = True
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            elif closing and not message.get("more_body", False):
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER):
                        while not arrived:
                            await receive_and_record_the_end()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self.app(scope, receive_and_record_the_end, send_and_close)


def _declared_length(scope: Scope) -> int:
    """The Content-Length of a request, 0 without one; servers let only digits through."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


def _shutting_down() -> BodyRefused:
    return BodyRefused(503, "the server is shutting down")
