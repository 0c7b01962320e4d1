"""A running answer: its text as it comes, a way to stop it, and at its end what it took."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

logger = logging.getLogger(__name__)


class Busy(RuntimeError):
    """As many questions wait already as the engine lets wait; it can be asked again later."""


class Token(NamedTuple):
    """A generated token: its id, its text, its log-probability, and the likeliest tokens there, best first.

    The log-probabilities are the model's own, before temperature and any other processing. `top` holds (id, text,
    log-probability).
    """

    id: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


class Piece(NamedTuple):
    """Some text of an answer, and the tokens that made it where log-probabilities were asked for."""

    text: str
    tokens: tuple[Token, ...] = ()


class Answer:
    """An answer as it grows. Iterating over it yields its `Piece`s, each once, and raises what the model ran into.

    Attributes:
        prompt: the text of the prompt, special tokens by their names.
        finish_reason: 'stop' (ended by the model or a stop sequence), 'length' or 'cancelled'; None while it grows.
        prompt_tokens, cached_tokens, completion_tokens: how long the prompt is, how much of it was known from before,
            and the answer.
        seconds_to_first, seconds: from the question to the first token, and to the end.

    Args:
        prompt: see above.
        listener: called with each `Piece`, with the exception that ended the answer, or with None at its end, from the
            engine's thread, instead of keeping them for an iteration. It must return quickly.
    """

    def __init__(self, prompt: str, listener: Callable[[Piece | Exception | None], None] | None = None):
        self.prompt, self.finish_reason = prompt, None
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.seconds_to_first = self.seconds = 0.0
        self._started = time.perf_counter()
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self._tell, self._keeps = listener or self._events.put, listener is None
        self._stopped, self._over = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[Piece]:
        if not self._keeps:
            raise ValueError("this answer tells a listener: there is nothing to iterate over")
        while isinstance(event := self._events.get(), Piece):
            yield event
        self._events.put(event)  # whoever asks again is told of the end, too
        if event is not None:
            raise event

    def text(self) -> str:
        """Waits for the end; the whole text, where none of it was taken before."""
        return "".join(piece.text for piece in self)

    def wait(self) -> bool:
        """Waits for the end, without taking any text; whether the model came to one."""
        self._over.wait()
        return self.finish_reason is not None

    def cancel(self) -> None:
        """Stop the model; the answer then ends as 'cancelled', unless it is over already."""
        self._stopped.set()

    @property
    def cancelled(self) -> bool:
        """Whether it was told to stop."""
        return self._stopped.is_set()

    def count(self) -> None:
        """The engine has another token."""
        self.completion_tokens += 1
        if self.completion_tokens == 1:
            self.seconds_to_first = time.perf_counter() - self._started

    def put(self, piece: Piece) -> None:
        """The engine has more text."""
        self._say(piece)

    def end(self, reason: str) -> None:
        """The engine is done with it, for a `finish_reason`."""
        self.finish_reason, self.seconds = reason, time.perf_counter() - self._started
        self._say(None)
        self._over.set()

    def fail(self, error: Exception) -> None:
        """The engine could not go on."""
        self.seconds = time.perf_counter() - self._started
        self._say(error)
        self._over.set()

    def _say(self, event: Piece | Exception | None) -> None:
        try:
            self._tell(event)
        except Exception:
            # It must not end the thread that answers others, too.
            logger.exception("the listener of an answer failed; the answer is cancelled")
            self.cancel()
