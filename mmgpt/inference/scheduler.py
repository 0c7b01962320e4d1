"""The one thread that runs a model for all who ask it; what waits joins the texts that grow at any token."""

import atexit
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice, takewhile

import torch
from torch import Tensor, nn

from mmgpt.inference.decoding_batch import Growing
from mmgpt.models import flamingo_of

from .answer import Busy
from .beam_search import go_together, search
from .prefill import Read, Reader
from .request import Request

IDLE = 10.0  # seconds without a question, after which the thread ends; the next question starts another
COUNTS = ("requests", "cancelled", "failed", "completion_tokens")


class Engine:
    """Answers the requests of any number of threads with one model.

    Requests without beams share each step of the model (continuous batching), and start from what is kept of the
    beginning of their prompt. Requests with beams are answered by themselves, those of equal settings together; where
    the model's memory of a text is more than keys and values (state space and linear attention), each one alone.

    Args:
        model: a Flamingo, or a LoRAModel around one, in eval mode.
        max_batch: texts that grow at once.
        max_waiting: requests that wait beside them at most.
        cache_bytes: for keys and values that are kept for later questions.
    """

    def __init__(self, model: nn.Module, max_batch: int = 16, max_waiting: int = 64, cache_bytes: int = 2**30):
        flamingo = flamingo_of(model)
        self.language, self.tokenizer = flamingo.language, flamingo.tokenizer
        self.max_batch, self.max_waiting = max_batch, max_waiting
        self.reader = Reader(flamingo, cache_bytes)
        self.counts = dict.fromkeys(COUNTS, 0)
        self._waiting: deque[Request] = deque()
        self._begun: list[Request] = []  # being read, or answered by themselves
        self._running: list[Request] = []  # one for each row of `_growing`
        self._growing = Growing(self.language)
        self._change = threading.Condition()  # its lock is one that a thread can take again
        self._model = threading.Lock()
        self._thread: threading.Thread | None = None
        self._idle = IDLE

    def submit(self, request: Request) -> None:
        """Let a request wait for the model. Raises Busy when `max_waiting` do."""
        with self._change:
            if len(self._waiting) >= self.max_waiting:
                raise Busy(f"{self.max_waiting} questions wait already")
            self._waiting.append(request)
            self.counts["requests"] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
                self._thread.start()
                # Python kills a daemon thread at its exit, wherever it is; torch aborts the process for that.
                atexit.register(self._leave)
            self._change.notify_all()

    def stats(self) -> dict[str, int]:
        """Numbers of requests and tokens since the start, and of what runs, waits and is kept now."""
        now = {
            "running": len(self._running) + len(self._begun),
            "waiting": len(self._waiting),
            "prompt_tokens": self.reader.prompt_tokens,
            "cached_tokens": self.reader.cached_tokens,
            "cache_bytes": self.reader.kept.nbytes,
        }
        return {**self.counts, **now}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it the model is the caller's alone; the texts that grow wait."""
        with self._model:
            yield

    def close(self) -> None:
        """Cancel all requests, and wait until they have ended."""
        while requests := self._requests():
            for request in requests:
                request.answer.cancel()
            for request in requests:
                request.answer.wait()

    def _leave(self) -> None:
        """End the thread, after `close`."""
        self.close()
        thread = self._thread
        with self._change:
            self._idle = 0.0
            self._change.notify_all()
        if thread is not None:
            thread.join()

    def _requests(self) -> list[Request]:
        with self._change:
            return [*self._waiting, *self._begun, *self._running]

    def _work(self) -> None:
        # The inference mode of the thread that asks does not reach this one.
        with torch.inference_mode():
            while self._has_work():
                with self._model:
                    try:
                        self._admit()
                        self._grow()
                    except Exception as error:
                        # Memory ran out between two steps, say: the texts may not be what they seem any more.
                        self._give_up(error)

    def _has_work(self) -> bool:
        """Waits for a request; False when none came for a while, and the thread is to end."""
        with self._change:
            if not self._requests() and self._idle:
                self._change.wait(self._idle)
            if not self._requests():
                self._thread = None
                atexit.unregister(self._leave)
            return self._thread is not None

    def _admit(self) -> None:
        """Start what waits, as far as there is room."""
        self._forget_cancelled()
        while self._waiting and len(self._running) < self.max_batch:
            alone = self._waiting[0].beams > 1 or not self.reader.keeps
            if alone and self._running:
                return  # it is its turn: nobody passes it
            with self._change:
                self._begun = [self._waiting.popleft() for _ in range(self._together() if alone else 1)]
            begin = self._search if alone else self._start
            try:
                read = begin(*self._begun)
            except Exception as error:
                for request in self._begun:
                    self._fail(request, error)
                read = None
            if read is not None:
                self._growing.add(read.known, read.images)
                self._running += self._begun
            self._begun = []

    def _forget_cancelled(self) -> None:
        """Ends the requests that nobody waits for any more, before they began."""
        with self._change:
            gone = [request for request in self._waiting if request.answer.cancelled]
            for request in gone:
                self._waiting.remove(request)
        for request in gone:
            self._end(request, "cancelled")

    def _together(self) -> int:
        """How many of those that wait are answered in one call."""
        first = self._waiting[0]
        most = max(1, self.max_batch // first.beams) if self.reader.keeps else 1
        return 1 + sum(1 for _ in takewhile(partial(go_together, first), islice(self._waiting, 1, most)))

    def _search(self, *requests: Request) -> None:
        """Answer requests by themselves."""
        for request, reason in zip(requests, search(self.reader, requests), strict=True):
            self.counts["completion_tokens"] += len(request.tokens)
            self._end(request, reason)

    def _start(self, request: Request) -> Read | None:
        """Read a prompt and choose the first token; what was read where the text is not over, and is to grow."""
        read = self.reader.read(request, request.ids)
        reason = self._choose(request, read.logits)
        if reason is None:
            return read
        return self._end(request, reason)

    def _grow(self) -> None:
        """One more token for each text that grows; those that are over leave."""
        self._settle(["cancelled" if request.answer.cancelled else None for request in self._running])
        if not self._running:
            return
        logits = self._growing.step([request.tokens[-1] for request in self._running])
        self._settle([self._try(request, row[None]) for request, row in zip(self._running, logits, strict=True)])

    def _try(self, request: Request, logits: Tensor) -> str | Exception | None:
        """As `_choose`, or what it raised, which concerns this request alone."""
        try:
            return self._choose(request, logits)
        except Exception as error:
            return error

    def _choose(self, request: Request, logits: Tensor) -> str | None:
        """The next token of a text; the reason to end when it is the last."""
        self.counts["completion_tokens"] += 1
        return request.take(request.sampler(request.whole, logits), self.tokenizer)

    def _settle(self, reasons: list[str | Exception | None]) -> None:
        """Ends the texts that have a reason to; what is known of them is kept for the next question."""
        if not any(reasons):
            return
        ended = [(request, reason) for request, reason in zip(self._running, reasons, strict=True) if reason]
        for row, request in enumerate(self._running):
            if reasons[row]:
                self.reader.keep(request, request.whole, self._growing.known(row))
        stay = [row for row, reason in enumerate(reasons) if not reason]
        self._growing.keep(stay)
        self._running = [self._running[row] for row in stay]
        for request, reason in ended:
            if isinstance(reason, Exception):
                self._fail(request, reason)
            else:
                self._end(request, reason)

    def _give_up(self, error: Exception) -> None:
        """Fails all that has begun."""
        requests, self._begun, self._running = [*self._begun, *self._running], [], []
        self._growing = Growing(self.language)
        for request in requests:
            self._fail(request, error)

    def _end(self, request: Request, reason: str) -> None:
        self.counts["cancelled"] += reason == "cancelled"
        request.end(reason)

    def _fail(self, request: Request, error: Exception) -> None:
        self.counts["failed"] += 1
        request.answer.fail(error)
