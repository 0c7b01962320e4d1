"""Bodies of requests: each arrives whole, of limited size and in limited time, before anything else is done for it.

The server and the web page read with the same reader. A sender's claims are believed only where they make a refusal
earlier: what counts is the bytes that arrive, by `Content-Length` or in chunks.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODIES = 256  # unfinished bodies at once; each holds a connection
LINGER = 2  # seconds


class BodyRefused(Exception):
    """A body that is not accepted.

    Args:
        status: HTTP status: 408, 413, 429 or 503.
        message: a sentence for the sender.
    """

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(eq=False)
class Arrival:
    """An unfinished body: the timeout of its reader, its bytes so far, and why it was given up, if it was."""

    timeout: asyncio.Timeout
    size: int = 0
    refusal: BodyRefused | None = None

    def give_up(self, refusal: BodyRefused) -> None:
        """End its reading, which waits for more bytes."""
        self.refusal = refusal
        if not self.timeout.expired():
            self.timeout.reschedule(0)


class BodyReader:
    """Reader of bodies, many at once.

    There is always room for one more body: where the bytes or the number of unfinished ones go beyond what is allowed,
    the one that began first is given up. So nobody keeps others out by sending slowly, or not at all.

    Args:
        limit: bytes of a body.
        seconds: in which a body arrives.
        room: bytes of all unfinished bodies together, at least `limit`.
        most: number of unfinished bodies.
    """

    def __init__(self, limit: int, seconds: float, room: int, most: int = BODIES):
        self.limit, self.seconds, self.room, self.most = limit, seconds, room, most
        self.closed = False
        self._unfinished: dict[Arrival, None] = {}  # in the order in which they began

    async def read(self, scope: Scope, receive: Receive, write: Callable[[bytes], object]) -> None:
        """Read the body of an ASGI request, and hand on every piece as it arrives.

        Raises:
            BodyRefused: 413: more than `limit` bytes; 408: not complete after `seconds`; 429: given up for others; 503:
                the reader is closed.
            ClientDisconnect: the client left before the end of its body.
        """
        if self.closed:
            raise _shutting_down()
        if _declared_length(scope) > self.limit:
            raise self._too_large()
        if len(self._unfinished) >= self.most:
            self._give_up_first()
        arrival, more = None, True
        try:
            async with asyncio.timeout(self.seconds) as timeout:
                arrival = Arrival(timeout)
                self._unfinished[arrival] = None
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    self._count(arrival, len(message.get("body", b"")))
                    write(message.get("body", b""))
                    more = message.get("more_body", False)
        except TimeoutError as error:
            late = BodyRefused(408, f"the request did not arrive within {self.seconds:g} seconds")
            raise arrival.refusal or late from error
        finally:
            self._unfinished.pop(arrival, None)

    def close(self) -> None:
        """Refuse all bodies from now on, unfinished ones too."""
        self.closed = True
        for arrival in self._unfinished:
            arrival.give_up(_shutting_down())

    def _count(self, arrival: Arrival, size: int) -> None:
        arrival.size += size
        if arrival.size > self.limit:
            raise self._too_large()
        while sum(each.size for each in self._unfinished) > self.room:
            self._give_up_first()
        if arrival.refusal:
            raise arrival.refusal

    def _give_up_first(self) -> None:
        first = next(iter(self._unfinished))
        del self._unfinished[first]
        first.give_up(BodyRefused(429, "too many requests are arriving at once: try again in a moment"))

    def _too_large(self) -> BodyRefused:
        return BodyRefused(413, f"the request has more than {self.limit} bytes")


class CloseUnread:
    """ASGI middleware that closes the connection behind a response which did not wait for the body of its request.

    The rest of the body would keep the connection for as long as its sender likes. It is dropped as it arrives, for
    LINGER seconds: closing while bytes come in resets a connection, and clients may lose the response.

    Args:
        app: what it wraps.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and close where it is needed."""
        if scope["type"] != "http" or not _has_body(scope):
            return await self.app(scope, receive, send)
        arrived, closing = False, False

        async def receive_noting() -> Message:
            nonlocal arrived
            message = await receive()
            arrived = not message.get("more_body", False)
            return message

        async def send_closing(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start" and not arrived:
                closing = True
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            elif closing and not message.get("more_body", False):
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER):
                        while not arrived:
                            await receive_noting()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self.app(scope, receive_noting, send_closing)


def _declared_length(scope: Scope) -> int:
    """The Content-Length of a request, 0 where there is none; a server lets only digits through."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return int(length) if length.isdigit() else 0


def _has_body(scope: Scope) -> bool:
    return b"transfer-encoding" in dict(scope["headers"]) or _declared_length(scope) > 0


def _shutting_down() -> BodyRefused:
    return BodyRefused(503, "the server is shutting down")
