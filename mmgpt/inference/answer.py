"""The streaming answer to a request: its text in pieces, its finish reason, and its figures."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

logger = logging.getLogger(__name__)


class Busy(RuntimeError):
    """The scheduler's waiting queue is full; the request can be submitted again later."""


class Token(NamedTuple):
    """A generated token: its id, text and log-probability, and the most likely tokens at its position, best first.

    The log-probabilities are the model's own, before temperature and any other processing. `top` holds (id, text,
    log-probability).
    """

    id: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


class Piece(NamedTuple):
    """A piece of an answer's text, with its tokens where log-probabilities were requested."""

    text: str
    tokens: tuple[Token, ...] = ()


class Answer:
    """A streaming answer. Iterating over it yields each `Piece` once, and raises the error that ended generation.

    Attributes:
        prompt: text of the prompt, special tokens by their names.
        finish_reason: 'stop' (the model or a stop sequence ended the answer), 'length' or 'cancelled'; None before
            the end.
        prompt_tokens, cached_tokens, completion_tokens: lengths of the prompt, of its cached prefix, and of the answer.
        seconds_to_first, seconds: from the request to the first token, and to the end.

    Args:
        prompt: as in the attributes.
        listener: called from the scheduler's thread with each `Piece`, then with the exception that ended the answer,
            or with None at a regular end. An answer with a listener cannot be iterated over. It must return quickly.
    """

    def __init__(self, prompt: str = "", listener: Callable[[Piece | Exception | None], None] | None = None):
        self.prompt, self.finish_reason = prompt, None
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.seconds_to_first = self.seconds = 0.0
        self._start = time.perf_counter()
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self._listener, self._iterable = listener or self._events.put, listener is None
        self._cancelled, self._ended = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[Piece]:
        if not self._iterable:
            raise ValueError("this answer has a listener, which gets its pieces: there is nothing to iterate over")
        while isinstance(event := self._events.get(), Piece):
            yield event
        self._events.put(event)  # for the next iteration, which ends likewise
        if event is not None:
            raise event

    def text(self) -> str:
        """The text of all pieces that were not iterated over before; waits for the end of the answer."""
        return "".join(piece.text for piece in self)

    def wait(self) -> bool:
        """Whether the answer has a finish reason and no error; waits for its end, without taking any piece."""
        self._ended.wait()
        return self.finish_reason is not None

    def cancel(self) -> None:
        """Stops generation; the answer then ends as 'cancelled', unless it has ended already."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    def count(self) -> None:
        """Counts a generated token."""
        self.completion_tokens += 1
        if self.completion_tokens == 1:
            self.seconds_to_first = time.perf_counter() - self._start

    def put(self, piece: Piece) -> None:
        """Emits a piece."""
        self._emit(piece)

    def end(self, reason: str) -> None:
        """Ends the answer with a `finish_reason`."""
        self.finish_reason, self.seconds = reason, time.perf_counter() - self._start
        self._emit(None)
        self._ended.set()

    def fail(self, error: Exception) -> None:
        """Ends the answer with an error."""
        self.seconds = time.perf_counter() - self._start
        self._emit(error)
        self._ended.set()

    def _emit(self, event: Piece | Exception | None) -> None:
        try:
            self._listener(event)
        except Exception:
            # An error of one listener must not end the scheduler's thread, which answers other requests too.
            logger.exception("the listener of an answer failed; the answer is cancelled")
            self.cancel()
