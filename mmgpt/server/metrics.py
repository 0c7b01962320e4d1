"""What /metrics tells, in Prometheus's text format."""

import threading
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmgpt.apis import Chat
from mmgpt.server.admission import Visit

PATHS = ("/v1/chat/completions", "/v1/models", "/health", "/metrics")
# Of `Chat.stats()`.
GAUGES = {
    "running": "answers that are being generated",
    "waiting": "answers that wait for the model",
    "cache_bytes": "memory of the kept caches of conversations",
}
COUNTERS = {
    "requests": "answers that were asked for",
    "cancelled": "answers that were stopped before their end",
    "failed": "answers that the model failed to give",
    "prompt_tokens": "tokens of prompts",
    "cached_tokens": "tokens of prompts that were known from before",
    "completion_tokens": "tokens generated",
}


class Engine(Collector):
    """The engine's own numbers, read when they are asked for."""

    def __init__(self, chat: Chat):
        self.chat = chat

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        stats = self.chat.stats()
        for name, text in GAUGES.items():
            yield GaugeMetricFamily(f"mmgpt_{name}", text, stats[name])
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"mmgpt_{name}", text, stats[name])


class Metrics:
    """The numbers of one server.

    Args:
        chat: its engine.
    """

    def __init__(self, chat: Chat):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        threads = Gauge("mmgpt_threads", "threads of Python", registry=self.registry)
        threads.set_function(threading.active_count)
        self.registry.register(Engine(chat))
        labels = ("path", "status")
        text = "requests by path and status; 499: the client left before the answer, 0: it came to no response"
        self.responses = Counter("mmgpt_http_requests", text, labels, registry=self.registry)
        text = "answers by how they ended: stop, length, cancelled (the client left), error"
        self.ends = Counter("mmgpt_answers", text, ("end",), registry=self.registry)
        self.first = self._histogram("mmgpt_time_to_first_token_seconds", "from the question to the first token")
        self.whole = self._histogram("mmgpt_answer_seconds", "from the question to the end of the answer")

    def _histogram(self, name: str, text: str) -> Histogram:
        buckets = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
        return Histogram(name, text, buckets=buckets, registry=self.registry)

    def count(self, visit: Visit) -> None:
        """Take the figures of a request that leaves."""
        answer = visit.answer
        if answer is None:  # it was refused
            return
        self.ends.labels(visit.end).inc()
        if answer.completion_tokens:
            self.first.observe(answer.seconds_to_first)
        if answer.finish_reason:
            self.whole.observe(answer.seconds)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)


class CountResponses:
    """ASGI middleware that counts responses by path and status.

    Args:
        app: what it wraps.
        metrics: where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and count."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.metrics.responses.labels(path, str(status)).inc()
