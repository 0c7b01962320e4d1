"""Continuous batching: one thread runs the model, and requests join its decoding batch at any token."""

import atexit
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice, takewhile

import torch
from torch import Tensor, nn

from mmgpt.models import flamingo_of

from .answer import Busy
from .beam_search import beam_search, same_settings
from .decoding_batch import DecodingBatch
from .prefill import Prefiller, same_prefill
from .request import GenerationRequest

IDLE = 10.0  # seconds without a request, after which the thread ends; the next request starts another one
COUNTS = ("requests", "cancelled", "failed", "completion_tokens")


class Scheduler:
    """Scheduler that answers the requests of any number of threads with one model. One `step` of its loop:

    1. Drop the requests that were cancelled while they waited.
    2. Admit waiting requests in their order, as far as the decoding batch has room: prefill, and the first token.
       Requests with beams are answered by `beam_search`, those of equal settings together, once the decoding batch is
       empty; so are all requests to a model with a recurrent state, each one alone.
    3. Decode one token of every sequence in the batch.
    4. Settle the finished requests: they leave the batch, and their KV goes to the prefix cache.

    An error of one request, in prefill or sampling, ends that request; an error of a decoding step ends those in the
    batch.

    Args:
        model: a Flamingo, or a LoRAModel around one, in eval mode.
        max_batch: sequences that are decoded at once.
        max_waiting: limit of the waiting queue.
        cache_bytes: limit of the prefix cache.
        pad_recurrent: whether models with a recurrent state answer requests of equal settings together, too, their
            prompts padded on the left.
    """

    def __init__(
        self,
        model: nn.Module,
        max_batch: int = 16,
        max_waiting: int = 64,
        cache_bytes: int = 2**30,
        pad_recurrent: bool = False,
    ):
        flamingo = flamingo_of(model)
        self.language, self.tokenizer = flamingo.language, flamingo.tokenizer
        self.max_batch, self.max_waiting, self.pad_recurrent = max_batch, max_waiting, pad_recurrent
        self.prefiller = Prefiller(flamingo, cache_bytes)
        self.counts = dict.fromkeys(COUNTS, 0)
        self._waiting: deque[GenerationRequest] = deque()
        self._starting: list[GenerationRequest] = []  # in prefill or beam search
        self._running: list[GenerationRequest] = []  # one for each row of `_batch`
        self._batch = DecodingBatch(self.language)
        self._change = threading.Condition()  # its lock is reentrant
        self._model = threading.Lock()
        self._thread: threading.Thread | None = None
        self._idle = IDLE

    def submit(self, *requests: GenerationRequest, bounded: bool = True) -> None:
        """Queues requests. Raises Busy when the queue is full, unless it is not to be `bounded`."""
        with self._change:
            if bounded and len(self._waiting) + len(requests) > self.max_waiting:
                raise Busy(f"{self.max_waiting} questions wait already")
            self._waiting.extend(requests)
            self.counts["requests"] += len(requests)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="scheduler", daemon=True)
                self._thread.start()
                # Python kills a daemon thread at its exit, wherever it is; torch aborts the process for that.
                atexit.register(self._end_thread)
            self._change.notify_all()

    @torch.no_grad()
    def run(self, requests: Sequence[GenerationRequest]) -> None:
        """Answers requests in the calling thread; the scheduler has no other requests and no thread."""
        self._waiting.extend(requests)
        self.counts["requests"] += len(requests)
        while self._requests():
            self.step()

    def stats(self) -> dict[str, int]:
        """Numbers of requests and tokens so far, of running and waiting requests, and bytes of the prefix cache."""
        now = {
            "running": len(self._running) + len(self._starting),
            "waiting": len(self._waiting),
            "prompt_tokens": self.prefiller.prompt_tokens,
            "cached_tokens": self.prefiller.cached_tokens,
            "cache_bytes": self.prefiller.cache.nbytes,
        }
        return {**self.counts, **now}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Context manager in which the scheduler's thread does not run the model."""
        with self._model:
            yield

    def close(self) -> None:
        """Cancels all requests, and waits until they have ended."""
        while requests := self._requests():
            for request in requests:
                request.answer.cancel()
            for request in requests:
                request.answer.wait()

    def step(self) -> None:
        """One step of the loop, see the class."""
        try:
            # 1. Drop the requests that were cancelled while they waited.
            with self._change:
                cancelled = [request for request in self._waiting if request.answer.cancelled]
                for request in cancelled:
                    self._waiting.remove(request)
            for request in cancelled:
                self._finish(request, "cancelled")

            # 2. Admit waiting requests.
            while self._waiting and len(self._running) < self.max_batch:
                first, attention_only = self._waiting[0], self.prefiller.attention_only
                apart = first.beams > 1 or not attention_only
                if apart and self._running:
                    break  # No later request overtakes this one.
                if not apart:
                    size, fits = self.max_batch - len(self._running), partial(same_prefill, first)
                else:
                    together = attention_only or self.pad_recurrent
                    size, fits = self.max_batch // first.beams if together else 1, partial(same_settings, first)
                with self._change:
                    group = [first, *takewhile(fits, islice(self._waiting, 1, max(1, size)))]
                    self._starting = [self._waiting.popleft() for _ in group]
                try:
                    if apart:
                        reasons = beam_search(self.prefiller, group)
                        self.counts["completion_tokens"] += sum(len(request.tokens) for request in group)
                    else:
                        prefills = self.prefiller(group)
                        reasons = list(map(self._sample, group, (prefill.logits for prefill in prefills)))
                except Exception as error:
                    reasons = [error] * len(group)
                    if len(group) > 1 and not any(request.tokens for request in group):
                        # One of the requests may have caused the error: each is tried again without the others.
                        for request in group:
                            request.alone = True
                        with self._change:
                            self._waiting.extendleft(reversed(group))
                            self._starting = []
                        continue
                rows = [row for row, reason in enumerate(reasons) if reason is None]
                if rows:
                    self._batch.add([prefills[row].prefix for row in rows], [prefills[row].images for row in rows])
                    self._running += [group[row] for row in rows]
                self._starting, prefills = [], []  # the KV of the prefills is not held beside that of the batch
                for request, reason in zip(group, reasons, strict=True):
                    if reason is not None:
                        self._finish(request, reason)

            # 3. Decode one token of every sequence in the batch.
            if not self._running:
                return
            logits = self._batch.step([request.tokens[-1] for request in self._running])
            reasons = list(map(self._sample, self._running, logits[:, None]))

            # 4. Settle the finished requests.
            if not any(reasons):
                return
            ended = [(row, reason) for row, reason in enumerate(reasons) if reason]
            for row, _ in ended:
                self.prefiller.store(self._running[row], self._batch.prefix(row))
            rows, requests = [row for row, reason in enumerate(reasons) if not reason], self._running
            self._batch.select(rows)
            self._running = [requests[row] for row in rows]
            for row, reason in ended:
                self._finish(requests[row], reason)
        except Exception as error:
            # The error may have left the batch half changed, for instance by a lack of memory: it is not used any more.
            requests, self._starting, self._running = [*self._starting, *self._running], [], []
            self._batch = DecodingBatch(self.language)
            for request in requests:
                self._finish(request, error)

    def _sample(self, request: GenerationRequest, logits: Tensor) -> str | Exception | None:
        """The finish reason or the error of a request after sampling its next token, None while it goes on."""
        if request.answer.cancelled:
            return "cancelled"
        self.counts["completion_tokens"] += 1
        try:
            return request.add(request.sampler(request.sequence, logits), self.tokenizer)
        except Exception as error:
            return error

    def _finish(self, request: GenerationRequest, reason: str | Exception) -> None:
        if isinstance(reason, Exception):
            self.counts["failed"] += 1
            request.answer.fail(reason)
        else:
            self.counts["cancelled"] += reason == "cancelled"
            request.end(reason)

    def _requests(self) -> list[GenerationRequest]:
        with self._change:
            return [*self._waiting, *self._starting, *self._running]

    def _loop(self) -> None:
        # The inference mode of the thread that submits does not reach this one.
        with torch.inference_mode():
            while True:
                with self._change:
                    if not self._requests() and self._idle:
                        self._change.wait(self._idle)
                    if not self._requests():
                        self._thread = None
                        atexit.unregister(self._end_thread)
                        return
                with self._model:
                    self.step()

    def _end_thread(self) -> None:
        """Ends the thread, after `close`."""
        self.close()
        thread = self._thread
        with self._change:
            self._idle = 0.0
            self._change.notify_all()
        if thread is not None:
            thread.join()
