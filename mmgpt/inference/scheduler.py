"""Continuous batching: one thread runs the model, and requests join its decoding batch at any token."""

import atexit
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from peft import PeftModel
from torch import Tensor, nn

from mmgpt.models import flamingo_of
from mmgpt.models.adapters import use_adapter
from mmgpt.models.memory.compile import allow_compiling_in_threads, check_options
from mmgpt.models.memory.cpu_linear import unpack_linear_layers

from .answer import Busy
from .decoding_batch import DecodingBatch
from .prefill import Prefiller
from .request import GenerationRequest
from .static_batch import StaticDecodingBatch, check_static

IDLE = 10.0  # seconds without a request, after which the thread ends; the next request starts another one
TURN = 8  # decoding steps of one adapter while others wait; a switch costs as much as a step of a large model
COUNTS = ("requests", "cancelled", "failed", "completion_tokens")


class Scheduler:
    """Scheduler that answers the requests of any number of threads with one model. One `step` of its loop:

    1. Drop the requests that were cancelled while they waited.
    2. Admit waiting requests in their order, as far as the decoding batch has room: prefill, and the first token. Each
       beam of a request is a sequence of the batch.
    3. Decode one token of every sequence in the batch. Requests of each LoRA adapter, and those without one, have a
       batch of their own; the batches take turns of TURN steps.
    4. Settle the finished requests: they leave the batch, and their KV goes to the prefix cache. Of the beams that go
       on, each takes the row of the one that it continues.

    An error of one request, in prefill or sampling, ends that request; an error of a decoding step ends those in the
    batch.

    Args:
        model: a Flamingo, or a LoRAModel or peft's wrapper around one, in eval mode. Nothing else runs a model with
            adapters at the same time.
        max_batch: sequences in all batches together; a request of more beams is decoded without others.
        max_waiting: limit of the waiting queue.
        cache_bytes: limit of the prefix cache.
        static_cache: whether each adapter's sequences are in a StaticDecodingBatch, whose steps a GPU replays as CUDA
            graphs.
        compile: options of torch.compile for the steps of a static cache, True for its defaults; they are compiled for
            each new shape, which takes a minute or so for a large model.

    Raises:
        ValueError: the model cannot have a static cache, or `compile` is wrong or without one.
    """

    def __init__(
        self,
        model: nn.Module,
        max_batch: int = 16,
        max_waiting: int = 64,
        cache_bytes: int = 2**30,
        static_cache: bool = False,
        compile: Mapping | bool | None = None,
    ):
        self.model, flamingo = model, flamingo_of(model)
        self.language, self.tokenizer = flamingo.language, flamingo.tokenizer
        self.prefiller = Prefiller(flamingo, cache_bytes)
        self.max_batch, self.max_waiting = 1 if self.prefiller.state_in_modules else max_batch, max_waiting
        self.counts = dict.fromkeys(COUNTS, 0)
        self._waiting: deque[GenerationRequest] = deque()
        self._starting: list[GenerationRequest] = []  # in prefill
        self._running: list[GenerationRequest] = []  # their sequences are the rows of their adapter's batch, in order
        if static_cache:
            check_static(self.language)
            if compile:
                unpack_linear_layers(self.language)
                allow_compiling_in_threads()
        elif compile:
            raise ValueError(f"compile={compile!r} is for the steps of a static cache: set static_cache=True")
        check_options(compile)
        self.static_cache, self.compile = static_cache, compile
        # By adapter; the first one's turn it is. A static batch is used again after its sequences have ended.
        self._batches: dict[str | None, DecodingBatch | StaticDecodingBatch] = {}
        self._static: dict[str | None, StaticDecodingBatch] = {}
        self._turn = 0  # steps of the present turn
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
        adapter = None
        try:
            # 1. Drop the requests that were cancelled while they waited.
            with self._change:
                cancelled = [request for request in self._waiting if request.answer.cancelled]
                for request in cancelled:
                    self._waiting.remove(request)
            for request in cancelled:
                self._finish(request, "cancelled")

            # 2. Admit waiting requests.
            while self._waiting:
                group, sequences = [], sum(len(request.parents) for request in self._running)
                with self._change:
                    # No later request overtakes one that has no room.
                    for request in self._waiting:
                        sequences += len(request.parents)
                        no_room = sequences > self.max_batch and (group or self._running)
                        if no_room or (group and not group[0].goes_with(request)):
                            break
                        group.append(request)
                    self._starting = [self._waiting.popleft() for _ in group]
                if not group:
                    break
                adapter = group[0].adapter
                try:
                    self._use(adapter)
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
                rows = [row for row, reason in enumerate(reasons) if reason is None for _ in group[row].parents]
                if rows:
                    batch = self._batches.setdefault(adapter, self._batch(adapter))
                    batch.add([prefills[row].prefix for row in rows], [prefills[row].images for row in rows])
                    self._running += [request for request, reason in zip(group, reasons, strict=True) if reason is None]
                self._starting, prefills = [], []  # the KV of the prefills is not held beside that of the batch
                for request, reason in zip(group, reasons, strict=True):
                    if reason is not None:
                        self._finish(request, reason)

            if not self._batches:
                return
            if self._turn >= TURN:
                adapter = next(iter(self._batches))
                self._batches[adapter], self._turn = self._batches.pop(adapter), 0
            adapter, self._turn = next(iter(self._batches)), self._turn + 1
            self._use(adapter)
            self._decode(adapter)
        except Exception as error:
            # The error may have left the batch half changed, for instance by a lack of memory: it is not used any more.
            self._drop_batch(adapter)
            self._static.pop(adapter, None)
            requests = [*self._starting, *(request for request in self._running if request.adapter == adapter)]
            self._starting, self._running = [], [request for request in self._running if request.adapter != adapter]
            for request in requests:
                self._finish(request, error)

    def _decode(self, adapter: str | None) -> None:
        """The phases 3 and 4 of a step, for the batch of an adapter."""
        # 3. Decode one token of every sequence in the batch.
        batch, running = self._batches[adapter], [r for r in self._running if r.adapter == adapter]
        logits = batch.step([token for request in running for token in request.last_tokens])
        sizes = [len(request.parents) for request in running]
        reasons = list(map(self._sample, running, logits.split(sizes)))

        # 4. Settle the finished requests, and reorder the beams of the others.
        rows, start, ended = [], 0, {}
        for request, size, reason in zip(running, sizes, reasons, strict=True):
            if reason is None:
                rows += [start + parent for parent in request.parents]
            else:
                ended[request] = reason
                # The rows of beams are not those of the answer, and a recurrent state is not cached.
                if request.search is None and self.prefiller.attention_only:
                    self.prefiller.store(request, batch.prefix(start))
            start += size
        if ended:
            batch.select(rows)
            if not rows:
                self._drop_batch(adapter)
            self._running = [request for request in self._running if request not in ended]
            for request, reason in ended.items():
                self._finish(request, reason)
        elif rows != list(range(start)):
            # The last tokens of the beams are not in the cache yet.
            batch.reorder(rows, max(request.search.length - 1 for request in running if request.search))

    def _batch(self, adapter: str | None) -> DecodingBatch | StaticDecodingBatch:
        """An empty batch for the sequences of an adapter, or its static batch."""
        if not self.static_cache:
            return DecodingBatch(self.language)
        if adapter not in self._static:
            self._static[adapter] = StaticDecodingBatch(self.language, self.compile)
        return self._static[adapter]

    def _drop_batch(self, adapter: str | None) -> None:
        """Drop the batch of an adapter; the turn of another one begins at its first step."""
        if self._batches.pop(adapter, None) is not None:
            self._turn = 0

    def _use(self, adapter: str | None) -> None:
        if isinstance(self.model, PeftModel):
            use_adapter(self.model, adapter)

    def _sample(self, request: GenerationRequest, logits: Tensor) -> str | Exception | None:
        """The finish reason or the error of a request after choosing its next token, None while it goes on."""
        if request.answer.cancelled:
            return "cancelled"
        before = len(request.tokens)
        try:
            return request.step(logits, self.tokenizer)
        except Exception as error:
            return error
        finally:
            self.counts["completion_tokens"] += len(request.tokens) - before

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
