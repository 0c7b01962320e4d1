"""Admission control of the server: a limited number of requests at once, each for a limited time."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

from mmgpt.inference.answer import Answer, Piece
from mmgpt.server.errors import ApiError, shutting_down, too_many_requests


class ActiveRequest:
    """An admitted request. Iterating over it yields the pieces of its answer, and raises the error that ends it early.

    Attributes:
        answer: the running answer; None before the question was submitted.
        outcome: how the answer ended: 'stop', 'length', 'error', or 'cancelled' as long as it has not ended.
    """

    def __init__(self):
        self.answer: Answer | None = None
        self.outcome = "cancelled"
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue = asyncio.Queue()

    def attach(self, answer: Answer) -> None:
        """Attach the answer, from any thread; the answer is cancelled once the request is closed."""
        self.answer = answer
        if self._closed:
            answer.cancel()

    def close(self) -> None:
        """Cancel the answer: nobody reads it any more."""
        self._closed = True
        if self.answer:
            self.answer.cancel()

    def put(self, event: Piece | Exception | None) -> None:
        """Add a piece of the answer, an error, or None at the end, from any thread."""
        with suppress(RuntimeError):  # asyncio raises it when the loop is closed: then nobody reads the event.
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while (event := await self._events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event


class Admission:
    """Admission control: the requests whose bodies have arrived and whose responses have not ended.

    Args:
        max_active: number of requests at once.
        time_limit: seconds for each request.
        shutdown_limit: seconds for the active requests when the server shuts down.
    """

    def __init__(self, max_active: int, time_limit: float, shutdown_limit: float):
        self.max_active, self.time_limit, self.shutdown_limit = max_active, time_limit, shutdown_limit
        self.active: set[ActiveRequest] = set()
        self.closing = False

    @contextmanager
    def admit(self) -> Iterator[ActiveRequest]:
        """Context manager that admits one request, ends it after the time limit, and cancels its answer at the exit.

        Raises:
            ApiError: 429 when `max_active` requests are active, 503 when the server shuts down.
        """
        if self.closing:
            raise shutting_down()
        if len(self.active) >= self.max_active:
            raise too_many_requests()
        request = ActiveRequest()
        timed_out = ApiError(504, f"the answer took longer than {self.time_limit:g} seconds")
        timer = asyncio.get_running_loop().call_later(self.time_limit, request.put, timed_out)
        self.active.add(request)
        try:
            yield request
        finally:
            self.active.discard(request)
            timer.cancel()
            request.close()

    def close(self) -> None:
        """Admit no more requests, and end the active ones after `shutdown_limit` seconds."""

        def end_active_requests() -> None:
            for request in self.active:
                request.put(shutting_down())

        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_later(self.shutdown_limit, end_active_requests)
