"""Who is let in: so many requests at once, each for a limited time, none while the server shuts down."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

from mmgpt.inference.answer import Answer, Piece
from mmgpt.server.errors import ApiError, full, shutting_down


class Visit:
    """One request inside. Iterating over it yields the pieces of its answer, and raises what ends it early.

    Attributes:
        answer: what the engine gives, once it was asked.
        end: how the answer ended: 'stop', 'length', 'error', or 'cancelled' as long as nothing else is known.
    """

    def __init__(self):
        self.answer: Answer | None = None
        self.end = "cancelled"
        self._left = False
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue = asyncio.Queue()

    def take(self, answer: Answer) -> None:
        """Take the answer, from any thread; it stops when the visit is over, or is over already."""
        self.answer = answer
        if self._left:
            answer.cancel()

    def leave(self) -> None:
        """The visit is over: nobody reads its answer any more."""
        self._left = True
        if self.answer:
            self.answer.cancel()

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
    """The requests inside: those whose bodies have arrived, until their responses are over.

    Args:
        places: how many there can be.
        time_limit: seconds for each.
        shutdown_limit: seconds for those that are inside when the server shuts down.
    """

    def __init__(self, places: int, time_limit: float, shutdown_limit: float):
        self.places, self.time_limit, self.shutdown_limit = places, time_limit, shutdown_limit
        self.inside: set[Visit] = set()
        self.closing = False

    @contextmanager
    def enter(self) -> Iterator[Visit]:
        """A place for one request; it is told when its time is over, and its answer stops when it leaves.

        Raises:
            ApiError: 429 when all places are taken, 503 when the server shuts down.
        """
        if self.closing:
            raise shutting_down()
        if len(self.inside) >= self.places:
            raise full()
        visit = Visit()
        late = ApiError(504, f"the answer took longer than {self.time_limit:g} seconds")
        timer = asyncio.get_running_loop().call_later(self.time_limit, visit.put, late)
        self.inside.add(visit)
        try:
            yield visit
        finally:
            self.inside.discard(visit)
            timer.cancel()
            visit.leave()

    def close(self) -> None:
        """Let nobody in any more, and end what is inside after the time that is left."""
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_later(self.shutdown_limit, self._turn_out)

    def _turn_out(self) -> None:
        for visit in self.inside:
            visit.put(shutting_down())
