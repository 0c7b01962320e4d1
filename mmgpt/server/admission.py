"""Who is let in: so many requests at once, each for a limited time, none while the server shuts down."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

from mmgpt.apis.answer import Piece
from mmgpt.server.errors import ApiError, full, shutting_down


class Inbox:
    """What happens to one request, in order: pieces of its answer from the engine's thread, and what ends it."""

    def __init__(self):
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue = asyncio.Queue()

    def put(self, event: Piece | Exception | None) -> None:
        """Add an event, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while (event := await self._events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event


class Admission:
    """The requests inside.

    Args:
        places: how many there can be.
        time_limit: seconds for each.
        shutdown_limit: seconds for those that are inside when the server shuts down.
    """

    def __init__(self, places: int, time_limit: float, shutdown_limit: float):
        self.places, self.time_limit, self.shutdown_limit = places, time_limit, shutdown_limit
        self.inside: set[Inbox] = set()
        self.closing = False

    @contextmanager
    def enter(self) -> Iterator[Inbox]:
        """A place for one request; it is told through its inbox when its time is over.

        Raises:
            ApiError: 429 when all places are taken, 503 when the server shuts down.
        """
        if self.closing:
            raise shutting_down()
        if len(self.inside) >= self.places:
            raise full()
        inbox = Inbox()
        late = ApiError(504, f"the answer took longer than {self.time_limit:g} seconds")
        timer = asyncio.get_running_loop().call_later(self.time_limit, inbox.put, late)
        self.inside.add(inbox)
        try:
            yield inbox
        finally:
            self.inside.discard(inbox)
            timer.cancel()

    def close(self) -> None:
        """Let nobody in any more, and end what is inside after the time that is left."""
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_later(self.shutdown_limit, self._turn_out)

    def _turn_out(self) -> None:
        for inbox in self.inside:
            inbox.put(shutting_down())
