"""The one thread that runs a model for all who ask it; what waits joins the texts that grow at any token."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import StoppingCriteriaList

from mmgpt.models.decoding import Growing, Known, SeenImage, can_be_known, read, see

from .answer import Busy
from .kept import Kept, name_of, names_of
from .request import Request, StopWhenOver, Taking

IDLE = 10.0  # seconds without a question, after which the thread ends; the next question starts another
COUNTS = ("requests", "cancelled", "failed", "prompt_tokens", "cached_tokens", "completion_tokens")


class Engine:
    """Answers the requests of any number of threads with one model.

    Requests without beams share each step of the model (continuous batching), and start from what is kept of the
    beginning of their prompt. A request with beams is answered by itself, as is any where the model's memory of a text
    is more than keys and values (state space and linear attention).

    Args:
        model: a Flamingo, or a LoRAModel around one, in eval mode.
        max_batch: texts that grow at once.
        max_waiting: requests that wait beside them at most.
        cache_bytes: for keys and values that are kept for later questions.
    """

    def __init__(self, model: nn.Module, max_batch: int = 16, max_waiting: int = 64, cache_bytes: int = 2**30):
        self.flamingo = getattr(model, "module", model)
        self.language, self.tokenizer = self.flamingo.language, self.flamingo.tokenizer
        self.max_batch, self.max_waiting = max_batch, max_waiting
        self.kept, self.keeps = Kept(cache_bytes), can_be_known(self.language)
        self.counts = dict.fromkeys(COUNTS, 0)
        self._waiting: deque[Request] = deque()
        self._begun: Request | None = None  # it is being read, or answered by itself
        self._running: list[Request] = []  # one for each row of `_growing`
        self._growing = Growing(self.language)
        self._change = threading.Condition()
        self._model = threading.Lock()
        self._thread: threading.Thread | None = None

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
            self._change.notify_all()

    def stats(self) -> dict[str, int]:
        """Numbers of requests and tokens since the start, and of what runs, waits and is kept now."""
        running = len(self._running) + (self._begun is not None)
        return {**self.counts, "running": running, "waiting": len(self._waiting), "cache_bytes": self.kept.nbytes}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within it the model is the caller's alone; the texts that grow wait."""
        with self._model:
            yield

    def close(self) -> None:
        """Cancel all requests, and wait until they have ended."""
        with self._change:
            while requests := self._requests():
                for request in requests:
                    request.answer.cancel()
                self._change.wait()

    def _requests(self) -> list[Request]:
        return [*self._waiting, *filter(None, [self._begun]), *self._running]

    def _work(self) -> None:
        # The inference mode of the thread that asks does not reach this one.
        with torch.inference_mode():
            while self._has_work():
                with self._model:
                    self._admit()
                    self._grow()

    def _has_work(self) -> bool:
        """Waits for a request; False when none came for a while, and the thread is to end."""
        with self._change:
            self._change.notify_all()
            if not self._requests():
                self._change.wait(IDLE)
            if not self._requests():
                self._thread = None
            return self._thread is not None

    def _admit(self) -> None:
        """Start what waits, as far as there is room."""
        while self._waiting and len(self._running) < self.max_batch:
            alone = self._waiting[0].beams > 1 or not self.keeps
            if alone and self._running:
                return  # it is its turn: nobody passes it
            with self._change:
                self._begun = self._waiting.popleft()
            try:
                if self._begun.answer.cancelled:
                    self._end(self._begun, "cancelled")
                elif alone:
                    self._generate(self._begun)
                else:
                    self._start(self._begun)
            except Exception as error:
                self._fail(self._begun, error)
            self._begun = None

    def _start(self, request: Request) -> None:
        """Read a prompt and choose the first token; then the text grows with the others, if it is not over."""
        images = self._look(request)
        logits, known = self._read(request, images, request.ids)
        reason = self._choose(request, logits)
        if reason is not None:
            return self._end(request, reason)
        self._growing.add(known, images)
        self._running.append(request)

    def _grow(self) -> None:
        """One more token for each text that grows; those that are over leave."""
        self._settle(["cancelled" if request.answer.cancelled else None for request in self._running])
        if not self._running:
            return
        try:
            logits = self._growing.step([request.tokens[-1] for request in self._running])
        except Exception as error:
            # What the texts know of themselves may be half a step ahead.
            requests, self._running, self._growing = self._running, [], Growing(self.language)
            for request in requests:
                self._fail(request, error)
            return
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
        ended = [
            (row, request, reason)
            for row, (request, reason) in enumerate(zip(self._running, reasons, strict=True))
            if reason
        ]
        for row, request, _ in ended:
            self._keep(request, request.whole, self._growing.known(row))
        stay = [row for row, reason in enumerate(reasons) if not reason]
        self._growing.keep(stay)
        self._running = [self._running[row] for row in stay]
        for _, request, reason in ended:
            if isinstance(reason, Exception):
                self._fail(request, reason)
            else:
                self._end(request, reason)

    def _end(self, request: Request, reason: str) -> None:
        self.counts["cancelled"] += reason == "cancelled"
        request.end(reason)

    def _fail(self, request: Request, error: Exception) -> None:
        self.counts["failed"] += 1
        request.answer.fail(error)

    def _generate(self, request: Request) -> None:
        """Answer a request by itself, by transformers' generate."""
        images, inputs = self._look(request), {}
        if self.keeps and request.ids.shape[1] > 1:
            # All but the last token, which generate wants to read itself.
            _, known = self._read(request, images, request.ids[:, :-1])
            inputs["past_key_values"] = known.cache(request.beams)
        if images:
            inputs["media_features"] = torch.cat([image.latents for image in images])[None]
            inputs["image_counts"] = request.ids.new_tensor([len(images)])
        request.answer.prompt_tokens = request.ids.shape[1]
        taking = Taking(request, self.tokenizer)
        inputs["stopping_criteria"] = StoppingCriteriaList([StopWhenOver(taking)])
        if request.beams == 1:
            inputs["streamer"] = taking
        mask = torch.ones_like(request.ids)
        with torch.random.fork_rng():
            torch.manual_seed(torch.seed() if request.seed is None else request.seed)
            out = self.language.generate(request.ids, attention_mask=mask, **inputs, **request.arguments)
        if request.beams > 1:
            taking.put(request.ids)
            taking.put(out[:, request.ids.shape[1] :])
        self.counts["completion_tokens"] += len(request.tokens)
        self._end(request, "cancelled" if request.answer.cancelled else taking.reason or "stop")

    def _look(self, request: Request) -> list[SeenImage]:
        """The images of a request; those that are not kept go through tower and resampler."""
        if request.pixels is None:
            return []
        placed = self.flamingo.perceiver.media_time_embs is not None
        request.names = tuple(name_of(image, place * placed) for place, image in enumerate(request.pixels))
        images = [self.kept.image(name) for name in request.names]
        new = [place for place, image in enumerate(images) if image is None]
        if new:
            pixels, places = request.pixels[None, new], torch.tensor([new])
            latents = self.flamingo.encode(pixels.to(request.ids.device), places=places.to(request.ids.device))[0]
            for place, image in zip(new, see(self.language, latents), strict=True):
                images[place] = image
                self.kept.keep_image(request.names[place], image)
        return images

    def _read(self, request: Request, images: list[SeenImage], ids: Tensor) -> tuple[Tensor, Known]:
        """Read a prompt from where it is not known any more; what is known then is kept."""
        known = self.kept.beginning(names_of(self.language, ids, request.names)[:-1])
        request.answer.prompt_tokens, request.answer.cached_tokens = ids.shape[1], len(known)
        self.counts["prompt_tokens"] += ids.shape[1]
        self.counts["cached_tokens"] += len(known)
        logits, known = read(self.language, ids, images, known)
        self._keep(request, ids, known)
        return logits, known

    def _keep(self, request: Request, ids: Tensor, known: Known) -> None:
        self.kept.keep_text(names_of(self.language, ids[:, : len(known)], request.names), known)
